"""The approver's loop against a small API server over TLS: conflicts, expired watches, disconnects,
refusals.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud_init.fake_api import CSRS, REVIEWS, FakeApi, serve
from tests.cloud_init.programs import load_program
from tests.cloud_init.requests import (
    CLIENT,
    SERVING,
    bootstrapper,
    client_request,
    csr,
    dns,
    ip,
    kubelet,
    serving_request,
)

approver_program = load_program("csr-approver")
import kube_api  # type: ignore[import-not-found]  # noqa: E402

POLICY = approver_program.parse_policy(
    "serving yes\nrange 10.240.0.0/24\nnode worker-0 10.240.0.21\nnode worker-1 dhcp\n"
)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serve() as server:
        yield server


@pytest.fixture
def client(api: FakeApi, tmp_path: Path) -> Any:
    return kube_api.ApiClient(kube_api.read_kubeconfig(str(api.write_kubeconfig(tmp_path / "kubeconfig"))))


@pytest.fixture
def approver(client: Any) -> Any:
    return approver_program.Approver(client, POLICY)


def add(api: FakeApi, name: str, body: dict[str, Any]) -> None:
    body["metadata"] = {"name": name}
    api.store(CSRS, body)


def good(node: str = "worker-0") -> dict[str, Any]:
    return csr(client_request(node).pem, CLIENT, bootstrapper(node))


def bad() -> dict[str, Any]:
    return csr(client_request("worker-9").pem, CLIENT, bootstrapper("worker-9"))


def end_watch_soon(api: FakeApi) -> None:
    """End the round that is under way as soon as its watch has begun."""

    def end() -> None:
        api.watched.wait(10)
        api.tell(None)

    threading.Thread(target=end, daemon=True).start()


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)


def test_a_round_decides_on_everything_that_is_listed(api: FakeApi, approver: Any) -> None:
    api.page = 2
    add(api, "good", good())
    add(api, "bad", bad())
    add(api, "serving", csr(serving_request("worker-0", ip("10.240.0.21")).pem, SERVING, kubelet("worker-0")))
    add(api, "foreign", csr(client_request("worker-0").pem, "example.com/signer", bootstrapper("worker-0")))
    end_watch_soon(api)
    approver.run_round()
    assert api.conditions("good") == ["Approved"]
    assert api.conditions("bad") == ["Denied"]
    assert api.conditions("serving") == ["Approved"]
    assert api.conditions("foreign") == []


def test_the_condition_says_why(api: FakeApi, approver: Any) -> None:
    add(api, "bad", bad())
    approver.handle(api.collection(CSRS)["bad"])
    (condition,) = api.collection(CSRS)["bad"]["status"]["conditions"]
    assert condition["status"] == "True"
    assert condition["reason"] == "ImagegenPolicy"
    assert "no node of this name" in condition["message"]


def test_the_authorizer_is_asked_as_the_controller_manager_would(api: FakeApi, approver: Any) -> None:
    add(api, "new", good())
    add(api, "renewal", csr(client_request("worker-0").pem, CLIENT, kubelet("worker-0")))
    for name in ("new", "renewal"):
        approver.handle(api.collection(CSRS)[name])
    first, second = (review["spec"] for review in api.reviews)
    assert first["user"] == "system:bootstrap:abc123"
    assert first["groups"] == good()["spec"]["groups"]
    assert first["resourceAttributes"] == {
        "group": "certificates.k8s.io",
        "resource": "certificatesigningrequests",
        "subresource": "nodeclient",
        "verb": "create",
        "version": "*",
    }
    assert second["resourceAttributes"]["subresource"] == "selfnodeclient"


def test_without_the_binding_a_request_waits_and_is_not_denied(api: FakeApi, approver: Any) -> None:
    add(api, "early", good())
    api.allowed = lambda review: False
    approver.handle(api.collection(CSRS)["early"])
    assert api.conditions("early") == []
    assert approver.undone
    api.allowed = lambda review: True
    approver.handle(api.collection(CSRS)["early"])
    assert api.conditions("early") == ["Approved"]


def test_an_object_that_changed_meanwhile_is_not_approved(api: FakeApi, approver: Any) -> None:
    """The name is the same, the object is another: the server must refuse, and the approver look again."""
    add(api, "mine", good())
    seen = api.collection(CSRS)["mine"]

    def swap(path: str) -> None:
        api.before_put = lambda path: None
        del api.collection(CSRS)["mine"]
        add(api, "mine", bad())

    api.before_put = swap
    approver.handle(seen)
    assert api.conditions("mine") == []
    assert approver.undone
    end_watch_soon(api)
    approver.run_round()
    assert api.conditions("mine") == ["Denied"]


def test_two_approvers_agree(api: FakeApi, client: Any, tmp_path: Path) -> None:
    second = kube_api.ApiClient(kube_api.read_kubeconfig(str(api.write_kubeconfig(tmp_path / "other"))))
    names = [f"csr-{i}" for i in range(20)]
    for name in names:
        add(
            api,
            name,
            csr(client_request("worker-1").pem, CLIENT, kubelet("worker-1")) if name[-1] == "0" else good(),
        )
    everything = [dict(api.collection(CSRS)[name]) for name in names]

    def decide_all(api_client: Any) -> None:
        one = approver_program.Approver(api_client, POLICY)
        for item in everything:
            one.handle(item)

    threads = [threading.Thread(target=decide_all, args=(c,)) for c in (client, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(api.conditions(name) == ["Approved"] for name in names)


def test_a_requester_that_asks_too_often_waits(api: FakeApi, approver: Any, capfd: Any) -> None:
    for i in range(approver_program.DECISIONS_PER_REQUESTER + 5):
        add(api, f"csr-{i}", good())
        approver.handle(api.collection(CSRS)[f"csr-{i}"])
    decided = [name for name in api.collection(CSRS) if api.conditions(name)]
    assert len(decided) == approver_program.DECISIONS_PER_REQUESTER
    # another node is not held up by it
    add(api, "other", csr(client_request("worker-1").pem, CLIENT, kubelet("worker-1")))
    approver.handle(api.collection(CSRS)["other"])
    assert api.conditions("other") == ["Approved"]
    assert "postponed" in capfd.readouterr().err


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_one_refused_request_does_not_stop_the_others(api: FakeApi, approver: Any, status: int) -> None:
    add(api, "first", good())
    add(api, "second", good("worker-1"))
    api.faults.append(("PUT", f"{CSRS}/first", status))
    for name in ("first", "second"):
        approver.handle(api.collection(CSRS)[name])
    assert api.conditions("first") == []
    assert api.conditions("second") == ["Approved"]


@pytest.fixture
def running(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """The endless loop in a thread, with short pauses; it stops when the test ends."""
    stopped = threading.Event()

    class Stop(Exception):
        """Leaves the loop."""

    def pause(self: Any) -> None:
        if stopped.is_set():
            raise Stop
        time.sleep(0.01)

    monkeypatch.setattr(kube_api.Backoff, "pause", pause)
    monkeypatch.setattr(approver_program, "IMPATIENT_SECONDS", 1)
    kubeconfig = str(api.write_kubeconfig(tmp_path / "kubeconfig"))

    def run() -> None:
        try:
            approver_program.run(kubeconfig, POLICY)
        except Stop:
            return

    thread = threading.Thread(target=run, daemon=True)
    api.start = thread.start
    yield api
    stopped.set()
    api.faults += [("GET", CSRS, 500)] * 3 + [("GET", "WATCH", 500)] * 3
    api.tell(None)
    thread.join(10)
    assert not thread.is_alive()


def test_requests_that_come_during_the_watch_are_decided(running: FakeApi) -> None:
    running.start()
    assert running.watched.wait(10)
    add(running, "late", good())
    wait_for(lambda: running.conditions("late") == ["Approved"])


_GENERAL_FAULTS = (401, 403, 429, 500, 503, "drop", "garbage")
_LIST, _WATCH, _REVIEW, _APPROVAL = ("GET", CSRS), ("GET", "WATCH"), ("POST", REVIEWS), ("PUT", CSRS)


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        *((_LIST, fault) for fault in (410, *_GENERAL_FAULTS)),
        *((_WATCH, fault) for fault in (410, *_GENERAL_FAULTS)),
        *((_REVIEW, fault) for fault in _GENERAL_FAULTS),
        *((_APPROVAL, fault) for fault in (409, *_GENERAL_FAULTS)),
    ],
)
def test_every_fault_passes(running: FakeApi, where: tuple[str, str], fault: int | str) -> None:
    running.faults += [(*where, fault)] * 2
    add(running, "mine", good())
    running.start()
    wait_for(lambda: running.conditions("mine") == ["Approved"])
    add(running, "next", good("worker-1"))
    wait_for(lambda: running.conditions("next") == ["Approved"])
    assert len(running.collection(CSRS)["mine"]["status"]["conditions"]) == 1


@pytest.mark.parametrize(
    "event",
    [
        {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}},
        {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd"}},
        {"type": "ERROR"},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "999"}}},
        {"type": "ADDED", "object": {"metadata": {"name": "odd"}}},
        {"type": "DELETED", "object": {}},
        {"type": "RAW", "bytes": b"20\r\nnot a chunk of the right length\r\n"},
        {"type": "RAW", "bytes": b"5\r\n[1,2]\r\n"},
        None,
    ],
    ids=["expired", "error", "empty error", "bookmark", "odd", "deleted", "broken", "list", "end"],
)
def test_the_watch_goes_on_after(running: FakeApi, event: dict[str, Any] | None) -> None:
    running.start()
    assert running.watched.wait(10)
    running.tell(event)
    add(running, "mine", good())
    wait_for(lambda: running.conditions("mine") == ["Approved"])


def test_the_log_cannot_be_forged(api: FakeApi, approver: Any, capfd: Any) -> None:
    request = csr(
        client_request("worker-0").pem, CLIENT, {"username": 'evil\napproved csr="x"', "groups": ["\x1b[2J"]}
    )
    add(api, "evil", request)
    approver.handle(api.collection(CSRS)["evil"])
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("denied ")
    assert "\x1b" not in lines[0]


def test_a_server_of_another_authority_is_not_believed(api: FakeApi, tmp_path: Path) -> None:
    with serve() as other:
        api.ca = other.ca
        config = kube_api.read_kubeconfig(str(api.write_kubeconfig(tmp_path / "kubeconfig")))
        with pytest.raises(kube_api.ssl.SSLError):
            kube_api.ApiClient(config).request("GET", CSRS)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "a: b", "clusters: 7", "\0", "!!python/object/apply:os.system [x]"]
)
def test_a_damaged_kubeconfig_is_an_error_of_value(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ValueError):
        kube_api.read_kubeconfig(str(path))


def test_a_wrong_policy_file_ends_the_program(tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "policy").write_text("allow everything\n")
    arguments = ["--kubeconfig", "/nowhere", "--policy", str(tmp_path / "policy")]
    assert approver_program.main(arguments) == 1
    assert "line 1" in capfd.readouterr().err


def test_dns_names_are_checked_end_to_end(api: FakeApi, approver: Any) -> None:
    add(api, "evil", csr(serving_request("worker-1", dns("kubernetes")).pem, SERVING, kubelet("worker-1")))
    approver.handle(api.collection(CSRS)["evil"])
    assert api.conditions("evil") == ["Denied"]
