"""What makes a boot dear stays out of golden images: Python to compile, things to make again, idle units."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from imagegen.run import Runner
from imagegen.verify.roots import unpack_root

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="the base system is made as root here"),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed"),
]

CLUSTER = """\
version: 1
name: cost
kubernetes: {version: 1.36.4}
network: {nodes: 10.0.2.0/24}
image: {size: 4GiB, formats: [raw]}
targets: [qemu]
nodes:
  - {name: bare, roles: [base], address: 10.0.2.15}
"""
#: GRUB reads every byte through the firmware; with the drivers of all hardware it was 17 MB
INITRD_LIMIT = 9_000_000
#: wanted by some target of a plain boot; whoever adds one says here that it is worth its time
ENABLED = {
    "chrony.service", "cloud-config.service", "cloud-final.service", "cloud-init-local.service",
    "cloud-init-main.service", "cloud-init-network.service", "dpkg-db-backup.timer", "fstrim.timer",
    "getty@tty1.service", "imagegen-firewall.service", "imagegen-settle-check.service",
    "imagegen-settle.service", "imagegen-time-sync.service", "logrotate.timer", "remote-fs.target",
    "ssh.service", "sshd-keygen.service", "systemd-networkd-wait-online.service", "systemd-networkd.service",
    "systemd-networkd.socket", "systemd-network-generator.service",
    "systemd-networkd-persistent-storage.service",
    "systemd-pstore.service", "systemd-resolved.service", "systemd-tpm2-clear.service",
}  # fmt: skip


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    (folder / "cluster.yaml").write_text(CLUSTER)
    argv = [sys.executable, "-m", "imagegen", "build", str(folder / "cluster.yaml"), "--quiet"]
    argv += ["-o", str(folder / "out")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "work").mkdir()
    return unpack_root(Runner(), folder / "out/images/cost-base.raw", folder / "work")


def test_python_compiles_nothing_at_boot(root: Path) -> None:
    """Every module that cloud-init can import has bytecode that the interpreter takes (PEP 552)."""
    wrong, seen = [], 0
    folders = [root / "usr/lib/python3/dist-packages", *root.glob("usr/lib/python3.*")]
    for source in (path for folder in folders for path in folder.rglob("*.py")):
        if source.is_symlink() or "lib2to3" in source.parts:
            continue
        compiled = list((source.parent / "__pycache__").glob(f"{source.stem}.cpython-*[0-9].pyc"))
        seen += 1
        if not compiled or not _is_valid(source, compiled[0]):
            wrong.append(str(source.relative_to(root)))
    assert seen > 500
    assert wrong == []


def _is_valid(source: Path, compiled: Path) -> bool:
    _, flags, seconds, size = struct.unpack("<4sIII", compiled.read_bytes()[:16])
    status = source.stat()
    return bool(flags) or (seconds, size) == (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)


def test_nothing_looks_updated(root: Path) -> None:
    """systemd.unit(5), ConditionNeedsUpdate=: otherwise five services make again what the packages made."""
    for marker in ("etc/.updated", "var/.updated"):
        (line,) = (root / marker).read_text().splitlines()
        assert int(line.removeprefix("TIMESTAMP_NSEC=")) >= (root / "usr").stat().st_mtime_ns
        assert (root / marker).stat().st_mtime >= (root / "usr").stat().st_mtime
    assert (root / "etc/ld.so.cache").stat().st_size > 1000
    assert (root / "var/lib/systemd/catalog/database").stat().st_size > 1000


def test_the_initial_ram_disk_is_small(root: Path) -> None:
    (initrd,) = (root / "boot").glob("initrd.img-*-cloud-*")
    assert initrd.stat().st_size < INITRD_LIMIT


def test_only_what_a_node_needs_starts(root: Path) -> None:
    units = root / "etc/systemd/system"
    masked = {link.name for link in units.iterdir() if link.is_symlink() and os.readlink(link) == "/dev/null"}
    assert masked >= {"e2scrub_all.timer", "systemd-binfmt.service", "cloud-init-hotplugd.socket"}
    wanted = {link.name for link in units.glob("*.wants/*") if link.is_symlink()}
    assert wanted - masked - ENABLED == set()
    assert not (root / "usr/sbin/netplan").exists()
