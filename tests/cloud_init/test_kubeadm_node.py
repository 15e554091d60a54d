"""The program around kubeadm: once to the end, again after every failure, never twice."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "cloud-init" / "kubeadm-node"
pytestmark = pytest.mark.process

INIT = "apiVersion: v1\nkind: InitConfiguration\n"
JOIN = "kind: JoinConfiguration\n"
MASTER = f"{JOIN}controlPlane:\n  localAPIEndpoint: {{}}\n"


class Machine:
    """A machine's folders, with a kubeadm and a systemctl that write down how they are called."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.kubernetes = folder / "etc/kubernetes"
        self.kubernetes.mkdir(parents=True)
        (folder / "var/lib/kubelet").mkdir(parents=True)
        (folder / "bin").mkdir()
        self.config = self.kubernetes / "kubeadm.yaml"
        self.config.write_text(config)
        for name in ("kubeadm", "systemctl"):
            program = folder / "bin" / name
            program.write_text(
                f'#!/bin/sh\n[ "$2" = --help ] && {{ cat {folder}/help; exit 0; }}\n'
                f'echo "{name} $*" >>{folder}/calls\nexit $(cat {folder}/code)\n'
            )
            program.chmod(0o755)

        (folder / "help").write_text("--config\n--skip-phases\n")

    def run(self, code: int = 0) -> int:
        (self.folder / "code").write_text(str(code))
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "KUBEADM_NODE_ROOT": str(self.folder),
        }
        argv = ["/bin/sh", str(PROGRAM), str(self.config)]
        return subprocess.run(argv, env=environment, capture_output=True, check=False).returncode

    @property
    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []


def test_the_first_master_is_initialised_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path, INIT)
    assert machine.run() == 0
    assert machine.run() == 0
    (call,) = machine.calls
    assert call.startswith(f"kubeadm init --config {machine.config} --ignore-preflight-errors NumCPU,")


def test_a_failure_is_tried_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path, INIT)
    assert machine.run(code=1) != 0
    assert machine.run() == 0
    assert len(machine.calls) == 2


def test_files_without_text_are_left_by_a_power_cut(tmp_path: Path) -> None:
    machine = Machine(tmp_path, INIT)
    (machine.kubernetes / "admin.conf").touch()
    (machine.kubernetes / "manifests").mkdir()
    (machine.kubernetes / "manifests/kube-apiserver.yaml").touch()
    (machine.kubernetes / "scheduler.conf").write_text("kind: Config\n")
    assert machine.run() == 0
    left = {path.name for path in machine.kubernetes.rglob("*") if path.is_file()}
    assert left == {"kubeadm.yaml", "scheduler.conf"}


@pytest.mark.parametrize("config", [JOIN, MASTER])
def test_a_node_joins(tmp_path: Path, config: str) -> None:
    machine = Machine(tmp_path, config)
    assert machine.run() == 0
    (call,) = machine.calls
    assert call.startswith("kubeadm join --config ")
    assert "FileAvailable--etc-kubernetes-pki-ca.crt" in call


def test_a_join_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """The kubelet has its certificate: kubeadm would refuse a node of that name."""
    machine = Machine(tmp_path, MASTER)
    (machine.kubernetes / "kubelet.conf").write_text("kind: Config\n")
    assert machine.run() == 0
    assert machine.calls == [f"kubeadm join --config {machine.config} --skip-phases preflight,kubelet-start"]


def test_the_oldest_kubeadm_has_no_phases_to_skip(tmp_path: Path) -> None:
    machine = Machine(tmp_path, MASTER)
    (machine.folder / "help").write_text("--config\n")
    (machine.kubernetes / "kubelet.conf").write_text("kind: Config\n")
    assert machine.run() == 0
    (call,) = machine.calls
    assert call.startswith(f"kubeadm join --config {machine.config} --ignore-preflight-errors ")


def test_a_worker_that_has_its_certificate_is_done(tmp_path: Path) -> None:
    machine = Machine(tmp_path, JOIN)
    (machine.kubernetes / "kubelet.conf").write_text("kind: Config\n")
    assert machine.run() == 0
    assert machine.calls == ["systemctl start kubelet.service"]
