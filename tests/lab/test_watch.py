"""What counts as Ready, from answers of API servers, and when a wait ends."""

from __future__ import annotations

import base64
import ssl
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from imagegen.lab import watch as watching
from imagegen.lab.api import (
    ApiError,
    NodeCondition,
    Request,
    _make_context,
    _read_condition,
    _read_request,
)
from imagegen.lab.errors import BootFailureError
from imagegen.lab.folder import LabFolder
from imagegen.lab.progress import Event
from imagegen.lab.watch import Watch, watch_lab
from tests.lab.clusters import load_text

NOW = datetime(2026, 11, 21, 10, 0, 30, tzinfo=UTC).timestamp()
CONSOLE = "[    0.5] x\n[    1.123456] y\nimagegen: cloud-init finished after 40.0 seconds\n"


def _node(status: str, heartbeat: str) -> dict[str, Any]:
    ready = {"type": "Ready", "status": status, "lastHeartbeatTime": heartbeat, "message": "why"}
    info = {"bootID": "b", "kubeletVersion": "v1.36.4"}
    return {"metadata": {"name": "w"}, "status": {"conditions": [ready], "nodeInfo": info}}


def test_a_condition_tells_how_old_its_heartbeat_is() -> None:
    condition = _read_condition(_node("True", "2026-11-21T10:00:00Z"), NOW)
    assert condition == NodeCondition(
        ready=True, heartbeat_age=30.0, message="why", boot_id="b", version="v1.36.4"
    )
    assert not _read_condition(_node("Unknown", "2026-11-21T10:00:00Z"), NOW).ready
    assert not _read_condition({"metadata": {"name": "w"}}, NOW).ready


def _request(user: str, name: str, usages: list[str], **status: Any) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = signed.public_bytes(serialization.Encoding.PEM)
    spec = {"username": user, "request": base64.b64encode(pem).decode(), "usages": usages}
    return {"metadata": {"creationTimestamp": "2026-11-21T10:00:00Z"}, "spec": spec, "status": status}


def test_requests_are_told_apart() -> None:
    approved = {"conditions": [{"type": "Approved"}], "certificate": "QQ=="}
    client = _request("system:bootstrap:abc", "system:node:w", ["client auth"], **approved)
    assert _read_request(client, NOW) == Request(
        node="w", kind="client", approved=True, issued=True, age=30.0
    )
    serving = _request("system:node:w", "system:node:w", ["server auth"])
    assert _read_request(serving, NOW) == Request(
        node="w", kind="serving", approved=False, issued=False, age=30.0
    )
    assert _read_request(_request("somebody", "system:node:w", ["client auth"]), NOW) is None


class FakeMachine:
    def __init__(self, name: str) -> None:
        self.name, self.text, self.alive = name, CONSOLE, True
        self.started_at = time.time() - 100.0

    def is_alive(self) -> bool:
        return self.alive

    def cpu_seconds(self) -> float:
        return 1.0

    def read_console(self) -> str:
        return self.text


class FakeApi:
    """An API server that knows both workers; ``age`` is that of their heartbeats."""

    def __init__(self) -> None:
        self.ready, self.age = True, 1.0

    def is_ready(self) -> bool:
        return self.ready

    def list_nodes(self) -> dict[str, NodeCondition]:
        if not self.ready:
            raise ApiError("not yet")
        condition = NodeCondition(
            ready=True, heartbeat_age=self.age, message="", boot_id="", version="v1.36.4"
        )
        return {"worker-0": condition, "worker-1": condition, "stranger": condition}

    def list_requests(self) -> list[Request]:
        return [
            Request(node="worker-0", kind="client", approved=True, issued=True, age=50.0),
            # of the machine that was there before this one
            Request(node="worker-1", kind="client", approved=True, issued=True, age=5000.0),
        ]


class FakeNetwork:
    def __init__(self) -> None:
        self.closed: set[int] = set()

    def connect(self, host: str, port: int, timeout: float) -> SimpleNamespace:
        if port in self.closed:
            raise ConnectionRefusedError
        return SimpleNamespace(close=lambda: None)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(watching, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watching, "_ASK_SECONDS", 0.0)
    cluster = load_text(tmp_path)
    folder = LabFolder(tmp_path / "lab")
    folder.make()
    return SimpleNamespace(
        cluster=cluster,
        nodes=list(cluster.nodes),
        folder=folder,
        machines={node.name: FakeMachine(node.name) for node in cluster.nodes},
        api=FakeApi(),
        network=FakeNetwork(),
        engine=SimpleNamespace(name="qemu", describe=lambda: "kvm"),
        address_of=lambda name: "10.240.0.1",
    )


def test_a_lab_is_ready_when_every_node_has_done_its_part(lab: Any) -> None:
    seen = []
    timeline = watch_lab(Watch(lab), 5.0, on_change=lambda watch: seen.append(watch.seconds))
    assert seen
    assert timeline.seconds == pytest.approx(100.0, abs=5.0)
    assert timeline.nodes["worker-0"].has(Event.CSR)
    assert all(node.is_complete for node in timeline.nodes.values())
    assert lab.folder.timeline.exists()


def test_a_heartbeat_of_an_earlier_start_does_not_count(lab: Any) -> None:
    """Ready=True outlives a power cut."""
    lab.api.age = 101.0
    with pytest.raises(BootFailureError, match="worker-0 lacks Ready"):
        watch_lab(Watch(lab), 0.1)
    assert watch_lab(Watch(lab), 0.1, nodes=["etcd-0"]).nodes["etcd-0"].is_complete


def test_a_service_that_does_not_answer_is_named(lab: Any) -> None:
    lab.network.closed = {2379}
    with pytest.raises(BootFailureError, match="etcd-0 lacks etcd; the last lines"):
        watch_lab(Watch(lab), 0.1)


def test_an_api_that_is_not_ready_is_waited_for(lab: Any) -> None:
    lab.api.ready = False
    with pytest.raises(BootFailureError, match="the cluster is not ready after"):
        watch_lab(Watch(lab), 0.1)


def test_a_panic_ends_the_wait_with_the_nodes_console(lab: Any) -> None:
    lab.machines["worker-1"].text = "line\nKernel panic - not syncing: oops\n"
    with pytest.raises(
        BootFailureError, match=r"worker-1 does not come up: Kernel panic.*\nline\n"
    ) as caught:
        watch_lab(Watch(lab), 3600.0)
    assert caught.value.hint == f"its whole console is {lab.folder.console('worker-1')}"


def test_a_machine_that_ended_ends_the_wait(lab: Any) -> None:
    lab.machines["etcd-0"].alive = False
    with pytest.raises(BootFailureError, match="etcd-0 does not come up: ended"):
        watch_lab(Watch(lab), 3600.0)


def test_a_second_look_keeps_the_times_of_the_first(lab: Any) -> None:
    first = watch_lab(Watch(lab), 5.0)
    for machine in lab.machines.values():
        machine.text += "more\n"
    time.sleep(0.3)
    second = watch_lab(Watch(lab), 5.0)
    assert second.as_dict() == first.as_dict()


def test_a_restart_is_timed_by_itself(lab: Any) -> None:
    first = watch_lab(Watch(lab), 5.0)
    lab.machines["worker-1"].started_at = time.time() - 20.0
    second = watch_lab(Watch(lab), 5.0)
    assert second.seconds == pytest.approx(20.0, abs=5.0)
    assert second.nodes["worker-1"].times[Event.READY] == pytest.approx(20.0, abs=5.0)
    assert second.nodes["worker-0"].times == first.nodes["worker-0"].times


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nodes": 5}', '{"nodes": {"etcd-0": {"power_on": 1}}}'])
def test_a_timeline_that_cannot_be_read_is_forgotten(lab: Any, text: str) -> None:
    lab.folder.timeline.write_text(text)
    assert watch_lab(Watch(lab), 5.0).seconds == pytest.approx(100.0, abs=5.0)


@pytest.mark.parametrize("checks_time", [True, False])
def test_a_client_may_overlook_what_day_it_is_but_not_who_answers(checks_time: bool) -> None:
    """A server whose certificate is of next year; and one of an authority that is not ours."""
    start = datetime.now(UTC) + timedelta(days=366)
    ours, foreign = _make_server(start), _make_server(start)
    settings = {"certificate-authority-data": base64.b64encode(ours[0]).decode()}
    user = {
        "client-certificate-data": base64.b64encode(ours[0]).decode(),
        "client-key-data": base64.b64encode(ours[1]).decode(),
    }
    context = _make_context(settings, user, checks_time=checks_time)
    problems = [_shake_hands(context, server) for server in (ours, foreign)]
    assert ("not yet valid" in problems[0]) == checks_time
    assert (problems[0] == "") != checks_time
    assert "self-signed" in problems[1].replace("self signed", "self-signed")


def _make_server(start: datetime) -> tuple[bytes, bytes]:
    """A certificate for ``api`` that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start + timedelta(days=9))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("api")]), critical=False)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return certificate, key.private_bytes(pem, form, serialization.NoEncryption())


def _shake_hands(context: ssl.SSLContext, server: tuple[bytes, bytes]) -> str:
    """What the client says against the server; empty when it trusts it."""
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "server.pem"
        chain.write_bytes(b"".join(server))
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        serving.load_cert_chain(chain)
    ends = [ssl.MemoryBIO() for _ in range(2)]
    client = context.wrap_bio(ends[0], ends[1], server_hostname="api")
    other = serving.wrap_bio(ends[1], ends[0], server_side=True)
    for _ in range(6):
        for side in (client, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return str(error)
    return ""
