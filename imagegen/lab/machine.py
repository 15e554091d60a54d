"""One machine under QEMU's user space: its command line, its start, its end.

Golden images stay clean: a disk with ``base`` is a thin copy above it.
"""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.lab.accelerator import QEMU, find_accelerator
from imagegen.lab.errors import BootFailureError, LabError
from imagegen.lab.processes import Process, find_process, list_children
from imagegen.lab.qmp import ask_qemu
from imagegen.model.cluster import Firmware, Role
from imagegen.run import Background, Runner, Tool, require_tools

if TYPE_CHECKING:
    from imagegen.lab.network import LabNetwork

QEMU_IMG = Tool(name="qemu-img", package="qemu-utils", purpose="make disks above golden images")
TOOLS = (QEMU, QEMU_IMG)

OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")

#: measured use of a booted node, with room to spare
_MEMORY_MIB = {Role.ETCD: 768, Role.MASTER: 2048, Role.WORKER: 1536, Role.LB: 512, Role.BASE: 512}
_ALL_IN_ONE_MIB = 3072
_START_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of a machine. With ``base``, ``path`` is made as a thin copy above it unless it exists.

    ``device`` is QEMU's name of the disk device; ``snapshot`` forgets all writes at the end.
    """

    path: Path
    format: str = "qcow2"
    base: Path | None = None
    base_format: str = "qcow2"
    read_only: bool = False
    snapshot: bool = False
    device: str = "virtio-blk-pci"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A network card: on a tap of the lab's network, else on QEMU's own network, which reaches nothing.

    ``forwards`` are (port on 127.0.0.1 of this machine, port of the guest), without a tap only.
    """

    mac: str
    tap: str | None = None
    device: str = "virtio-net-pci"
    forwards: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A machine before it starts. ``folder`` takes its socket and firmware variables.

    ``serial`` is the console's log; it grows over restarts. ``rtc_base`` is ``utc`` or a date such as
    ``1970-01-02T00:00:00``. ``smbios`` are values of QEMU's -smbios. With ``no_reboot`` a restart of the
    guest ends the machine. ``accelerator`` None: what works here. ``extra`` goes to QEMU
    unchanged, controllers for disks for example.
    """

    name: str
    folder: Path
    disks: tuple[Disk, ...]
    serial: Path
    memory_mib: int = 1024
    cpus: int = 2
    firmware: Firmware = Firmware.BIOS
    nics: tuple[Nic, ...] = ()
    rtc_base: str = "utc"
    smbios: tuple[str, ...] = ()
    no_reboot: bool = False
    accelerator: str | None = None
    extra: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Machine:
    """A machine that was started, perhaps by another process. ``console_offset``: where its last start
    begins in the console's log, in bytes; ``started_at``: seconds since 1970.
    """

    name: str
    folder: Path
    serial: Path
    process: Process
    started_at: float
    console_offset: int = 0
    _background: Background | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def cpu_seconds(self) -> float:
        """User and system time of the whole machine so far, in seconds."""
        return self.process.cpu_seconds()

    def press_power_button(self) -> None:
        """Ask the guest to shut down. Raises LabError when QEMU does not answer."""
        ask_qemu(self.folder / f"{self.name}.qmp", "system_powerdown")

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the machine's end; whether it ended."""
        ended = self.process.wait(timeout)
        if ended and self._background is not None:
            self._background.wait(5.0)
        return ended

    def stop(self, timeout: float = 90.0) -> bool:
        """Shut the guest down as its power button would, and kill it after ``timeout`` seconds.

        Whether the guest ended by itself.
        """
        if self.is_alive():
            self.press_power_button()
            if not self.wait(timeout):
                self.kill()
                return False
        return True

    def kill(self) -> None:
        """Cut the power. What the guest had handed to its disk is there, nothing else."""
        self.process.send(signal.SIGKILL)
        self.wait(10.0)

    def read_console(self) -> str:
        """What it wrote to its console since its last start."""
        try:
            with open(self.serial, "rb") as stream:
                stream.seek(self.console_offset)
                return stream.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def choose_memory(roles: tuple[Role, ...], *, has_kubelet: bool = False) -> int:
    """MiB for a node with these roles; a master that runs pods without being a worker needs more."""
    if {Role.ETCD, Role.MASTER, Role.WORKER}.issubset(roles):
        return _ALL_IN_ONE_MIB
    extra = 768 if has_kubelet and Role.WORKER not in roles else 0
    return max(_MEMORY_MIB[role] for role in roles) + 512 * (len(roles) - 1) + extra


def choose_cpus(roles: tuple[Role, ...], accelerator: str) -> int:
    """Virtual processors for a node with these roles.

    In emulation each costs a thread, and threads of machines that wait for each other's locks spend time on
    nothing: one is enough for all but a master.
    """
    return 2 if Role.MASTER in roles or accelerator == "kvm" else 1


def build_argv(spec: MachineSpec, accelerator: str) -> list[str]:
    """QEMU's command line; relative names are relative to ``spec.folder``."""
    # without ERMS the guest clears pages by eight bytes at a time, not by one; emulation goes through each,
    # and slowly where the page held code
    cpu = "host" if accelerator.startswith("kvm") else "max,-erms"
    argv = [QEMU.name, "-name", spec.name, "-machine", "q35", "-accel", accelerator, "-cpu", cpu]
    argv += ["-smp", str(spec.cpus), "-m", str(spec.memory_mib), "-nodefaults", "-display", "none"]
    argv += ["-rtc", f"base={spec.rtc_base}", "-device", "virtio-rng-pci"]
    # "file" alone would cut the log of the last start
    argv += [
        "-chardev",
        f"file,id=console,path={_quote(spec.serial)},append=on",
        "-serial",
        "chardev:console",
    ]
    argv += ["-qmp", f"unix:{spec.name}.qmp,server=on,wait=off"]
    if spec.no_reboot:
        argv.append("-no-reboot")
    if spec.firmware is Firmware.UEFI:
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF_CODE}"]
        argv += ["-drive", f"if=pflash,format=raw,file={spec.name}.vars.fd"]
    # before the disks, which may need a controller
    argv += spec.extra
    for number, disk in enumerate(spec.disks):
        argv += _build_disk(number, disk)
    for number, nic in enumerate(spec.nics):
        argv += _build_nic(number, nic)
    for value in spec.smbios:
        argv += ["-smbios", value]
    return argv


def _build_disk(number: int, disk: Disk) -> list[str]:
    options = f"if=none,id=disk{number},format={disk.format},file={_quote(disk.path)}"
    if disk.read_only:
        options += ",readonly=on"
    else:
        # the machines are thrown away; what they flush need not reach this machine's disk
        options += ",cache=unsafe"
    if disk.snapshot:
        options += ",snapshot=on"
    device = f"{disk.device},drive=disk{number},bootindex={number}"
    if disk.device.startswith("ide-"):
        # a SATA port takes one disk, and QEMU would offer the first port to all of them
        device += f",bus=ide.{number}"
    return ["-drive", options, "-device", device]


def _build_nic(number: int, nic: Nic) -> list[str]:
    if nic.tap is not None:
        back = f"tap,id=net{number},ifname={nic.tap},script=no,downscript=no"
    else:
        ports = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in nic.forwards)
        back = f"user,id=net{number},restrict=on{ports}"
    return ["-netdev", back, "-device", f"{nic.device},netdev=net{number},mac={nic.mac}"]


def _quote(path: Path) -> str:
    """A path inside an option list: QEMU doubles commas."""
    return str(path.absolute()).replace(",", ",,")


def start_machine(spec: MachineSpec, network: LabNetwork | None, runner: Runner | None = None) -> Machine:
    """Make what the machine still lacks and start it, inside ``network`` when there is one.

    Raises MissingToolError when a program is missing, CommandError when a disk cannot be made,
    BootFailureError with QEMU's own words when it does not start.
    """
    runner = runner or Runner()
    require_tools(TOOLS)
    accelerator = spec.accelerator or find_accelerator(runner)
    spec.folder.mkdir(parents=True, exist_ok=True)
    _prepare(spec, runner)
    offset = spec.serial.stat().st_size if spec.serial.exists() else 0
    log = spec.folder / f"{spec.name}.qemu.log"
    log.unlink(missing_ok=True)
    (spec.folder / f"{spec.name}.qmp").unlink(missing_ok=True)
    enter = network.enter_argv() if network is not None else []
    started_at = time.time()
    background = runner.start([*enter, *build_argv(spec, accelerator)], output=log, cwd=spec.folder)
    process = _find_qemu(background, indirect=bool(enter), socket=spec.folder / f"{spec.name}.qmp")
    return Machine(
        name=spec.name,
        folder=spec.folder,
        serial=spec.serial,
        process=process,
        started_at=started_at,
        console_offset=offset,
        _background=background,
    )


def _prepare(spec: MachineSpec, runner: Runner) -> None:
    for disk in spec.disks:
        if disk.base is not None and not disk.path.exists():
            argv = [QEMU_IMG.name, "create", "-q", "-f", disk.format, "-F", disk.base_format]
            runner.run([*argv, "-b", str(disk.base.absolute()), str(disk.path)])
    if spec.firmware is Firmware.UEFI:
        variables = spec.folder / f"{spec.name}.vars.fd"
        if not OVMF_CODE.exists():
            raise LabError(f"{OVMF_CODE} is missing; UEFI needs it", hint="apt-get install ovmf")
        if not variables.exists():
            shutil.copyfile(OVMF_VARIABLES, variables)


def _find_qemu(background: Background, *, indirect: bool, socket: Path) -> Process:
    """QEMU's own process, once its socket is there; nsenter stands between when there is a network."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if background.poll() is not None:
            break
        # the socket is there before QEMU knows whether it can make all devices; it answers only afterwards
        if socket.exists() and _answers(socket):
            own = next(list_children(background.pid), None) if indirect else find_process(background.pid)
            if own is not None:
                return own
        time.sleep(0.02)
    background.end()
    raise BootFailureError(f"QEMU did not start\n{background.last_lines()}", hint=f"see {background.output}")


def _answers(socket: Path) -> bool:
    try:
        ask_qemu(socket, "query-status")
    except LabError:
        return False
    return True
