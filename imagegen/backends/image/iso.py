"""A hybrid ISO that starts a role from read-only media, under BIOS and UEFI, from a disc or a USB stick.

The root is a squashfs with a writable overlay in memory (Debian's live-boot); nothing is kept over a reboot.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import yaml

from imagegen.backends.image.bootloader import GRUB_PC, build_esp, make_grub_image
from imagegen.backends.image.partitions import MIB, derive_uuid
from imagegen.backends.image.staging import link_or_copy
from imagegen.run import Runner, Tool

#: what a role layer is made with, when the cluster file wants ISOs of it
MKSQUASHFS = Tool(name="mksquashfs", package="squashfs-tools", purpose="pack the root of bootable ISOs")
TOOLS = (Tool(name="xorriso", package="xorriso", purpose="write bootable ISOs"), MKSQUASHFS)

_ESP_BYTES = 8 * MIB
_YEAR_SECONDS = 365 * 86400
_MODULES = (
    "iso9660",
    "search",
    "search_label",
    "normal",
    "configfile",
    "linux",
    "serial",
    "terminal",
    "test",
)
_BIOS_MODULES = ("biosdisk", *_MODULES)
_EFI_MODULES = ("fat", "part_gpt", "part_msdos", *_MODULES, "all_video")

#: where a node's seed lies on the medium
SEED_FOLDER = "/seed"
#: where live-boot mounts the medium in the running system
_MEDIUM = "/run/live/medium"
_ARGUMENTS = (
    "boot=live",
    "live-media-path=/live",
    "nopersistence",
    "console=tty0",
    "console=ttyS0,115200n8",
    "quiet",
)


def make_label(image_id: str) -> str:
    """The volume label by which GRUB finds its own medium, unique to the image."""
    return f"IMAGEGEN_{derive_uuid(image_id, 'iso')[:8].upper()}"


def build_iso(
    runner: Runner,
    role: Path,
    image_id: str,
    target: Path,
    work: Path,
    *,
    epoch: int,
    seed: Mapping[str, bytes] | None = None,
) -> None:
    """Write the ISO ``target`` from a role layer's ``root.squashfs``, ``vmlinuz`` and ``initrd.img``.

    ``seed`` are the files of a NoCloud seed: with them one ISO is one node, and secrets of that node are
    inside, readable by root alone. ``image_id`` names the medium; two ISOs in one machine must differ in it.
    """
    label = make_label(image_id)
    tree = work / "iso"
    (tree / "live").mkdir(parents=True)
    (tree / "boot/grub").mkdir(parents=True)
    for name, place in (
        ("root.squashfs", "filesystem.squashfs"),
        ("vmlinuz", "vmlinuz"),
        ("initrd.img", "initrd.img"),
    ):
        link_or_copy(role / name, tree / "live" / place)
    (tree / "boot/grub/grub.cfg").write_text(_render_config(seed))
    for name, body in (seed or {}).items():
        path = tree / SEED_FOLDER.lstrip("/") / name
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_bytes(body)
    early = _render_early_config(label)
    make_grub_image(runner, "i386-pc-eltorito", early, _BIOS_MODULES, tree / "boot/grub/bios.img")
    esp = _build_efi_loader(runner, label, image_id, work, epoch)
    stamp = _make_stamp(image_id, epoch)
    argv = [
        "xorriso",
        "-as",
        "mkisofs",
        "-quiet",
        "-output",
        str(target),
        "-volid",
        label,
        "-joliet",
        "-rock",
        "-uid",
        "0",
        "-gid",
        "0",
    ]
    argv += [f"--modification-date={stamp}", "-partition_offset", "16"]
    argv += ["-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
    argv += ["--grub2-boot-info", "--grub2-mbr", str(GRUB_PC / "boot_hybrid.img")]
    argv += ["-append_partition", "2", "0xef", str(esp), "-eltorito-alt-boot"]
    argv += ["-e", "--interval:appended_partition_2:all::", "-no-emul-boot", str(tree)]
    _set_modes(tree)
    _set_times(tree, epoch)
    try:
        # the date is read as local time
        runner.run(argv, env={"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC"})
    finally:
        shutil.rmtree(tree)


def _make_stamp(image_id: str, epoch: int) -> str:
    """The medium's date, which is also its UUID.

    live-boot looks at one medium of each UUID (9990-misc-helpers.sh, devices-already-tried-to-mount): with
    the epoch itself an image would be passed over for a seed that happens to be found first.
    """
    before = uuid.UUID(derive_uuid(image_id, "iso/date")).int % _YEAR_SECONDS + 1
    return datetime.fromtimestamp(epoch - before, UTC).strftime("%Y%m%d%H%M%S00")


def _render_config(seed: Mapping[str, bytes] | None) -> str:
    arguments = list(_ARGUMENTS)
    if seed is not None:
        metadata = yaml.safe_load(seed["meta-data"])
        # Name and id are said here, too: those of the kernel's arguments win over those of a seed disk that
        # somebody attaches (DataSourceNoCloud._get_data). Quoted, because a semicolon ends a GRUB statement.
        words = [
            "ds=nocloud",
            f"i={metadata['instance-id']}",
            f"h={metadata['local-hostname']}",
            f"s=file://{_MEDIUM}{SEED_FOLDER}/",
        ]
        arguments.append(f"'{';'.join(words)}'")
    return (
        "set timeout=0\n"
        "if serial --unit=0 --speed=115200; then\n"
        "  terminal_input console serial\n"
        "  terminal_output console serial\n"
        "fi\n"
        "menuentry 'Linux' {\n"
        f"  linux /live/vmlinuz {' '.join(arguments)}\n"
        "  initrd /live/initrd.img\n"
        "}\n"
    )


def _render_early_config(label: str) -> str:
    return (
        f"search --no-floppy --label --set=root {label}\n"
        "set prefix=($root)/boot/grub\n"
        "configfile $prefix/grub.cfg\n"
    )


def _build_efi_loader(runner: Runner, label: str, image_id: str, work: Path, epoch: int) -> Path:
    early, esp = _render_early_config(label), work / "iso-esp.fat"
    program = make_grub_image(runner, "x86_64-efi", early, _EFI_MODULES, work / "BOOTX64.EFI")
    os.utime(program, (epoch, epoch))
    volume_id = derive_uuid(image_id, "iso/esp").replace("-", "")[:8]
    build_esp(runner, program, volume_id, _ESP_BYTES, esp, epoch=epoch)
    return esp


def _set_modes(tree: Path) -> None:
    """Modes as on the medium, whatever the umask was; what is shared with a layer has its own already."""
    tree.chmod(0o755)
    seed = tree / SEED_FOLDER.lstrip("/")
    for path in tree.rglob("*"):
        is_secret = path.is_relative_to(seed)
        if path.is_dir():
            path.chmod(0o700 if is_secret else 0o755)
        elif path.stat().st_nlink == 1:
            path.chmod(0o400 if is_secret else 0o444)


def _set_times(tree: Path, epoch: int) -> None:
    for path in [*tree.rglob("*"), tree]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)
