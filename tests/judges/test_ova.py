"""OVAs read by others: imported into a simulated vCenter by VMware's library, their disks by open-vmdk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from imagegen.backends.image.formats import convert, ova
from imagegen.run import Runner
from tests.judges.tools import CACHE, Tool, Unavailable, unpack_package

EPOCH = 1_767_225_600
MIB = 1 << 20
HARDWARE = ova.Hardware(
    name="quickstart-master",
    description="a & b <c>",
    cpus=4,
    memory_mib=6144,
    disk_bytes=1024 * MIB,
    uefi=True,
)

pytestmark = [pytest.mark.judge, pytest.mark.process]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ova") / "disk.raw"
    with open(path, "wb") as handle:
        handle.truncate(HARDWARE.disk_bytes)
        handle.write(os.urandom(3 * MIB))
        handle.seek(700 * MIB)
        handle.write(b"the end" * 9999)
    return path


@pytest.fixture(scope="module")
def archive(raw: Path) -> Path:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed (Debian package qemu-utils)")
    disk, target = raw.parent / ova.disk_name(HARDWARE), raw.parent / "appliance.ova"
    options = "adapter_type=lsilogic,subformat=streamOptimized"
    convert.convert_disk(Runner(), raw, disk, "vmdk", options=options)
    convert.fix_vmdk(disk, "image")
    ova.write_ova(HARDWARE, disk, target, epoch=EPOCH)
    disk.unlink()
    return target


def _find_vcenter() -> Tool:
    """VMware's Go library with its simulator, or a skip that says how to have it."""
    program = CACHE / "ovajudge" / "ovajudge"
    source = Path(__file__).parent / "ovajudge"
    if not program.exists() or program.stat().st_mtime < (source / "main.go").stat().st_mtime:
        if shutil.which("go") is None:
            pytest.skip(f"no {program}, and no go to build it with: tests/judges/ovajudge/build.sh")
        done = subprocess.run([source / "build.sh", program], capture_output=True, text=True, timeout=1800)
        if done.returncode != 0:
            pytest.skip(f"tests/judges/ovajudge/build.sh: {(done.stderr or done.stdout).strip()[-200:]}")
    return Tool(name="ovajudge", argv=(str(program),))


def test_vcenter_imports_it_as_the_machine_that_was_meant(archive: Path) -> None:
    done = _find_vcenter().run(archive)
    assert done.returncode == 0, done.stderr
    machine: dict[str, Any] = json.loads(done.stdout)
    assert (machine["cpus"], machine["memory_mib"]) == (4, 6144)
    assert machine["disk_bytes"] == [HARDWARE.disk_bytes]
    assert (machine["name"], machine["version"], machine["guest"]) == (
        "quickstart-master",
        "vmx-13",
        "debian10_64Guest",
    )
    for device in ("VirtualLsiLogicController", "VirtualDisk", "VirtualCdrom", "VirtualE1000"):
        assert machine["devices"].count(device) == 1, machine["devices"]
    assert machine["networks"] == ["nodes"]
    assert machine["properties"] == [key for key, _, _ in ova.PROPERTIES]
    assert not [line for line in machine["log"] if "arning" in line]


def test_vcenter_refuses_it_when_a_byte_of_the_disk_is_another(archive: Path, tmp_path: Path) -> None:
    """The judge is awake: it compares the manifest's sums."""
    body = bytearray(archive.read_bytes())
    body[-3 * MIB // 2] ^= 1
    (tmp_path / "bad.ova").write_bytes(body)
    done = _find_vcenter().run(tmp_path / "bad.ova")
    assert done.returncode == 1
    assert "the manifest says SHA256" in done.stderr


def test_the_firmware_is_said_as_vmware_says_it(archive: Path) -> None:
    with tarfile.open(archive) as members:
        first = members.next()
        assert first is not None
        body = members.extractfile(first)
        assert body is not None
        root = ET.fromstring(body.read())
    vmw = f"{{{ova.VMW}}}"
    (config,) = root.iter(f"{vmw}Config")
    assert (config.get(f"{vmw}key"), config.get(f"{vmw}value")) == ("firmware", "efi")


def _find_vmdk_convert() -> Tool:
    """open-vmdk's program, with the C library that it was linked with."""
    try:
        package = unpack_package("sid", "open-vmdk")
        libraries = [unpack_package("sid", name) for name in ("libc6", "zlib1g")]
    except Unavailable as error:
        pytest.skip(str(error))
    folders = ":".join(str(one / "usr/lib/x86_64-linux-gnu") for one in libraries)
    loader = next(iter(libraries[0].glob("usr/lib*/**/ld-linux-x86-64.so.2")))
    return Tool(
        name="vmdk-convert",
        argv=(str(loader), "--library-path", folders, str(package / "usr/bin/vmdk-convert")),
    )


def test_open_vmdk_reads_the_disk_back(archive: Path, raw: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as members:
        names = members.getnames()
        (disk,) = (one for one in members if one.name.endswith(".vmdk"))
        disk.name = "disk.vmdk"
        members.extraction_filter = lambda member, path: member
        members.extract(disk, tmp_path)
    assert [Path(name).suffix for name in names] == [".ovf", ".mf", ".vmdk"]
    tool = _find_vmdk_convert()
    told = tool.run("-i", tmp_path / "disk.vmdk")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["capacity"] == HARDWARE.disk_bytes
    # written again by open-vmdk, it is still the same disk
    done = tool.run(tmp_path / "disk.vmdk", tmp_path / "again.vmdk")
    assert done.returncode == 0, done.stderr
    same = ["qemu-img", "compare", "-f", "vmdk", "-F", "raw", str(tmp_path / "again.vmdk"), str(raw)]
    compare = subprocess.run(same, capture_output=True, text=True)
    assert compare.returncode == 0, compare.stdout + compare.stderr
