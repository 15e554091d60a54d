"""What a person sees who asks why a master's API server does not start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "cloud-init" / "control-plane-logs"
pytestmark = pytest.mark.process


def run(pods: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "CONTROL_PLANE_LOGS_PODS": str(pods)}
    done = subprocess.run(
        ["/bin/sh", str(PROGRAM), *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout


def write_log(pods: Path, pod: str, daemon: str, name: str, text: str, age: int) -> None:
    folder = pods / f"kube-system_{pod}" / daemon
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    os.utime(folder / name, (1_700_000_000 - age,) * 2)


def test_the_newest_attempt_is_shown(tmp_path: Path) -> None:
    write_log(tmp_path, "kube-apiserver-one_aa", "kube-apiserver", "0.log", "old pod\n", 300)
    write_log(tmp_path, "kube-apiserver-one_bb", "kube-apiserver", "4.log", "first\nE no etcd\n", 10)
    write_log(tmp_path, "kube-apiserver-one_bb", "kube-apiserver", "3.log", "before\n", 60)
    shown = run(tmp_path, "1", "kube-apiserver")
    assert shown.splitlines() == [
        f"==> {tmp_path}/kube-system_kube-apiserver-one_bb/kube-apiserver/4.log",
        "E no etcd",
    ]


def test_a_daemon_that_was_never_started_is_said(tmp_path: Path) -> None:
    write_log(tmp_path, "kube-apiserver-one_aa", "kube-apiserver", "0.log", "up\n", 0)
    lines = run(tmp_path).splitlines()
    assert lines[1] == "up"
    assert [line.split()[1] for line in lines[2:]] == ["kube-controller-manager", "kube-scheduler"]
    assert all("journalctl -u kubelet" in line for line in lines[2:])
