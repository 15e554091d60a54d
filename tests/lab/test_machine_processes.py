"""Real machines with a firmware of twenty bytes: they write one line to the console and halt."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from imagegen.lab import accelerator
from imagegen.lab.accelerator import TRIAL_FIRMWARE, TRIAL_STATUS, build_trial_argv, find_accelerator
from imagegen.lab.console import wait_for_console
from imagegen.lab.errors import BootFailureError, LabError
from imagegen.lab.machine import Disk, Machine, MachineSpec, start_machine
from imagegen.lab.network import LabNetwork
from imagegen.lab.networkplan import NetworkPlan
from imagegen.lab.processes import list_children
from imagegen.lab.qmp import ask_qemu
from imagegen.run import Runner

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86 is not installed"),
]

#: writes the text at 0xf020 to the first serial port: mov dx, 0x3f8; mov si, 0xf020; cs lodsb; test al, al;
#: jz +3; out dx, al; jmp back to lodsb; hlt; jmp back to hlt
_CODE = bytes.fromhex("baf803be20f02eac84c07403eeebf7f4ebfd")
#: jmp 0xf000 at the reset vector
_RESET = b"\xe9\x0d\xf0"


def _write_firmware(path: Path, text: str) -> Path:
    body = _CODE.ljust(0x20, b"\0") + text.encode() + b"\0"
    path.write_bytes(bytes(0xF000) + body.ljust(0xFF0, b"\0") + _RESET.ljust(16, b"\0"))
    return path


def _spec(folder: Path, text: str, **changes: object) -> MachineSpec:
    firmware = _write_firmware(folder / "firmware.bin", text)
    values: dict[str, object] = {
        "name": "one",
        "folder": folder,
        "disks": (),
        "serial": folder / "one.log",
        "memory_mib": 16,
        "cpus": 1,
        "accelerator": "tcg",
        "extra": ("-bios", str(firmware)),
    }
    return MachineSpec(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Longer than a local socket's name may be."""
    path = tmp_path / ("long" * 25)
    path.mkdir()
    return path


def _end(machine: Machine) -> None:
    machine.kill()
    assert not machine.is_alive()


def test_the_trial_tells_whether_instructions_run(tmp_path: Path) -> None:
    firmware = tmp_path / "firmware.bin"
    firmware.write_bytes(TRIAL_FIRMWARE)
    done = Runner().run(build_trial_argv(firmware, "tcg", "max"), timeout=30, check=False)
    assert done.returncode == TRIAL_STATUS


def test_what_is_found_runs_a_machine(folder: Path) -> None:
    found = find_accelerator(Runner())
    assert found in ("kvm", accelerator.EMULATION)
    machine = start_machine(_spec(folder, "alive", accelerator=None), None)
    try:
        assert wait_for_console(machine.serial, "alive", 30.0, machine)
    finally:
        _end(machine)


def test_the_console_grows_over_starts_and_each_sees_its_own(folder: Path) -> None:
    first = start_machine(_spec(folder, "first\n"), None)
    wait_for_console(first.serial, "first", 30.0, first)
    assert first.cpu_seconds() > 0
    _end(first)
    second = start_machine(_spec(folder, "second\n"), None)
    try:
        assert wait_for_console(second.serial, "second", 30.0, second) == "second\n"
        assert second.serial.read_text() == "first\nsecond\n"
        with pytest.raises(BootFailureError, match="did not write 'first'"):
            wait_for_console(second.serial, "first", 0.1, second)
    finally:
        _end(second)


def test_a_panic_is_seen_long_before_the_time_is_over(folder: Path) -> None:
    machine = start_machine(_spec(folder, "line\nKernel panic - not syncing: no init\n"), None)
    start = time.monotonic()
    try:
        with pytest.raises(
            BootFailureError, match=r"one does not boot: Kernel panic - not syncing: no init\n"
        ):
            wait_for_console(machine.serial, "login:", 600.0, machine)
        assert time.monotonic() - start < 60
    finally:
        _end(machine)


def test_a_machine_that_was_killed_is_noticed(folder: Path) -> None:
    machine = start_machine(_spec(folder, "last words\n"), None)
    wait_for_console(machine.serial, "last words", 30.0, machine)
    _end(machine)
    with pytest.raises(BootFailureError, match="one ended before it wrote 'login:'\nlast words"):
        wait_for_console(machine.serial, "login:", 600.0, machine)


def test_a_guest_that_ignores_its_power_button_is_killed(folder: Path) -> None:
    machine = start_machine(_spec(folder, "deaf\n"), None)
    wait_for_console(machine.serial, "deaf", 30.0, machine)
    assert machine.stop(timeout=0.5) is False
    assert not machine.is_alive()
    assert machine.stop(timeout=0.5) is True, "what has ended needs no stopping"


def test_qemu_answers_and_refuses(folder: Path) -> None:
    machine = start_machine(_spec(folder, ""), None)
    try:
        assert ask_qemu(folder / "one.qmp", "query-status")["status"] == "running"
        with pytest.raises(LabError, match="QEMU refused no-such-command"):
            ask_qemu(folder / "one.qmp", "no-such-command")
    finally:
        _end(machine)
    with pytest.raises(LabError, match="QEMU does not answer"):
        ask_qemu(folder / "one.qmp", "query-status")


def test_qemus_own_words_are_shown_when_it_does_not_start(folder: Path) -> None:
    with pytest.raises(BootFailureError, match=r"QEMU did not start\n(.*\n)*.*no-such-device") as caught:
        start_machine(_spec(folder, "", extra=("-device", "no-such-device")), None)
    assert caught.value.hint == f"see {folder / 'one.qemu.log'}"


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-utils is not installed")
def test_a_golden_image_stays_clean_under_its_copy(folder: Path) -> None:
    golden = folder / "golden,image.qcow2"
    Runner().run(["qemu-img", "create", "-q", "-f", "qcow2", str(golden), "64M"])
    before = golden.read_bytes()
    disk = Disk(path=folder / "disk.qcow2", base=golden)
    machine = start_machine(_spec(folder, "up\n", disks=(disk,)), None)
    try:
        wait_for_console(machine.serial, "up", 30.0, machine)
        # written by QEMU itself, through the chain of files that the machine uses
        ask_qemu(folder / "one.qmp", "human-monitor-command", {"command-line": 'qemu-io disk0 "write 0 1M"'})
    finally:
        _end(machine)
    assert golden.read_bytes() == before
    assert disk.path.stat().st_size > 1 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="taps belong to root here")
@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
def test_machines_end_with_their_network(folder: Path) -> None:
    with LabNetwork(NetworkPlan(addresses=("10.77.0.1/24",), taps=("tap0",)), folder / "net") as network:
        machine = start_machine(_spec(folder, "inside\n"), network)
        wait_for_console(machine.serial, "inside", 30.0, machine)
        assert machine.process in list_children(_find_parent(machine))
        network.process.send(9)
        assert machine.wait(10.0)
    assert not machine.is_alive()


def _find_parent(machine: Machine) -> int:
    status = Path(f"/proc/{machine.pid}/status").read_text()
    return int(status.split("PPid:")[1].split()[0])
