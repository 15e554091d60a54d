"""The first-boot program: waits by condition, retries, keeps an add-on's later changes, shows no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud_init.fake_api import KUBE_SYSTEM, FakeApi, serve
from tests.cloud_init.programs import load_program

program = load_program("first-boot")
pytestmark = pytest.mark.process

_BINDING = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: bindings}
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Namespace, metadata: {name: kube-flannel}}
"""
_ADDON = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: %s, namespace: kube-system}}\n"
_DEPLOYMENTS = "/apis/apps/v1/namespaces/kube-system/deployments"


class Machine:
    """A master's folders."""

    def __init__(self, folder: Path, api: FakeApi) -> None:
        self.folder = folder
        self.api = api
        for name in ("first-boot", "addons"):
            (folder / name).mkdir()
        (folder / "first-boot" / "10-bootstrap.yaml").write_text(_BINDING)
        (folder / "addons" / "20-coredns.yaml").write_text(_ADDON % "coredns")
        (folder / "addons" / "10-flannel.yaml").write_text(_ADDON % "flannel")
        (folder / "tokens").write_text("worker-0 abcdef.canary0123456789\n")
        api.write_kubeconfig(folder / "kubeconfig")

    def run(self, *more: str) -> int:
        code: int = program.main(
            [
                f"--kubeconfig={self.folder / 'kubeconfig'}",
                f"--manifests={self.folder / 'first-boot'}",
                f"--addons={self.folder / 'addons'}",
                f"--tokens={self.folder / 'tokens'}",
                "--token-lifetime=86400",
                *more,
            ]
        )
        return code

    def applied(self) -> list[str]:
        """What was applied since the last question, by name."""
        names = [path.rpartition("/")[2] for path, _ in self.api.applied]
        self.api.applied.clear()
        return names


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serve() as server:
        yield server


@pytest.fixture
def machine(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(program.Backoff, "pause", lambda self: None)
    monkeypatch.setattr(program, "READY_PAUSE_SECONDS", 0.01)
    return Machine(tmp_path, api)


def test_everything_is_applied_in_order(machine: Machine) -> None:
    assert machine.run() == 0
    assert [path for path, _ in machine.api.applied] == [
        "/api/v1/namespaces/default/configmaps/bindings",
        "/api/v1/namespaces/kube-flannel",
        f"{_DEPLOYMENTS}/flannel",
        f"{_DEPLOYMENTS}/coredns",
    ]
    assert machine.api.apply_query == {
        "fieldManager": "imagegen",
        "force": "true",
        "fieldValidation": "Strict",
    }
    assert list(machine.api.collection(f"{KUBE_SYSTEM}/secrets")) == ["bootstrap-token-abcdef"]


def test_it_waits_until_the_api_server_is_ready(machine: Machine) -> None:
    answers = iter([False] * 20)
    machine.api.ready = lambda: next(answers, True)
    assert machine.run() == 0
    assert machine.api.requests[:21] == [("GET", "/readyz")] * 21


def test_it_gives_up_at_its_deadline_for_systemd_to_start_it_again(machine: Machine, capfd: Any) -> None:
    machine.api.ready = lambda: False
    assert machine.run("--deadline=0") == 1
    assert "not ready" in capfd.readouterr().err
    assert machine.applied() == []


def test_it_gives_up_when_nobody_listens(machine: Machine) -> None:
    machine.api.port = 1
    machine.api.write_kubeconfig(machine.folder / "kubeconfig")
    assert machine.run("--deadline=0") == 1


def test_a_busy_server_is_asked_again(machine: Machine) -> None:
    machine.api.faults += [("PATCH", "/api/v1/namespaces/kube-flannel", 500)] * 3
    assert machine.run() == 0
    assert machine.applied() == ["bindings"] * 4 + ["kube-flannel", "flannel", "coredns"]


@pytest.mark.parametrize("fault", [409, 429, 500, 503, "drop", "garbage"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", KUBE_SYSTEM),
        ("POST", KUBE_SYSTEM),
        ("PUT", KUBE_SYSTEM),
        ("GET", "/apis/apps/v1"),
        ("PATCH", _DEPLOYMENTS),
    ],
)
def test_faults_of_the_server_pass(machine: Machine, method: str, path: str, fault: int | str) -> None:
    machine.api.faults += [(method, path, fault)] * 2
    assert machine.run() == 0
    assert list(machine.api.collection(f"{KUBE_SYSTEM}/secrets")) == ["bootstrap-token-abcdef"]


def test_a_second_boot_applies_the_bindings_and_leaves_the_addons(machine: Machine) -> None:
    machine.run()
    machine.applied()
    assert machine.run() == 0
    assert machine.applied() == ["bindings", "kube-flannel"]


def test_a_changed_addon_is_applied_once_and_an_old_master_does_not_bring_the_old_one_back(
    machine: Machine,
) -> None:
    machine.run()
    machine.applied()
    path = machine.folder / "addons" / "20-coredns.yaml"
    old = path.read_text()
    path.write_text(old + "# new\n")
    machine.run()
    assert machine.applied() == ["bindings", "kube-flannel", "coredns"]
    path.write_text(old)
    machine.run()
    assert machine.applied() == ["bindings", "kube-flannel"]


def test_no_secret_is_in_the_log(machine: Machine, capfd: Any) -> None:
    machine.api.faults += [("POST", KUBE_SYSTEM, 500), ("PATCH", _DEPLOYMENTS, 500)]
    machine.run()
    out, err = capfd.readouterr()
    assert "retrying" in err
    assert "canary" not in out + err
    assert machine.api.client.key.splitlines()[1] not in out + err


def test_a_master_without_tokens_is_fine(machine: Machine) -> None:
    (machine.folder / "tokens").unlink()
    assert machine.run() == 0
    assert machine.api.collection(f"{KUBE_SYSTEM}/secrets") == {}


def test_a_wrong_token_file_fails_at_once(machine: Machine, capfd: Any) -> None:
    (machine.folder / "tokens").write_text("worker-0 canary\n")
    assert machine.run() == 1
    err = capfd.readouterr().err
    assert "line 1" in err
    assert "canary" not in err


def test_a_server_without_server_side_apply(machine: Machine) -> None:
    machine.api.patches = ("application/merge-patch+json",)
    assert machine.run() == 0
    assert machine.applied() == []
    assert "coredns" in machine.api.collection(_DEPLOYMENTS)
    (machine.folder / "addons" / "20-coredns.yaml").write_text(_ADDON % "coredns" + "# new\n")
    assert machine.run() == 0
    assert machine.applied() == ["bindings", "kube-flannel", "coredns"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (
            "{apiVersion: example.com/v1, kind: Thing, metadata: {name: x}}",
            "the API has no example.com/v1 Thing",
        ),
        ("{apiVersion: apps/v1, kind: Thing, metadata: {name: x}}", "the API has no apps/v1 Thing"),
        ("{kind: Deployment, metadata: {name: x}}", "without apiVersion, kind or name"),
        ("{apiVersion: apps/v1, kind: Deployment}", "without apiVersion, kind or name"),
        ("[", "20-coredns.yaml: while parsing"),
    ],
)
def test_a_manifest_that_cannot_be_applied_is_said(
    machine: Machine, capfd: Any, text: str, word: str
) -> None:
    (machine.folder / "addons" / "20-coredns.yaml").write_text(text)
    assert machine.run("--deadline=0") == 1
    assert word in json.loads(capfd.readouterr().err.splitlines()[-1].partition("reason=")[2])


def test_the_log_is_lines_of_words_and_json(machine: Machine, capfd: Any) -> None:
    machine.run()
    for line in capfd.readouterr().err.splitlines():
        for word in line.split(" ")[1:]:
            json.loads(word.partition("=")[2])


def test_the_master_is_labelled_once_it_has_joined(machine: Machine) -> None:
    """Its kubelet may not do it; until the kubelet has made the node, the step is tried again."""
    machine.api.faults = [("PATCH", "/api/v1/nodes/one", 404)] * 2
    key = "node-role.kubernetes.io/control-plane"
    assert machine.run("--node=one", f"--node-label={key}") == 0
    asked = [path for method, path in machine.api.requests if method == "PATCH" and "/nodes/" in path]
    assert asked == ["/api/v1/nodes/one"] * 3
    assert machine.api.applied[-1] == ("/api/v1/nodes/one", {"metadata": {"labels": {key: ""}}})


def test_tokens_get_the_groups_of_kubeadm_beside_their_own(machine: Machine) -> None:
    assert machine.run("--token-group=system:bootstrappers:kubeadm:default-node-token") == 0
    (secret,) = machine.api.collection(f"{KUBE_SYSTEM}/secrets").values()
    assert secret["data"]["auth-extra-groups"] == (
        "system:bootstrappers:imagegen:worker-0,system:bootstrappers:kubeadm:default-node-token"
    )
