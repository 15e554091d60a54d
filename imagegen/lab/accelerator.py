"""Whether QEMU can use the processor's virtualisation here, found out by using it.

``/dev/kvm`` may be there and not work: QEMU then aborts when the first instruction runs, not before.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from imagegen.run import CommandError, Runner, Tool

QEMU = Tool(name="qemu-system-x86_64", package="qemu-system-x86", purpose="run the cluster's machines")
TOOLS = (QEMU,)

#: one thread a virtual processor; a larger translation cache made no difference
EMULATION = "tcg,thread=multi,tb-size=256"
_KVM = Path("/dev/kvm")
#: firmware with four instructions at the reset vector: mov al, 0x10; out 0xf4, al; hlt; jmp back to hlt
TRIAL_FIRMWARE = bytes(0xFFF0) + b"\xb0\x10\xe6\xf4\xf4\xeb\xfd".ljust(16, b"\0")
#: isa-debug-exit makes QEMU exit with (value << 1) | 1
TRIAL_STATUS = (0x10 << 1) | 1
_PATIENCE_SECONDS = 15.0

_found: dict[str, str] = {}


def find_accelerator(runner: Runner) -> str:
    """The argument of QEMU's ``-accel``: ``kvm`` where four instructions run with it, else emulation.

    Tried once a process. Raises MissingToolError when QEMU is not installed.
    """
    if "found" not in _found:
        _found["found"] = "kvm" if _has_device() and _runs_with_kvm(runner) else EMULATION
    return _found["found"]


def _has_device() -> bool:
    return os.access(_KVM, os.R_OK | os.W_OK)


def _runs_with_kvm(runner: Runner) -> bool:
    with tempfile.TemporaryDirectory() as name:
        firmware = Path(name) / "firmware.bin"
        firmware.write_bytes(TRIAL_FIRMWARE)
        try:
            done = runner.run(
                build_trial_argv(firmware, "kvm", "host"), timeout=_PATIENCE_SECONDS, check=False
            )
        except CommandError:
            return False
        return done.returncode == TRIAL_STATUS


def build_trial_argv(firmware: Path, accelerator: str, cpu: str) -> list[str]:
    """QEMU with that firmware; it ends with ``TRIAL_STATUS`` when the instructions in it ran."""
    argv = [QEMU.name, "-machine", "q35", "-accel", accelerator, "-cpu", cpu, "-m", "16", "-nodefaults"]
    argv += ["-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
    return [*argv, "-bios", str(firmware)]
