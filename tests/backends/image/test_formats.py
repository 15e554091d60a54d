"""Every disk format is read back by qemu-img or tar, and two runs give the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from imagegen.backends.image.disk import copy_sparse
from imagegen.backends.image.formats import convert, gce, ova
from imagegen.backends.image.partitions import MIB, SECTOR, derive_uuid, plan_layout
from imagegen.errors import ImagegenError
from imagegen.run import Runner

EPOCH = 1_767_225_600
_FORMATS = {
    "qcow2": ("qcow2", "compression_type=zstd"),
    "vmdk": ("vmdk", "adapter_type=lsilogic,subformat=monolithicSparse"),
    "stream": ("vmdk", "adapter_type=lsilogic,subformat=streamOptimized"),
    "vdi": ("vdi", ""),
    "vhd": ("vpc", "subformat=dynamic,force_size=on"),
}

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with open(path, "wb") as handle:
        handle.truncate(1024 * MIB)
        handle.write(b"boot" * 128)
        handle.seek(700 * MIB)
        handle.write(hashlib.sha256(b"x").digest() * 4096)
    return path


def _convert(raw: Path, target: Path, name: str, image_id: str) -> None:
    fmt, options = _FORMATS[name]
    convert.convert_disk(Runner(), raw, target, fmt, compress=fmt == "qcow2", options=options)
    if fmt == "vmdk":
        convert.fix_vmdk(target, image_id)
    elif fmt == "vdi":
        convert.fix_vdi(target, image_id)
    elif fmt == "vpc":
        convert.fix_vhd(target, image_id, EPOCH)


@needs_qemu_img
@pytest.mark.process
@pytest.mark.judge
@pytest.mark.parametrize("name", _FORMATS)
def test_qemu_img_reads_the_same_disk_and_bytes_repeat(raw: Path, tmp_path: Path, name: str) -> None:
    first, second = tmp_path / "a" / "disk", tmp_path / "b" / "disk"
    first.parent.mkdir()
    second.parent.mkdir()
    _convert(raw, first, name, "image")
    # the random content id of a VMDK is written without padding, so one pair of runs proves little
    for _ in range(6 if "vmdk" in _FORMATS[name] else 1):
        _convert(raw, second, name, "image")
        assert first.read_bytes() == second.read_bytes()
    fmt = _FORMATS[name][0]
    compare = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", fmt, str(raw), str(second)], capture_output=True, text=True
    )
    assert compare.returncode == 0, compare.stdout + compare.stderr
    if fmt in {"qcow2", "vmdk", "vdi"}:
        check = subprocess.run(["qemu-img", "check", "-f", fmt, str(second)], capture_output=True, text=True)
        assert check.returncode == 0, check.stdout + check.stderr


@needs_qemu_img
@pytest.mark.process
def test_two_images_never_share_an_identifier(raw: Path, tmp_path: Path) -> None:
    for image_id in ("one", "two"):
        _convert(raw, tmp_path / image_id, "vdi", image_id)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()


@needs_qemu_img
@pytest.mark.process
@pytest.mark.judge
def test_a_qcow2_does_not_depend_on_where_the_disk_has_holes(raw: Path, tmp_path: Path) -> None:
    """Zeros that are written and zeros that are a hole are the same; noise does not get smaller."""
    with open(raw, "r+b") as handle:
        handle.seek(127 * MIB)
        handle.write(random.Random(1).randbytes(2 * MIB))
    full = tmp_path / "full.raw"
    shutil.copyfile(raw, full)
    with open(full, "r+b") as handle:
        handle.seek(300 * MIB)
        handle.write(bytes(MIB))
    for source in (raw, full):
        _convert(source, source.with_suffix(".qcow2"), "qcow2", "image")
    image = full.with_suffix(".qcow2")
    assert image.read_bytes() == raw.with_suffix(".qcow2").read_bytes()
    for argv in (["check", "-f", "qcow2", str(image)], ["compare", "-f", "raw", str(raw), str(image)]):
        done = subprocess.run(["qemu-img", *argv], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    told = subprocess.run(["qemu-img", "info", "--output=json", str(image)], capture_output=True, text=True)
    assert json.loads(told.stdout)["virtual-size"] == raw.stat().st_size
    assert image.stat().st_size < 4 * MIB


@pytest.mark.process
def test_gce_archive_is_an_old_gnu_sparse_tar(raw: Path, tmp_path: Path) -> None:
    sums = set()
    (tmp_path / "work").mkdir()
    for number in range(2):
        target = tmp_path / f"{number}.tar.gz"
        os.utime(raw, (number, number))
        gce.write_gce_archive(Runner(), raw, target, tmp_path / "work", epoch=EPOCH)
        with open(raw, "r+b") as handle:
            handle.seek(300 * MIB)
            handle.write(bytes(MIB))
        sums.add(hashlib.sha256(target.read_bytes()).hexdigest())
    assert len(sums) == 1
    with tarfile.open(target) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.size, member.type) == (
            "disk.raw",
            raw.stat().st_size,
            tarfile.GNUTYPE_SPARSE,
        )
        stream = archive.extractfile(member)
        assert stream is not None
        assert hashlib.file_digest(stream, "sha256").digest() == hashlib.sha256(raw.read_bytes()).digest()
    listing = subprocess.run(["tar", "-tzf", str(target)], capture_output=True, text=True, check=True)
    assert listing.stdout == "disk.raw\n"


def test_gce_takes_whole_gib_only(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(MIB))
    with pytest.raises(ImagegenError, match="whole GiB"):
        gce.write_gce_archive(Runner(), disk, tmp_path / "x", tmp_path, epoch=EPOCH)


HARDWARE = ova.Hardware(
    name="quickstart-worker", description="a & b <c>", cpus=2, memory_mib=2048, disk_bytes=1 << 33, uefi=True
)


def test_ova_has_ovf_manifest_and_disk_in_this_order(tmp_path: Path) -> None:
    disk = tmp_path / "disk.vmdk"
    disk.write_bytes(b"KDMV" * 1000)
    ova.write_ova(HARDWARE, disk, tmp_path / "a.ova", epoch=EPOCH)
    ova.write_ova(HARDWARE, disk, tmp_path / "b.ova", epoch=EPOCH)
    assert (tmp_path / "a.ova").read_bytes() == (tmp_path / "b.ova").read_bytes()
    with tarfile.open(tmp_path / "a.ova") as archive:
        names = archive.getnames()
        assert names == ["quickstart-worker.ovf", "quickstart-worker.mf", "quickstart-worker-disk1.vmdk"]
        bodies = {name: archive.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    for line in bodies["quickstart-worker.mf"].decode().splitlines():
        head, _, digest = line.partition("= ")
        name = head.removeprefix("SHA256(").removesuffix(")")
        assert hashlib.sha256(bodies[name]).hexdigest() == digest


def test_ovf_describes_what_both_importers_take() -> None:
    root = ET.fromstring(ova.render_ovf(HARDWARE, "d.vmdk", 123))
    disk = root.find(f".//{{{ova.OVF}}}Disk")
    assert disk is not None
    assert disk.get(f"{{{ova.OVF}}}format") == ova.STREAM_OPTIMIZED
    assert disk.get(f"{{{ova.OVF}}}capacity") == str(1 << 33)
    rows = [
        {child.tag.partition("}")[2]: child.text for child in item}
        for item in root.iter(f"{{{ova.OVF}}}Item")
    ]
    assert [row["ResourceType"] for row in rows] == ["3", "4", "6", "5", "17", "15", "10"]
    assert {row.get("ResourceSubType") for row in rows} >= {"lsilogic", "E1000"}
    by_id = {row["InstanceID"]: row["ResourceType"] for row in rows}
    parents = {row["ResourceType"]: by_id[str(row["Parent"])] for row in rows if "Parent" in row}
    assert parents == {"17": "6", "15": "5"}, "the disk on SCSI, the CD drive on IDE"
    for item in root.iter(f"{{{ova.OVF}}}Item"):
        tags = [child.tag for child in item]
        assert tags == sorted(tags), "the schema wants alphabetical order"


def test_copy_sparse_keeps_holes_and_bytes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with open(source, "wb") as handle:
        handle.truncate(64 * MIB)
        handle.seek(10 * MIB + 3)
        handle.write(b"data")
    with open(target, "wb") as handle:
        handle.truncate(80 * MIB)
    copy_sparse(source, target, 5 * MIB)
    body = target.read_bytes()
    assert body[15 * MIB + 3 : 15 * MIB + 7] == b"data"
    assert body.count(0) == 80 * MIB - 4
    assert target.stat().st_blocks * 512 < 4 * MIB


def test_layout_is_aligned_and_fits() -> None:
    layout = plan_layout("image", 8192)
    parts = (layout.bios, layout.esp, layout.root)
    end = MIB // SECTOR
    for part in parts:
        assert part.start == end
        assert part.start % (MIB // SECTOR) == 0
        end = part.start + part.size
    assert end * SECTOR == layout.size_bytes - MIB
    assert len({part.part_id for part in parts} | {layout.disk_id, layout.root_uuid.upper()}) == 5
    assert plan_layout("other", 8192).root_uuid != layout.root_uuid
    assert derive_uuid("image", "root") == layout.root_uuid
    with pytest.raises(ValueError, match="no room"):
        plan_layout("image", 66)
