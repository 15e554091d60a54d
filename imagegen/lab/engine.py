"""What can run a node: QEMU, or something quicker that tests less. One small contract for both."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagegen.lab import machine
from imagegen.lab.accelerator import EMULATION, find_accelerator
from imagegen.lab.credentials import list_emulation_settings
from imagegen.lab.network import LabNetwork
from imagegen.lab.processes import Process
from imagegen.model.cluster import Cluster, Firmware, Node
from imagegen.run import Runner, require_tools

ENGINES = ("qemu", "nspawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBoot:
    """One node as an engine gets it. ``image`` is its golden image (qcow2), ``seed`` the folder with
    user-data, meta-data, network-config and seed.iso (None when they are in the image), ``folder`` the
    engine's own place for the node's disk and sockets, ``console`` a log that grows over restarts,
    ``address`` and ``mac`` what the network expects.
    """

    cluster: Cluster
    node: Node
    image: Path
    seed: Path | None
    folder: Path
    console: Path
    tap: str
    mac: str
    address: str
    memory_mib: int
    firmware: Firmware = Firmware.BIOS
    rtc_base: str = "utc"


class LabMachine(Protocol):
    """A running node. ``started_at``: seconds since 1970; ``console_offset``: where this start begins in its
    console's log.
    """

    name: str
    process: Process
    started_at: float
    console_offset: int

    def is_alive(self) -> bool: ...

    def cpu_seconds(self) -> float: ...

    def stop(self, timeout: float = 90.0) -> bool:
        """Shut down cleanly, kill after ``timeout`` seconds; whether it ended by itself."""
        ...

    def kill(self) -> None:
        """Cut the power."""
        ...

    def wait(self, timeout: float) -> bool: ...

    def read_console(self) -> str: ...


class Engine(Protocol):
    """Starts nodes. ``name`` is what ``--engine`` says."""

    name: str

    def check(self, cluster: Cluster) -> None:
        """Raise MissingToolError or UsageError when this machine or this cluster cannot be run with it."""
        ...

    def prepare(self, boot: NodeBoot) -> None:
        """Do what takes long and no node has to wait for, before any is started."""
        ...

    def start(self, boot: NodeBoot, network: LabNetwork) -> LabMachine:
        """Start a node; what its disk holds from an earlier start is kept."""
        ...

    def adopt(self, boot: NodeBoot, process: Process, started_at: float, console_offset: int) -> LabMachine:
        """The node that another command started."""
        ...

    def describe(self) -> str:
        """What runs the nodes, for the timeline; such as QEMU's accelerator."""
        ...


def load_engine(name: str, runner: Runner) -> Engine:
    """The engine of that name, which is one of ENGINES."""
    if name == "qemu":
        return QemuEngine(runner)
    engine: Engine = importlib.import_module(f"imagegen.lab.{name}").load_engine(runner)
    return engine


class QemuEngine:
    """Whole machines: firmware, bootloader, kernel and all."""

    name = "qemu"

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def check(self, cluster: Cluster) -> None:
        require_tools(machine.TOOLS)

    def prepare(self, boot: NodeBoot) -> None:
        """Nothing: an overlay above the image is made in no time."""

    def start(self, boot: NodeBoot, network: LabNetwork) -> LabMachine:
        return machine.start_machine(make_spec(boot, self.describe()), network, self._runner)

    def adopt(self, boot: NodeBoot, process: Process, started_at: float, console_offset: int) -> LabMachine:
        return machine.Machine(
            name=boot.node.name,
            folder=boot.folder,
            serial=boot.console,
            process=process,
            started_at=started_at,
            console_offset=console_offset,
        )

    def describe(self) -> str:
        return find_accelerator(self._runner)


def make_spec(boot: NodeBoot, accelerator: str) -> machine.MachineSpec:
    """A node's machine: a disk above the golden image, the seed beside it, one card on the lab's bridge."""
    is_uefi_only = Firmware.BIOS not in boot.cluster.image.firmware
    firmware = Firmware.UEFI if is_uefi_only else boot.firmware
    return machine.MachineSpec(
        name=boot.node.name,
        folder=boot.folder,
        disks=(
            machine.Disk(path=boot.folder / "disk.qcow2", base=boot.image),
            *_list_seeds(boot.seed),
        ),
        serial=boot.console,
        memory_mib=boot.memory_mib,
        cpus=machine.choose_cpus(boot.node.roles, accelerator),
        accelerator=accelerator,
        firmware=firmware,
        nics=(machine.Nic(mac=boot.mac, tap=boot.tap),),
        rtc_base=boot.rtc_base,
        smbios=list_emulation_settings() if accelerator == EMULATION else (),
    )


def _list_seeds(seed: Path | None) -> list[machine.Disk]:
    if seed is None:
        return []
    return [machine.Disk(path=seed / "seed.iso", format="raw", read_only=True)]
