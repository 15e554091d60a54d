"""From the raw disk to one file a platform takes: which steps each format needs."""

from __future__ import annotations

from pathlib import Path

from imagegen.backends.image.disk import copy_disk
from imagegen.backends.image.formats import convert, gce, ova
from imagegen.backends.image.imageplan import ImagePlan
from imagegen.model.cluster import DiskFormat, Firmware, Role
from imagegen.run import Runner

TOOLS = convert.TOOLS

_LSI = "adapter_type=lsilogic"
#: zstd: QEMU 5.1 and later; five times as fast as zlib here, and smaller. Clusters of twice the usual size
#: take a seventh less time and 2 % less room.
_QCOW2 = "compression_type=zstd,cluster_size=128k"
#: Processors and MiB of memory by role: kubeadm's minimum for a control plane with room to grow, etcd's
#: "small cluster" (etcd.io, Hardware recommendations), and little for what only forwards.
_NEEDS = {
    Role.BASE: (1, 1024),
    Role.ETCD: (2, 4096),
    Role.MASTER: (2, 4096),
    Role.WORKER: (2, 4096),
    Role.LB: (1, 1024),
}


def write_format(
    runner: Runner,
    disk_format: DiskFormat,
    raw: Path,
    target: Path,
    work: Path,
    image: ImagePlan,
    *,
    epoch: int,
) -> None:
    """Write ``target`` from the raw disk; ``work`` is a scratch folder on the same file system.

    Raises CommandError when a tool fails, ValueError for ``iso``, which is not made from the disk.
    """
    image_id = image.image_id
    match disk_format:
        case DiskFormat.RAW:
            copy_disk(runner, raw, target)
        case DiskFormat.QCOW2:
            convert.convert_disk(runner, raw, target, "qcow2", compress=True, options=_QCOW2)
        case DiskFormat.VMDK:
            # the descriptor inside names its own file, so it is made under its final name
            named = work / image.file_name(DiskFormat.VMDK)
            convert.convert_disk(runner, raw, named, "vmdk", options=f"{_LSI},subformat=monolithicSparse")
            convert.fix_vmdk(named, image_id)
            named.replace(target)
        case DiskFormat.VDI:
            convert.convert_disk(runner, raw, target, "vdi")
            convert.fix_vdi(target, image_id)
        case DiskFormat.VHD:
            convert.convert_disk(runner, raw, target, "vpc", options="subformat=dynamic,force_size=on")
            convert.fix_vhd(target, image_id, epoch)
        case DiskFormat.OVA:
            hardware = _describe_hardware(raw, image)
            stream = work / ova.disk_name(hardware)
            convert.convert_disk(runner, raw, stream, "vmdk", options=f"{_LSI},subformat=streamOptimized")
            convert.fix_vmdk(stream, image_id)
            ova.write_ova(hardware, stream, target, epoch=epoch)
        case DiskFormat.GCE:
            gce.write_gce_archive(runner, raw, target, work, epoch=epoch)
        case DiskFormat.ISO:
            raise ValueError("an ISO is made from the role's root, not from its disk")


def _describe_hardware(raw: Path, image: ImagePlan) -> ova.Hardware:
    wanted, needs = image.cluster.image, [_NEEDS[role] for role in image.role_plan.roles]
    return ova.Hardware(
        name=image.name.replace("+", "-"),
        description=f"Kubernetes {image.cluster.kubernetes.version}: {', '.join(image.role_plan.roles)}",
        cpus=wanted.cpus or max(cpus for cpus, _ in needs),
        memory_mib=wanted.memory_mib or sum(mib for _, mib in needs),
        disk_bytes=raw.stat().st_size,
        uefi=wanted.firmware == (Firmware.UEFI,),
    )
