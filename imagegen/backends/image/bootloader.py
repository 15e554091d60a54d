"""GRUB for BIOS and UEFI, installed by writing bytes: no loop device, no mount, no chroot.

For BIOS, what grub-bios-setup(8) would do to the device is done to the file: ``boot.img`` goes into the MBR
with the sector of ``core.img``, and ``core.img`` learns where the rest of itself lies (GRUB's boot.S and
diskboot.S say where).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from imagegen.backends.image.partitions import SECTOR, DiskLayout
from imagegen.errors import ImagegenError, MissingToolError
from imagegen.run import Runner, Tool

TOOLS = (
    Tool(name="grub-mkimage", package="grub-common", purpose="make the bootloader"),
    Tool(name="mkfs.vfat", package="dosfstools", purpose="make the EFI system partition"),
    Tool(name="mcopy", package="mtools", purpose="fill the EFI system partition"),
)
#: where Debian puts GRUB's modules
GRUB_PC = Path("/usr/lib/grub/i386-pc")
GRUB_EFI = Path("/usr/lib/grub/x86_64-efi")

_COMMON = (
    "part_gpt",
    "ext2",
    "search",
    "search_fs_uuid",
    "normal",
    "configfile",
    "linux",
    "serial",
    "terminal",
)
_BIOS_MODULES = ("biosdisk", *_COMMON, "test", "echo")
_EFI_MODULES = ("fat", *_COMMON, "test", "echo", "all_video")

# Offsets in boot.img and core.img: GRUB_BOOT_MACHINE_KERNEL_SECTOR, GRUB_BOOT_MACHINE_BOOT_DRIVE,
# GRUB_BOOT_MACHINE_DRIVE_CHECK and the last block list of diskboot.img (include/grub/i386/pc/boot.h).
_KERNEL_SECTOR = 0x5C
_BOOT_DRIVE = 0x64
_DRIVE_CHECK = 0x66
_PARTITION_TABLE = 0x1B8  # disk signature and partition table: not ours to overwrite
_BLOCK_LIST = SECTOR - 12
_CORE_SEGMENT = 0x820

#: part of the shipped kernel command line; tests may add to it, the product adds nothing that weakens a
#: machine
KERNEL_ARGUMENTS = ("ro", "console=tty0", "console=ttyS0,115200n8", "net.ifnames=1", "quiet", "panic=30")


def write_grub_config(root_uuid: str, arguments: tuple[str, ...] = KERNEL_ARGUMENTS) -> str:
    """The text of ``/boot/grub/grub.cfg``: one entry, no waiting, the same words on screen and serial
    line.
    """
    words = " ".join((f"root=UUID={root_uuid}", *arguments))
    return (
        "set timeout=0\n"
        "set default=0\n"
        "if serial --unit=0 --speed=115200; then\n"
        "  terminal_input console serial\n"
        "  terminal_output console serial\n"
        "fi\n"
        "menuentry 'Linux' {\n"
        f"  search --no-floppy --fs-uuid --set=root {root_uuid}\n"
        f"  linux /vmlinuz {words}\n"
        "  initrd /initrd.img\n"
        "}\n"
    )


def _write_early_config(root_uuid: str) -> str:
    return (
        f"search --no-floppy --fs-uuid --set=root {root_uuid}\n"
        "set prefix=($root)/boot/grub\n"
        "configfile $prefix/grub.cfg\n"
    )


def check_grub_modules() -> None:
    """Raise MissingToolError when GRUB's modules for BIOS or UEFI are not on this machine."""
    for path, package in (
        (GRUB_PC / "boot.img", "grub-pc-bin"),
        (GRUB_EFI / "moddep.lst", "grub-efi-amd64-bin"),
    ):
        if not path.exists():
            raise MissingToolError(
                f"{path} is missing; it is needed to make the bootloader", hint=f"apt-get install {package}"
            )


def make_grub_image(
    runner: Runner, platform: str, early_config: str, modules: Sequence[str], target: Path
) -> Path:
    """GRUB with an embedded configuration, for ``i386-pc``, ``i386-pc-eltorito`` or ``x86_64-efi``."""
    folder = GRUB_EFI if platform == "x86_64-efi" else GRUB_PC
    early = target.with_suffix(".cfg")
    early.write_text(early_config)
    options = ["-d", str(folder), "-O", platform, "-o", str(target), "-c", str(early), "-p", "/boot/grub"]
    runner.run(["grub-mkimage", *options, *modules])
    early.unlink()
    return target


def build_bios_core(runner: Runner, root_uuid: str, work: Path) -> Path:
    """``core.img`` for BIOS, before it knows its place on the disk."""
    early = _write_early_config(root_uuid)
    return make_grub_image(runner, "i386-pc", early, _BIOS_MODULES, work / "core.img")


def build_efi_program(runner: Runner, root_uuid: str, work: Path) -> Path:
    """``BOOTX64.EFI``, the program that UEFI firmware starts from removable media."""
    early = _write_early_config(root_uuid)
    return make_grub_image(runner, "x86_64-efi", early, _EFI_MODULES, work / "BOOTX64.EFI")


def build_esp(
    runner: Runner, program: Path, volume_id: str, size_bytes: int, esp: Path, *, epoch: int
) -> None:
    """A FAT file system image with ``/EFI/BOOT/BOOTX64.EFI`` in it; the same bytes for the same input."""
    with open(esp, "wb") as handle:
        handle.truncate(size_bytes)
    environment = {"SOURCE_DATE_EPOCH": str(epoch), "MTOOLS_SKIP_CHECK": "1"}
    runner.run(["mkfs.vfat", "--invariant", "-i", volume_id, "-n", "ESP", str(esp)], env=environment)
    runner.run(["mmd", "-i", str(esp), "::/EFI", "::/EFI/BOOT"], env=environment)
    runner.run(["mcopy", "-m", "-i", str(esp), str(program), "::/EFI/BOOT/BOOTX64.EFI"], env=environment)


def write_bios_boot(disk: Path, core: Path, layout: DiskLayout) -> None:
    """Write MBR code and ``core.img`` into the disk, leaving the partition table alone.

    Raises ImagegenError when ``core.img`` does not fit into its partition.
    """
    image = bytearray(core.read_bytes())
    if len(image) > layout.bios.size_bytes:
        raise ImagegenError(
            f"GRUB's core image has {len(image)} bytes, the BIOS boot partition {layout.bios.size_bytes}"
        )
    sectors = -(-len(image) // SECTOR)
    image.extend(bytes(sectors * SECTOR - len(image)))
    struct.pack_into("<QHH", image, _BLOCK_LIST, layout.bios.start + 1, sectors - 1, _CORE_SEGMENT)
    code = bytearray((GRUB_PC / "boot.img").read_bytes()[:_PARTITION_TABLE])
    struct.pack_into("<Q", code, _KERNEL_SECTOR, layout.bios.start)
    code[_BOOT_DRIVE] = 0xFF  # the drive that the BIOS booted from
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = (
        b"\x90\x90"  # skip the floppy check: some BIOSes pass a wrong drive
    )
    with open(disk, "r+b") as handle:
        handle.write(code)
        handle.seek(layout.bios.offset_bytes)
        handle.write(image)
