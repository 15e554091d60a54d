"""The first-boot program: waits by condition, retries, keeps an add-on's later changes, shows no secret."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud_init.fake_api import KUBE_SYSTEM, FakeApi, serve
from tests.cloud_init.programs import load_program

program = load_program("first-boot")
pytestmark = pytest.mark.process

#: Notes how it was called, then does what the file ``fail`` beside it says.
_KUBECTL = """\
#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$*" >>"$here/calls"
env >>"$here/environment"
if [ -s "$here/fail" ]; then
    sed -i 1d "$here/fail"
    echo "error: the server is busy" >&2
    exit 1
fi
"""


class Machine:
    """A master's folders, and a kubectl that writes down what it is asked."""

    def __init__(self, folder: Path, api: FakeApi) -> None:
        self.folder = folder
        self.api = api
        self.kubectl = folder / "kubectl"
        self.kubectl.write_text(_KUBECTL)
        self.kubectl.chmod(0o755)
        for name in ("first-boot", "addons"):
            (folder / name).mkdir()
        (folder / "first-boot" / "10-bootstrap.yaml").write_text("{}\n")
        (folder / "addons" / "20-coredns.yaml").write_text("{a: 1}\n")
        (folder / "addons" / "10-flannel.yaml").write_text("{b: 1}\n")
        (folder / "tokens").write_text("worker-0 abcdef.canary0123456789\n")
        api.write_kubeconfig(folder / "kubeconfig")

    def run(self, *more: str) -> int:
        code: int = program.main(
            [
                f"--kubeconfig={self.folder / 'kubeconfig'}",
                f"--kubectl={self.kubectl}",
                f"--manifests={self.folder / 'first-boot'}",
                f"--addons={self.folder / 'addons'}",
                f"--tokens={self.folder / 'tokens'}",
                f"--cache={self.folder / 'cache'}",
                "--token-lifetime=86400",
                *more,
            ]
        )
        return code

    def calls(self) -> list[str]:
        """What was applied since the last question, by name."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [os.path.basename(line.rpartition("=")[2]) for line in lines]


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
    assert machine.calls() == ["first-boot", "10-flannel.yaml", "20-coredns.yaml"]
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
    assert machine.calls() == []


def test_it_gives_up_when_nobody_listens(machine: Machine) -> None:
    machine.api.port = 1
    machine.api.write_kubeconfig(machine.folder / "kubeconfig")
    assert machine.run("--deadline=0") == 1


def test_a_busy_server_is_asked_again(machine: Machine) -> None:
    (machine.folder / "fail").write_text("1\n2\n3\n")
    assert machine.run() == 0
    assert machine.calls() == ["first-boot"] * 4 + ["10-flannel.yaml", "20-coredns.yaml"]


@pytest.mark.parametrize("fault", [409, 429, 500, 503, "drop", "garbage"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_faults_of_the_server_pass(machine: Machine, method: str, fault: int | str) -> None:
    machine.api.faults += [(method, KUBE_SYSTEM, fault)] * 2
    assert machine.run() == 0
    assert list(machine.api.collection(f"{KUBE_SYSTEM}/secrets")) == ["bootstrap-token-abcdef"]


def test_a_second_boot_applies_the_bindings_and_leaves_the_addons(machine: Machine) -> None:
    machine.run()
    machine.calls()
    assert machine.run() == 0
    assert machine.calls() == ["first-boot"]


def test_a_changed_addon_is_applied_once_and_an_old_master_does_not_bring_the_old_one_back(
    machine: Machine,
) -> None:
    machine.run()
    machine.calls()
    path = machine.folder / "addons" / "20-coredns.yaml"
    old = path.read_text()
    path.write_text("{a: 2}\n")
    machine.run()
    assert machine.calls() == ["first-boot", "20-coredns.yaml"]
    path.write_text(old)
    machine.run()
    assert machine.calls() == ["first-boot"]


def test_no_secret_is_in_a_command_line_an_environment_or_the_log(machine: Machine, capfd: Any) -> None:
    (machine.folder / "fail").write_text("1\n")
    machine.run()
    out, err = capfd.readouterr()
    seen = (machine.folder / "calls").read_text() + (machine.folder / "environment").read_text() + out + err
    assert "canary" not in seen
    key = machine.api.client.key.splitlines()[1]
    assert key not in seen


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


def test_a_missing_kubectl_is_said(machine: Machine, capfd: Any) -> None:
    machine.kubectl.unlink()
    assert machine.run("--deadline=0") == 1
    assert "kubectl" in capfd.readouterr().err


def test_the_log_is_lines_of_words_and_json(machine: Machine, capfd: Any) -> None:
    machine.run()
    for line in capfd.readouterr().err.splitlines():
        for word in line.split(" ")[1:]:
            json.loads(word.partition("=")[2])
