"""Hostile and legitimate certificate requests against the real API server and our approver."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from imagegen.model.cluster import Role
from tests.cloud_init import requests
from tests.cloud_init.real_cluster import RealCluster, Unavailable, read_condition, run_control_plane
from tests.judges import asking
from tests.judges.asking import Question, Reply
from tests.judges.csr_cases import HOSTILE, LEGITIMATE, UNDECIDED, Case
from tests.pki.clusters import make_cluster, make_node

pytestmark = [pytest.mark.process, pytest.mark.slow]

API = "https://10.240.0.11:6443"
CSRS = f"{API}/apis/certificates.k8s.io/v1/certificatesigningrequests"
SECRETS = f"{API}/api/v1/namespaces/kube-system/secrets"
#: as many as keep each below the approver's limit of twenty decisions in ten minutes
STATIC = tuple(f"worker-{number}" for number in range(5))
LEASERS = ("leaser-0", "leaser-1")
OTHER_NODE = "can only create a node CSR with CN="
#: takes part in no case: its request comes last
SENTINEL = "sentinel"
ADDRESSES = {name: f"10.240.0.{21 + index}" for index, name in enumerate((*STATIC, SENTINEL))}

CLUSTER = make_cluster(
    [
        make_node("etcd-0", [Role.ETCD], "10.240.0.10"),
        make_node("master-0", [Role.MASTER], "10.240.0.11"),
        *(make_node(name, [Role.WORKER], address) for name, address in ADDRESSES.items()),
        *(make_node(name, [Role.WORKER], None) for name in LEASERS),
    ],
    endpoint="10.240.0.11",
)


@dataclass(frozen=True)
class Sent:
    """A request as it went out, and what the API server answered."""

    name: str
    case: Case
    me: str
    reply: Reply


class Board:
    """The cluster with everybody's credentials, and what became of each request."""

    def __init__(self, real: RealCluster) -> None:
        self.real = real
        self._certificates: dict[str, tuple[str, str]] = {}

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        ca = self.real.machines["master-0"].path("/etc/kubernetes/pki/ca.crt")
        lines = "\n".join(json.dumps(asdict(question)) for question in questions)
        done = self.real.run([sys.executable, asking.__file__, str(ca)], stdin=lines)
        assert done.returncode == 0, done.stderr
        return [Reply(**json.loads(line)) for line in done.stdout.splitlines()]

    def token(self, node: str) -> dict[str, Any]:
        return {"token": self.real.store.read(f"nodes/{node}/bootstrap-token").decode().strip()}

    def pair(self, name: str) -> dict[str, Any]:
        """A client certificate: of a node that joined, or of the secret store."""
        certificate, key = self._certificates[name]
        return {"certificate": certificate, "key": key}

    def keep(self, name: str, certificate: bytes, key: bytes) -> None:
        files = [self.real.folder / f"{name}.{suffix}" for suffix in ("crt", "key")]
        for file, data in zip(files, (certificate, key), strict=True):
            file.write_bytes(data)
        self._certificates[name] = (str(files[0]), str(files[1]))

    def look(self) -> dict[str, Any]:
        (reply,) = self.ask([Question(url=CSRS, **self.pair("admin"))])
        return {item["metadata"]["name"]: item for item in reply.json["items"]}

    def send(self, cases: Sequence[tuple[str, Case, str]]) -> list[Sent]:
        """Send ``(name, case, me)`` in one go."""
        questions = [self._make_question(*entry) for entry in cases]
        replies = self.ask(questions)
        return [Sent(*entry, reply) for entry, reply in zip(cases, replies, strict=True)]

    def _make_question(self, name: str, case: Case, me: str) -> Question:
        ring = LEASERS if me in LEASERS else STATIC
        other = ring[(ring.index(me) + 1) % len(ring)] if me in ring else STATIC[0]
        words = {
            "me": me,
            "other": other,
            "address": ADDRESSES.get(me, ""),
            "others": ADDRESSES.get(other, ADDRESSES[STATIC[0]]),
            "leased": "10.240.0.97",
        }
        credential = {
            "token": partial(self.token, me),
            "token-of-other": partial(self.token, other),
            "node": partial(self.pair, me),
            "leaser": partial(self.pair, me),
            "other-node": partial(self.pair, other),
            "master": partial(self.pair, "kubelet-client"),
            "admin": partial(self.pair, "admin"),
        }[case.by]()
        return Question(url=CSRS, method="POST", body=make_body(name, case, words), **credential)


def make_body(name: str, case: Case, words: Mapping[str, str]) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "request": base64.b64encode(case.request(words)).decode(),
        "signerName": case.signer,
        "usages": case.usages,
    }
    if case.seconds is not None:
        spec["expirationSeconds"] = case.seconds
    for field, value in case.claimed.items():
        spec[field] = value.format_map(words) if isinstance(value, str) else value
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """After first boot, every node joined by TLS bootstrap."""
    try:
        with run_control_plane(CLUSTER, tmp_path_factory.mktemp("csr")) as real:
            done = real.run_first_boot()
            assert done.returncode == 0, done.stderr
            real.start_unit("master-0", "csr-approver.service")
            board = Board(real)
            for name, stem in (("admin", "super-admin"), ("kubelet-client", "apiserver-kubelet-client")):
                (file,) = [n for n in real.store.names() if n.endswith(f"{stem}.crt")]
                board.keep(name, real.store.read(file), real.store.read(file.replace(".crt", ".key")))
            join(board, (*STATIC, *LEASERS))
            yield board
    except Unavailable as reason:
        pytest.skip(str(reason))


def join(board: Board, nodes: Sequence[str]) -> None:
    sent = board.send([(f"join-{node}", Case(by="token"), node) for node in nodes])
    assert [s.reply.status for s in sent] == [201] * len(sent), sent[0].reply.text
    issued = wait_for_certificates(board, [s.name for s in sent])
    key = requests.key("p256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for node in nodes:
        board.keep(node, issued[f"join-{node}"], key)


def wait_for_certificates(board: Board, names: Sequence[str]) -> dict[str, bytes]:
    def look() -> dict[str, bytes] | None:
        found = board.look()
        pems = {name: found[name].get("status", {}).get("certificate") for name in names}
        return None if None in pems.values() else {n: base64.b64decode(p) for n, p in pems.items()}

    issued: dict[str, bytes] = board.real.wait_for(f"certificates for {', '.join(names)}", look)
    return issued


def spread(cases: Mapping[str, Case], prefix: str) -> list[tuple[str, Case, str]]:
    """Each case with an object name and the node that asks, in turn."""
    out = []
    for index, case in enumerate(cases.values()):
        ring = LEASERS if case.by == "leaser" else STATIC
        out.append((f"{prefix}-{index}", case, ring[index % len(ring)]))
    return out


@pytest.fixture(scope="module")
def judged(board: Board) -> dict[str, tuple[Sent, dict[str, Any] | None]]:
    """Every hostile request with what became of it, once a later legitimate one has its certificate."""
    sent = board.send(spread(HOSTILE, "hostile"))
    join(board, [SENTINEL])
    board.real.wait_for("decisions on all hostile requests", lambda: not list_open(board, sent), 30)
    found = board.look()
    return {why: (one, found.get(one.name)) for why, one in zip(HOSTILE, sent, strict=True)}


def list_open(board: Board, sent: Sequence[Sent]) -> list[str]:
    """Stored requests that wait for the approver's word."""
    found = board.look()
    waiting = [s for s in sent if s.name in found and s.case.outcome != UNDECIDED]
    return [s.name for s in waiting if not read_condition(found[s.name])]


@pytest.mark.parametrize("why", HOSTILE)
def test_hostile_requests_are_not_approved(
    judged: dict[str, tuple[Sent, dict[str, Any] | None]], why: str
) -> None:
    sent, csr = judged[why]
    case = sent.case
    if sent.reply.status == 403 and OTHER_NODE in sent.reply.text:
        # the node restriction of newer minors is quicker than the approver
        assert case.by in ("node", "other-node", "leaser")
        assert csr is None
        return
    if isinstance(case.outcome, int):
        assert (sent.reply.status, csr) == (case.outcome, None), sent.reply.text[:2000]
        return
    assert sent.reply.status == 201, sent.reply.text[:2000]
    assert csr is not None
    assert read_condition(csr) == case.outcome
    assert "certificate" not in csr["status"]
    if case.says:
        assert case.says in csr["status"]["conditions"][0]["message"]


@pytest.mark.usefixtures("judged")
def test_every_legitimate_request_is_approved(board: Board) -> None:
    """After all the hostile ones, and by the same nodes."""
    sent = board.send(spread(LEGITIMATE, "legitimate"))
    assert {why: s.reply.status for why, s in zip(LEGITIMATE, sent, strict=True)} == dict.fromkeys(
        LEGITIMATE, 201
    )
    for one, pem in zip(sent, wait_for_certificates(board, [s.name for s in sent]).values(), strict=True):
        issued = x509.load_pem_x509_certificate(pem)
        assert issued.subject.rfc4514_string() == f"CN=system:node:{one.me},O=system:nodes"
        constraints = issued.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert not constraints.ca


def test_a_revoked_token_is_worth_nothing(board: Board) -> None:
    token = board.token(LEASERS[1])
    secret = f"{SECRETS}/bootstrap-token-{token['token'].partition('.')[0]}"
    (gone,) = board.ask([Question(url=secret, method="DELETE", **board.pair("admin"))])
    assert gone.status == 200
    case = LEGITIMATE["the token once more, by a new machine"]

    def refused() -> bool:
        (sent,) = board.send([("replay", case, LEASERS[1])])
        return sent.reply.status == 401

    # the API server's own memory of tokens lasts ten seconds
    board.real.wait_for("the end of a revoked token", refused, 30)
    assert board.real.run_first_boot().returncode == 0
    (sent,) = board.send([("replay-after-boot", case, LEASERS[1])])
    assert sent.reply.status == 401


def test_an_invented_token_is_worth_nothing(board: Board) -> None:
    good = board.token(STATIC[0])["token"]
    bad = f"{good.partition('.')[0]}.{'0' * 16}"
    (reply,) = board.ask([Question(url=f"{API}/api", token=bad)])
    assert reply.status == 401


def list_reaches(board: Board) -> Iterator[tuple[str, Question]]:
    """What a node or a token may try beyond asking for its own certificate."""
    node, token = board.pair(STATIC[0]), board.token(STATIC[1])
    approval = f"{CSRS}/hostile-0/approval"
    condition = {"type": "Approved", "status": "True", "reason": "Me", "message": ""}
    yes = {"status": {"conditions": [condition]}}
    for who, credential in (("node", node), ("token", token)):
        yield f"{who} approves", Question(url=approval, method="PATCH", body=yes, **credential)
        yield (
            f"{who} signs",
            Question(
                url=f"{CSRS}/hostile-0/status",
                method="PATCH",
                body={"status": {"certificate": "LS0t"}},
                **credential,
            ),
        )
        yield f"{who} deletes requests", Question(url=CSRS, method="DELETE", **credential)
        yield f"{who} lists secrets", Question(url=SECRETS, **credential)
        yield (
            f"{who} makes a token",
            Question(url=SECRETS, method="POST", body={"metadata": {"name": "x"}}, **credential),
        )
        yield (
            f"{who} becomes somebody else",
            Question(
                url=f"{API}/api/v1/namespaces/kube-system/serviceaccounts/default/token",
                method="POST",
                body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
                **credential,
            ),
        )
    other = f"{API}/api/v1/nodes/{STATIC[1]}"
    yield (
        "node labels another",
        Question(url=other, method="PATCH", body={"metadata": {"labels": {"a": "b"}}}, **node),
    )
    yield (
        "node makes another",
        Question(url=f"{API}/api/v1/nodes", method="POST", body={"metadata": {"name": STATIC[1]}}, **node),
    )
    yield "token reads nodes", Question(url=f"{API}/api/v1/nodes", **token)
    yield (
        "token makes its node",
        Question(url=f"{API}/api/v1/nodes", method="POST", body={"metadata": {"name": STATIC[1]}}, **token),
    )


@pytest.mark.usefixtures("judged")
def test_nodes_and_tokens_reach_nothing_else(board: Board) -> None:
    node = {"metadata": {"name": STATIC[1]}}
    url = f"{API}/api/v1/nodes"
    (made,) = board.ask([Question(url=url, method="POST", body=node, **board.pair("admin"))])
    assert made.status == 201
    reaches = dict(list_reaches(board))
    replies = board.ask(list(reaches.values()))
    assert dict(zip(reaches, (r.status for r in replies), strict=True)) == dict.fromkeys(reaches, 403)


def test_the_list_of_hostile_requests_is_long_enough() -> None:
    assert len(HOSTILE) >= 30
    assert len({repr(case) for case in HOSTILE.values()}) == len(HOSTILE)


def test_nothing_panicked(board: Board) -> None:
    for log in board.real.folder.glob("*.log"):
        text = log.read_text(errors="replace")
        assert "Observed a panic" not in text
        assert "Traceback" not in text
