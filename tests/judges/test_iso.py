"""Bootable ISOs as xorriso and isoinfo read them: how they start, what is in them, who may read it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from imagegen.backends.image import bootloader, iso
from imagegen.run import Runner
from tests.judges.tools import Tool

EPOCH = 1_767_225_600
SEED = {
    "user-data": b"#cloud-config\n# a key\n",
    "meta-data": b"instance-id: iid-one-0123456789ab\nlocal-hostname: one\n",
    "network-config": b"version: 2\n",
}

pytestmark = [pytest.mark.judge, pytest.mark.process]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a role layer of made-up content, and ISOs of it without and with a seed."""
    for tool in (*iso.TOOLS[:1], *bootloader.TOOLS):
        if shutil.which(tool.name) is None:
            pytest.skip(f"{tool.name} is not installed (Debian package {tool.package})")
    bootloader.check_grub_modules()
    work = tmp_path_factory.mktemp("iso")
    role = work / "role"
    role.mkdir()
    for name in ("root.squashfs", "vmlinuz", "initrd.img"):
        (role / name).write_bytes(name.encode() * 5000)
    for name, image_id, seed in (("plain", "id-p", None), ("node", "id-n", SEED), ("again", "id-n", SEED)):
        scratch = work / f"{name}.work"
        scratch.mkdir()
        iso.build_iso(Runner(), role, image_id, work / f"{name}.iso", scratch, epoch=EPOCH, seed=seed)
    return work


def _list(image: Path) -> dict[str, str]:
    """Mode and owner by path, as Rock Ridge has them."""
    argv = ["xorriso", "-indev", str(image), "-find", "/", "-exec", "lsdl", "--"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    rows = re.findall(r"(?m)^(\S{10})\s+\d+\s+(\S+)\s+(\S+)\s+.*'(/.*)'$", done.stdout)
    return {path: f"{mode} {user}:{group}" for mode, user, group, path in rows}


@pytest.mark.parametrize("name", ["plain", "node"])
def test_it_starts_under_both_kinds_of_firmware_from_a_disc_and_from_a_stick(folder: Path, name: str) -> None:
    argv = [
        "xorriso",
        "-indev",
        str(folder / f"{name}.iso"),
        "-report_el_torito",
        "plain",
        "-report_system_area",
    ]
    done = subprocess.run([*argv, "plain"], capture_output=True, text=True, check=True)
    images = re.findall(r"El Torito boot img :\s+\d+\s+(BIOS|UEFI)\s+y\s", done.stdout)
    assert images == ["BIOS", "UEFI"]
    assert "grub2-mbr" in done.stdout, done.stdout
    assert re.search(r"MBR partition\s*:\s+2\s+0x\S+\s+0xef", done.stdout), done.stdout


def test_only_root_reads_the_seed(folder: Path) -> None:
    files = _list(folder / "node.iso")
    assert files["/seed"] == "drwx------ 0:0"
    assert {files[f"/seed/{name}"] for name in SEED} == {"-r-------- 0:0"}
    assert files["/live"] == "drwxr-xr-x 0:0"
    assert not [path for path in _list(folder / "plain.iso") if path.startswith("/seed")]


def test_isoinfo_finds_the_same_files_and_the_label(folder: Path) -> None:
    if shutil.which("isoinfo") is None:
        pytest.skip("isoinfo is not installed (Debian package genisoimage)")
    tool = Tool(name="isoinfo", argv=("isoinfo",))
    listing = tool.run("-R", "-f", "-i", folder / "node.iso").stdout.split()
    wanted = {f"/seed/{name}" for name in SEED} | {
        "/live/filesystem.squashfs",
        "/live/vmlinuz",
        "/live/initrd.img",
    }
    assert wanted <= set(listing)
    assert f"Volume id: {iso.make_label('id-n')}" in tool.run("-d", "-i", folder / "node.iso").stdout
    body = tool.run("-R", "-x", "/seed/meta-data", "-i", folder / "node.iso").stdout
    assert body.encode() == SEED["meta-data"]


def test_the_kernels_arguments_name_the_node_before_any_disk_can(folder: Path) -> None:
    tool = Tool(name="xorriso", argv=("xorriso", "-osirrox", "on"))
    configs = {}
    for name in ("plain", "node"):
        target = folder / f"{name}.cfg"
        done = tool.run("-indev", folder / f"{name}.iso", "-extract", "/boot/grub/grub.cfg", target)
        assert done.returncode == 0, done.stderr
        configs[name] = target.read_text()
    assert "ds=nocloud" not in configs["plain"]
    assert "'ds=nocloud;i=iid-one-0123456789ab;h=one;s=file:///run/live/medium/seed/'" in configs["node"]


def test_the_same_input_gives_the_same_bytes(folder: Path) -> None:
    assert (folder / "node.iso").read_bytes() == (folder / "again.iso").read_bytes()
    assert (folder / "node.iso").read_bytes() != (folder / "plain.iso").read_bytes()
