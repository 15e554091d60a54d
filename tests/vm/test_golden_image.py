"""A golden image that the command line built starts under QEMU with the seed that it wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CLUSTER = """\
version: 1
name: vm
kubernetes: {version: 1.36.4}
network: {nodes: 10.0.2.0/24}
image: {size: 4GiB}
nodes:
  - {name: one, roles: [etcd, master, worker], address: 10.0.2.10}
  - {name: bare, roles: [base], address: 10.0.2.15}
"""
#: the last words of cloud-init, from our own final_message
FINISHED = "imagegen: cloud-init finished"
PANICS = ("Kernel panic", "emergency mode", "Cannot open root device", "error: no such device")
#: seconds; a base image needs 35 in emulation on two idle cores
PATIENCE = 420.0

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None or shutil.which("mmdebstrap") is None,
    reason="qemu-system-x86_64 or mmdebstrap is not installed",
)


def _imagegen(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imagegen", *arguments], capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vm")
    cluster = folder / "cluster.yaml"
    cluster.write_text(CLUSTER)
    _imagegen("seed", str(cluster), "-o", str(folder / "out"), "--quiet")
    _imagegen("build", str(cluster), "-o", str(folder / "out"), "--role", "base", "--quiet")
    return folder / "out"


def _boot(image: Path, seed: Path, serial: Path, firmware: list[str]) -> str:
    """Start the machine until cloud-init has finished, and return what it printed."""
    # emulation only: where KVM is there but broken, QEMU aborts instead of falling back
    argv = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi"]
    argv += ["-cpu", "max", "-smp", "2", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot"]
    argv += ["-serial", f"file:{serial}", "-device", "virtio-rng-pci", *firmware]
    argv += ["-drive", f"file={image},format=qcow2,if=virtio,snapshot=on"]
    argv += ["-drive", f"file={seed},format=raw,if=virtio,readonly=on"]
    argv += ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net"]
    machine = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            text = serial.read_text(errors="replace") if serial.exists() else ""
            tail = "\n".join(text.splitlines()[-40:])
            if FINISHED in text:
                return text
            assert not any(word in text for word in PANICS), tail
            assert machine.poll() is None, f"QEMU ended\n{tail}"
            assert time.monotonic() < deadline, f"no end of cloud-init\n{tail}"
            time.sleep(0.5)
    finally:
        machine.kill()
        machine.wait()


@needs_qemu
@pytest.mark.vm
@pytest.mark.skipif(os.geteuid() != 0, reason="the base system is made as root here")
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_image_boots_and_takes_its_seed(out: Path, tmp_path: Path, firmware: str) -> None:
    options: list[str] = []
    if firmware == "uefi":
        code, variables = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
        if not code.exists():
            pytest.skip("ovmf is not installed")
        shutil.copy(variables, tmp_path / "vars.fd")
        options = ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
        options += ["-drive", f"if=pflash,format=raw,file={tmp_path / 'vars.fd'}"]
    text = _boot(out / "images/vm-base.qcow2", out / "nodes/bare/seed.iso", tmp_path / "serial.log", options)
    assert "bare login:" in text or "Debian GNU/Linux 13 bare" in text, text[-3000:]
    assert "Failed to start" not in text
