"""The raw disk as the tools of its parts read it: partition tables, file systems, bootloader."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from imagegen.backends.image import bootloader, disk
from imagegen.backends.image.partitions import MIB, DiskLayout, plan_layout
from tests.backends.image.fakedisk import write_disk
from tests.judges.tools import Tool

EPOCH = 1_767_225_600

pytestmark = [pytest.mark.judge, pytest.mark.process]


@pytest.fixture(scope="module")
def layout() -> DiskLayout:
    return plan_layout("judged", 256)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, layout: DiskLayout) -> Path:
    """A small disk around a root file system with a few files."""
    for tool in (*disk.TOOLS, *bootloader.TOOLS):
        if shutil.which(tool.name) is None:
            pytest.skip(f"{tool.name} is not installed (Debian package {tool.package})")
    bootloader.check_grub_modules()
    folder = tmp_path_factory.mktemp("disk")
    (folder / "tree/etc").mkdir(parents=True)
    (folder / "tree/etc/fstab").write_text("# nothing\n")
    target = folder / "disk.raw"
    write_disk(folder / "tree", layout, target, epoch=EPOCH)
    return target


def _run(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_sgdisk_finds_no_fault_in_either_table(sgdisk: Tool, raw: Path) -> None:
    done = sgdisk.run("-v", raw)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout, done.stdout


def test_sfdisk_and_blkid_read_the_layout_that_was_planned(raw: Path, layout: DiskLayout) -> None:
    _run("sfdisk", "--verify", raw)
    table = json.loads(_run("sfdisk", "--json", raw))["partitiontable"]
    assert table["id"] == layout.disk_id
    assert [(part["start"], part["size"], part["name"]) for part in table["partitions"]] == [
        (part.start, part.size, part.name) for part in (layout.bios, layout.esp, layout.root)
    ]
    told = _run("blkid", "-p", "-O", str(layout.root.offset_bytes), "-o", "export", raw)
    assert f"UUID={layout.root_uuid}" in told
    assert "TYPE=ext4" in told


def test_e2fsck_and_fsck_fat_find_sound_file_systems(raw: Path, layout: DiskLayout, tmp_path: Path) -> None:
    _run("e2fsck", "-fn", f"{raw}?offset={layout.root.offset_bytes}")
    esp = tmp_path / "esp.fat"
    with open(raw, "rb") as handle:
        handle.seek(layout.esp.offset_bytes)
        esp.write_bytes(handle.read(layout.esp.size_bytes))
    assert esp.stat().st_size == 64 * MIB
    _run("fsck.fat", "-n", esp)
    assert "BOOTX64" in _run("mdir", "-i", esp, "::/EFI/BOOT")


def test_the_first_sector_is_grubs(raw: Path) -> None:
    with open(raw, "rb") as handle:
        sector = handle.read(512)
    assert b"GRUB" in sector
    assert sector[510:] == b"\x55\xaa"
