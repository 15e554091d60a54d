"""What a stranger reaches on the real daemons of one node: the health endpoints and nothing else."""

from __future__ import annotations

import base64
import itertools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from imagegen.kubernetes.apiserver import limits_anonymous
from imagegen.kubernetes.gates import load_gates
from imagegen.model.version import Version, parse_version
from imagegen.plan.ports import list_ports
from imagegen.verify.journal import find_faults
from tests.cloud_init.real_cluster import RealCluster, Unavailable, list_versions, mirror, run_control_plane
from tests.judges import asking
from tests.judges.asking import Question, Reply
from tests.judges.test_flags_run import LEAVE_CONNTRACK
from tests.plan.plans import make_plan, write_cluster

pytestmark = [
    pytest.mark.judge,
    pytest.mark.slow,
    pytest.mark.skipif(not list_versions(), reason=f"no control plane in {mirror()}; make mirror builds one"),
]

NODE = "{name: one, roles: [etcd, master, worker], address: 10.240.0.10}"
ADDRESS = "10.240.0.10"
API = f"https://{ADDRESS}:6443"
HEALTH = ("/healthz", "/livez", "/readyz")
CANARY = "yellow-bird-in-a-coal-mine"
#: what listens beside the port table, on loopback only
LOOPBACK_PORTS = {
    2379: "etcd, for etcdctl on the machine",
    2381: "etcd's metrics",
    10249: "kube-proxy's metrics",
    10257: "the controller manager",
    10259: "the scheduler",
}
#: the scheduler's plain-text port, which it cannot close before 1.23
SCHEDULER_PLAIN_PORT = 10251


@dataclass
class Machine:
    """The running daemons, and ways to ask them."""

    real: RealCluster
    version: Version

    def ask(self, questions: Sequence[Question], *, ca: str = "/etc/kubernetes/pki/ca.crt") -> list[Reply]:
        lines = "\n".join(json.dumps(asdict(question)) for question in questions)
        file = self.real.machines["one"].path(ca)
        done = self.real.run([sys.executable, asking.__file__, str(file)], stdin=lines)
        assert done.returncode == 0, done.stderr
        return [Reply(**json.loads(line)) for line in done.stdout.splitlines()]

    def credential(self, stem: str) -> dict[str, str]:
        """A pair of the secret store as files."""
        (name,) = [n for n in self.real.store.names() if n.endswith(f"{stem}.crt")]
        for suffix in ("crt", "key"):
            file = self.real.folder / f"{stem}.{suffix}"
            file.write_bytes(self.real.store.read(name.removesuffix("crt") + suffix))
        return {
            "certificate": str(self.real.folder / f"{stem}.crt"),
            "key": str(self.real.folder / f"{stem}.key"),
        }

    def is_ready(self) -> bool:
        urls = [f"{API}/readyz", "https://127.0.0.1:10257/healthz", "https://127.0.0.1:10259/healthz"]
        questions = [Question(url=url, **self.credential("super-admin")) for url in urls]
        return all(reply.status == 200 for reply in self.ask(questions))

    def has_rules(self) -> bool:
        """Whether kube-proxy says that it has done its work."""
        return self.ask([Question(url=f"http://{ADDRESS}:10256/healthz")])[0].status == 200

    def register_node(self) -> None:
        """As its kubelet would: kube-proxy wants to know its address."""
        admin = self.credential("super-admin")
        node = {"metadata": {"name": "one"}}
        addresses = [{"type": "InternalIP", "address": ADDRESS}, {"type": "Hostname", "address": "one"}]
        status = {"status": {"addresses": addresses}}
        url = f"{API}/api/v1/nodes"
        self.ask(
            [
                Question(url=url, method="POST", body=node, **admin),
                Question(url=f"{url}/one/status", method="PATCH", body=status, **admin),
            ]
        )


@pytest.fixture(scope="module", params=list_versions(), ids=str)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    version: Version = request.param
    folder = tmp_path_factory.mktemp(f"api-{version}")
    path = write_cluster(folder, (NODE,), version=f"{version}, extra_args: {LEAVE_CONNTRACK}")
    try:
        with run_control_plane(
            make_plan(path).cluster, folder, version=version, more=("kube-scheduler", "kube-proxy")
        ) as real:
            machine = Machine(real, version)
            real.wait_for("the control plane", machine.is_ready, 120)
            machine.register_node()
            assert real.run_first_boot("one").returncode == 0
            real.wait_for("kube-proxy", machine.has_rules, 60)
            yield machine
    except Unavailable as reason:
        pytest.skip(str(reason))


def walk_api(machine: Machine) -> list[str]:
    """Every path that the API server knows of: its index, and each resource of each group's version."""
    admin = machine.credential("super-admin")
    (index,) = machine.ask([Question(url=f"{API}/", **admin)])
    paths: list[str] = index.json["paths"]
    groups = [path for path in paths if re.fullmatch(r"/api/v\w+|/apis/[^/]+/v\w+", path)]
    lists = machine.ask([Question(url=f"{API}{path}", **admin) for path in groups])
    for group, reply in zip(groups, lists, strict=True):
        for resource in reply.json.get("resources", ()):
            name = resource["name"]
            paths += [f"{group}/{name}", f"{group}/namespaces/kube-system/{name}"]
    return sorted(set(paths))


def test_a_stranger_sees_health_and_nothing_else(machine: Machine) -> None:
    paths = walk_api(machine)
    assert len(paths) > 150
    tricks = [
        *(f"/{path}" for path in HEALTH),
        *(f"{path}/../api" for path in HEALTH),
        *(f"{path}/etcd" for path in HEALTH),
        "/readyz/../api/v1/secrets",
        "/readyz%2f..%2fapi",
        "/api/v1/namespaces/kube-public/configmaps/cluster-info",
        "/api/v1/nodes/one/proxy/metrics",
        "/metrics/slis",
        "/statusz",
        "/flagz",
        "/debug/pprof/",
        "/debug/flags/v",
        "/openid/v1/jwks",
        "/.well-known/openid-configuration",
        "/logs",
        "/openapi/v2",
        "/version",
    ]
    asked = [path for path in (*paths, *tricks) if path not in HEALTH]
    seen = dict(zip(asked, machine.ask([Question(url=f"{API}{path}") for path in asked]), strict=True))
    # the server redirects a path that is not clean; where it leads is asked for, too
    assert {path: r.status for path, r in seen.items() if r.status != 401} == {}
    open_paths = machine.ask([Question(url=f"{API}{path}") for path in HEALTH])
    allowed = limits_anonymous(load_gates(machine.version))
    assert [reply.status for reply in open_paths] == [200 if allowed else 401] * len(HEALTH)
    assert {reply.text for reply in open_paths if reply.status == 200} <= {"ok"}


def test_a_stranger_cannot_write(machine: Machine) -> None:
    targets = [f"{API}{path}" for path in (*HEALTH, "/api/v1/namespaces", "/api/v1/namespaces/default/pods")]
    questions = [
        Question(url=url, method=method, body={})
        for url, method in itertools.product(targets, ("POST", "PUT", "PATCH", "DELETE"))
    ]
    assert {reply.status for reply in machine.ask(questions)} <= {401, 403}


def test_what_others_say_of_themselves_is_not_believed(machine: Machine) -> None:
    """Credentials of other authorities, an invented token, and the front proxy's headers without its name."""
    etcd = machine.credential("apiserver-etcd-client")
    wanted = f"{API}/api/v1/namespaces/kube-system/secrets"
    forged = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    replies = machine.ask(
        [
            Question(url=wanted, **etcd),
            Question(url=wanted, token="abcdef.0123456789abcdef"),
            Question(url=wanted, token=f"{forged}.{forged}."),
        ]
    )
    assert {reply.status for reply in replies} <= {0, 401}


@pytest.mark.parametrize("port", [10257, 10259], ids=["controller manager", "scheduler"])
def test_the_controllers_show_strangers_their_health(machine: Machine, port: int) -> None:
    paths = ("/healthz", "/metrics", "/configz", "/debug/pprof/", "/debug/flags/v", "/flagz", "/statusz", "/")
    replies = machine.ask([Question(url=f"https://127.0.0.1:{port}{path}") for path in paths])
    assert replies[0].status == 200
    assert {path: r.status for path, r in zip(paths, replies, strict=True) if r.status < 400} == {
        "/healthz": 200
    }


def test_kube_proxy_shows_others_its_health(machine: Machine) -> None:
    paths = ("/healthz", "/livez", "/metrics", "/configz", "/proxyMode", "/debug/pprof/", "/statusz", "/")
    replies = machine.ask([Question(url=f"http://{ADDRESS}:10256{path}") for path in paths])
    assert replies[0].status == 200
    assert {path for path, r in zip(paths, replies, strict=True) if r.status < 400} <= {"/healthz", "/livez"}
    (profile,) = machine.ask([Question(url="http://127.0.0.1:10249/debug/pprof/")])
    assert profile.status == 404


def test_etcd_speaks_to_its_own_clients_only(machine: Machine) -> None:
    """Nobody without a certificate, and nobody with one of the cluster's own authority."""
    strangers = [{}, machine.credential("super-admin"), machine.credential("apiserver-kubelet-client")]
    questions = [
        Question(url=f"https://{ADDRESS}:{port}/health", **stranger)
        for port, stranger in itertools.product((2379, 2380), strangers)
    ]
    assert {reply.status for reply in machine.ask(questions, ca="/etc/etcd/pki/ca.crt")} == {0}
    (own,) = machine.ask(
        [Question(url=f"https://{ADDRESS}:2379/health", **machine.credential("apiserver-etcd-client"))],
        ca="/etc/etcd/pki/ca.crt",
    )
    assert own.status == 200


def test_plain_text_endpoints_are_on_loopback(machine: Machine) -> None:
    replies = machine.ask([Question(url=f"http://{ADDRESS}:{port}/metrics") for port in (2381, 10249)])
    assert [reply.status for reply in replies] == [0, 0]


def read_listeners(text: str) -> set[tuple[str, int]]:
    """Address and port of every listening TCP socket in the form of /proc/net/tcp and tcp6."""
    found = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[3] == "0A":
            address, port = words[1].split(":")
            loopback = address in ("0100007F", "00000000000000000000000001000000")
            found.add(("loopback" if loopback else "any", int(port, 16)))
    return found


def test_open_ports_equal_the_port_table(machine: Machine) -> None:
    """Of the daemons that run here; the kubelet, the SSH server and flannel need a machine."""
    text = machine.real.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).stdout
    listeners = read_listeners(text)
    plan = make_plan(machine.real.folder / "cluster.yaml")
    table: set[int] = set()
    for row in list_ports(plan):
        first, _, last = row.port.partition("-")
        if row.protocol == "tcp":
            table |= set(range(int(first), int(last or first) + 1))
    reachable = {port for where, port in listeners if where == "any"}
    assert reachable <= table
    assert {2379, 2380, 6443, 10256} <= reachable
    hidden = {port for where, port in listeners if where == "loopback"}
    plain = {SCHEDULER_PLAIN_PORT} if machine.version < parse_version("1.23.0") else set()
    assert hidden == set(LOOPBACK_PORTS) | plain


def test_a_secret_is_not_plain_text_on_disk(machine: Machine) -> None:
    """Read from etcd's own files, not through its API."""
    admin = machine.credential("super-admin")
    secret = {"metadata": {"name": "canary"}, "stringData": {"word": CANARY}}
    url = f"{API}/api/v1/namespaces/default/secrets"
    (made,) = machine.ask([Question(url=url, method="POST", body=secret, **admin)])
    assert made.status == 201, made.text
    (read,) = machine.ask([Question(url=f"{url}/canary", **admin)])
    assert base64.b64decode(read.json["data"]["word"]).decode() == CANARY
    files = [p for p in machine.real.machines["one"].path("/var/lib/etcd").rglob("*") if p.is_file()]
    stored = b"".join(path.read_bytes() for path in files)
    assert b"k8s:enc:secretbox:v1:key1:" in stored
    for form in (CANARY.encode(), base64.b64encode(CANARY.encode())):
        assert form not in stored
    audit = machine.real.machines["one"].path("/var/log/kubernetes/audit.log").read_text()
    assert '"name":"canary"' in audit
    assert CANARY not in audit
    assert base64.b64encode(CANARY.encode()).decode() not in audit


@pytest.mark.parametrize(
    "unit", ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"]
)
def test_daemons_take_their_configuration_without_a_word(machine: Machine, unit: str) -> None:
    text = Path(machine.real.folder / f"{unit}.service.log").read_text(errors="replace")
    assert text
    assert [str(fault) for fault in find_faults(unit, machine.version, text)] == []
