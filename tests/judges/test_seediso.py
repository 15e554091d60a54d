"""Foreign readers of seed ISOs: xorriso, isoinfo, blkid, and cloud-init's own search for a seed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imagegen.backends.epoch import DEFAULT_EPOCH
from imagegen.backends.seediso import build_seed_iso
from tests.judges.tools import Tool

pytestmark = pytest.mark.judge

FILES = {
    "user-data": b"#cloud-config\n" + bytes(range(256)) * 300,
    "meta-data": b"instance-id: iid-worker-0-0123456789ab\n",
    "network-config": b"version: 2\n",
}


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that was spliced from a layout, not the first one of its sizes."""
    build_seed_iso({name: bytes(len(body)) for name, body in FILES.items()}, epoch=DEFAULT_EPOCH)
    path = tmp_path_factory.mktemp("iso") / "seed.iso"
    path.write_bytes(build_seed_iso(FILES, epoch=DEFAULT_EPOCH))
    return path


def test_blkid_sees_the_label(blkid: Tool, seed: Path) -> None:
    done = blkid.run("-p", "-o", "export", seed)
    facts = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert facts["LABEL"] == "cidata"
    assert facts["TYPE"] == "iso9660"
    assert facts["VERSION"].replace("\\", "") == "Joliet Extension"
    assert facts["UUID"] == "2026-01-01-00-00-00-00"


def test_xorriso_reads_every_byte_back(xorriso: Tool, seed: Path, tmp_path: Path) -> None:
    done = xorriso.run("-indev", seed, "-osirrox", "on", "-extract", "/", tmp_path / "tree")
    assert done.returncode == 0, done.stderr
    assert {p.name: p.read_bytes() for p in (tmp_path / "tree").iterdir()} == FILES


def test_xorriso_sees_modes_owners_and_dates(xorriso: Tool, seed: Path) -> None:
    done = xorriso.run("-indev", seed, "-find", "/", "-exec", "lsdl")
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("-", "d"))]
    assert {(row[0], *row[2:4]) for row in rows if row[0].startswith("-")} == {("-r--------", "0", "0")}
    assert {tuple(row[5:8]) for row in rows} == {("Jan", "1", "2026")}
    assert len(rows) == 4
    assert "WARNING" not in done.stderr
    assert "FAILURE" not in done.stderr


@pytest.mark.parametrize(("flag", "modes"), [("-R", True), ("-J", False)])
def test_isoinfo_reads_rock_ridge_and_joliet(isoinfo: Tool, seed: Path, flag: str, modes: bool) -> None:
    listing = isoinfo.run("-l", flag, "-i", seed).stdout
    for name, body in FILES.items():
        (row,) = [line for line in listing.splitlines() if line.rstrip().endswith(name)]
        assert row.startswith("-r--------") is modes
        done = subprocess.run(
            [*isoinfo.argv, flag, "-i", seed, "-x", f"/{name}"],
            env=isoinfo.environment(),
            capture_output=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == body


@pytest.mark.parametrize("suite", ["bookworm", "sid"])
def test_ds_identify_picks_the_seed(
    suite: str, request: pytest.FixtureRequest, blkid: Tool, seed: Path, tmp_path: Path
) -> None:
    """The generator that enables cloud-init at boot, in a root of its own, with the real blkid's opinion."""
    cloud_init: Tool = request.getfixturevalue(f"cloud_init_{suite}")
    assert cloud_init.root is not None
    for folder in ("bin", "run", "etc/cloud/cloud.cfg.d", "proc/1", "sys/class/dmi/id", "var/lib/cloud"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/cmdline").write_text("quiet\n")
    sources = "datasource_list: [Azure, GCE, VMware, OVF, ConfigDrive, NoCloud, None]\n"
    (tmp_path / "etc/cloud/cloud.cfg.d/90.cfg").write_text(sources)
    for name, command in (
        ("blkid", f"exec {blkid.argv[0]} -p -o export {seed}"),
        ("systemd-detect-virt", "echo kvm"),
    ):
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{command}\n")
        program.chmod(0o755)
    done = subprocess.run(
        ["sh", cloud_init.root / "usr/lib/cloud-init/ds-identify", "--force"],
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PATH_ROOT": str(tmp_path), "DI_LOG": "stderr"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/cloud-init/cloud.cfg").read_text() == "datasource_list: [ NoCloud, None ]\n"
