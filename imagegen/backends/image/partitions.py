"""The layout of a golden disk: GPT with a BIOS boot partition, an EFI system partition and one ext4 root.

Sizes are in sectors of 512 bytes unless a name says otherwise. Identifiers are derived from the image's own
id, so that the same input gives the same disk and two images never share one.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

SECTOR = 512
MIB = 1024 * 1024
_SECTORS_PER_MIB = MIB // SECTOR

# Partition types: UEFI specification 2.10 table 5.5, and the Discoverable Partitions Specification for root.
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
EFI_SYSTEM = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX_ROOT_X86_64 = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"

#: names every identifier is derived from; changing it changes every image
_NAMESPACE = uuid.UUID("5d5b7a52-6f7b-5d0c-9a35-3c1f0c0b8a10")

BIOS_BOOT_MIB = 1
ESP_MIB = 64
_FIRST_MIB = 1  # the first MiB holds the MBR, the GPT and alignment
_LAST_MIB = 1  # the backup GPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    name: str
    type_id: str
    part_id: str
    start: int
    size: int

    @property
    def offset_bytes(self) -> int:
        return self.start * SECTOR

    @property
    def size_bytes(self) -> int:
        return self.size * SECTOR


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLayout:
    """Where everything lies. The root partition comes last, so that it can grow on first boot."""

    disk_id: str
    size_bytes: int
    bios: Partition
    esp: Partition
    root: Partition
    #: UUID of the root file system, which GRUB and the kernel look for
    root_uuid: str
    #: volume id of the FAT file system: eight hex digits
    esp_volume_id: str

    def as_sfdisk_script(self) -> str:
        """The layout in the language of sfdisk(8)."""
        lines = ["label: gpt", f"label-id: {self.disk_id}", "unit: sectors", "first-lba: 34"]
        for part in (self.bios, self.esp, self.root):
            place = f"start={part.start}, size={part.size}"
            lines.append(f"{place}, type={part.type_id}, uuid={part.part_id}, name={part.name}")
        return "\n".join(lines) + "\n"


def derive_uuid(image_id: str, what: str) -> str:
    """A stable UUID (version 5) for one part of one image."""
    return str(uuid.uuid5(_NAMESPACE, f"{image_id}/{what}"))


def plan_layout(image_id: str, size_mib: int) -> DiskLayout:
    """The layout of a disk of ``size_mib`` MiB; raises ValueError when there is no room for a root
    partition.
    """
    root_mib = size_mib - _FIRST_MIB - BIOS_BOOT_MIB - ESP_MIB - _LAST_MIB
    if root_mib < 1:
        raise ValueError(f"a disk of {size_mib} MiB has no room for a root partition")
    start = _FIRST_MIB * _SECTORS_PER_MIB
    parts = []
    for name, type_id, mib in (
        ("bios", BIOS_BOOT, BIOS_BOOT_MIB),
        ("esp", EFI_SYSTEM, ESP_MIB),
        ("root", LINUX_ROOT_X86_64, root_mib),
    ):
        parts.append(
            Partition(
                name=name,
                type_id=type_id,
                part_id=derive_uuid(image_id, f"partition/{name}").upper(),
                start=start,
                size=mib * _SECTORS_PER_MIB,
            )
        )
        start += mib * _SECTORS_PER_MIB
    return DiskLayout(
        disk_id=derive_uuid(image_id, "disk").upper(),
        size_bytes=size_mib * MIB,
        bios=parts[0],
        esp=parts[1],
        root=parts[2],
        root_uuid=derive_uuid(image_id, "root"),
        esp_volume_id=derive_uuid(image_id, "esp").replace("-", "")[:8],
    )
