"""How far each node is on its way from power-on to Ready, read from its console, its ports and the API.

Times are seconds since the node's own power-on. Pure but for what the caller hands in.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagegen.lab.console import CLOUD_INIT_FINISHED
from imagegen.model.cluster import Node, Role


class Event(enum.StrEnum):
    """What happens to a node, in order; not every node meets every event."""

    FIRMWARE = "firmware"
    KERNEL = "kernel"
    USERSPACE = "user space"
    CLOUD_INIT = "cloud-init"
    ETCD = "etcd"
    API = "API"
    BALANCER = "balancer"
    KUBELET = "kubelet"
    CSR = "CSR"
    READY = "Ready"


#: port at which a role's main service answers
SERVICE_PORTS = {
    Role.ETCD: (Event.ETCD, 2379),
    Role.MASTER: (Event.API, 6443),
    Role.WORKER: (Event.KUBELET, 10250),
}

_SIGNS = (
    (Event.KERNEL, re.compile(r"\[ +\d+\.\d{6}\]|Linux version ")),
    (Event.USERSPACE, re.compile(r"Cloud-init v\. |\] systemd\[1\]|systemd-[a-z-]+\[\d+\]| login: ")),
    (Event.CLOUD_INIT, re.compile(re.escape(CLOUD_INIT_FINISHED))),
)


#: asks a node for its services: name, state, microseconds from its start until active. The clock of a
#: container runs since this machine's start, so the first line says when its own was.
UNITS_COMMAND = (
    "if systemd-detect-virt --quiet --container; then"
    " systemctl show --property=UserspaceTimestampMonotonic; fi;"
    " systemctl show --all --property=Id,ActiveState,ActiveEnterTimestampMonotonic '*.service'"
    """ | awk -v RS= '{gsub("\\n", " "); print}'"""
)


@dataclass(slots=True, kw_only=True)
class NodeProgress:
    """One node. ``times`` holds the first time of each event, in seconds; ``trouble`` what went wrong."""

    name: str
    roles: tuple[Role, ...]
    address: str
    #: a master may run pods without being a worker
    has_kubelet: bool = False
    #: seconds since 1970 at which the node was switched on
    power_on: float = 0.0
    times: dict[Event, float] = field(default_factory=dict)
    trouble: str = ""
    cpu_seconds: float = 0.0
    #: seconds after the start of the kernel (a container: of its systemd) at which a unit became active
    units: dict[str, float] = field(default_factory=dict)
    failed_units: tuple[str, ...] = ()
    #: whether the node was asked for its units in this look
    units_asked: bool = False

    def note(self, event: Event, seconds: float) -> None:
        """Remember the first time of an event."""
        self.times.setdefault(event, round(seconds, 1))

    def has(self, event: Event) -> bool:
        return event in self.times

    @property
    def wanted(self) -> tuple[Event, ...]:
        """What must have happened before this node has done its part."""
        return list_wanted(self.roles, has_kubelet=self.has_kubelet)

    @property
    def is_complete(self) -> bool:
        return all(event in self.times for event in self.wanted)

    @property
    def phase(self) -> str:
        """The last event in order, as one word for people."""
        if self.trouble:
            return "failed"
        met = [event for event in Event if event in self.times]
        return met[-1].value if met else "power on"

    def as_dict(self) -> dict[str, Any]:
        return {
            "roles": [role.value for role in self.roles],
            "address": self.address,
            "power_on": self.power_on,
            "events": {event.value: self.times[event] for event in Event if event in self.times},
            "units": dict(sorted(self.units.items(), key=lambda pair: pair[1])),
            "failed_units": list(self.failed_units),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "trouble": self.trouble,
        }


def list_services(roles: tuple[Role, ...], *, has_kubelet: bool = False) -> tuple[tuple[Event, int], ...]:
    """The events of a node's services, each with the port at which the service answers."""
    own = (*roles, Role.WORKER) if has_kubelet else roles
    return tuple(SERVICE_PORTS[role] for role in dict.fromkeys(own) if role in SERVICE_PORTS)


def list_wanted(roles: tuple[Role, ...], *, has_kubelet: bool = False) -> tuple[Event, ...]:
    """The events that a node with these roles must meet; workers have a kubelet in any case."""
    wanted = [Event.CLOUD_INIT]
    wanted += [event for event, _ in list_services(roles, has_kubelet=has_kubelet)]
    if Role.LB in roles:
        wanted.append(Event.BALANCER)
    if Role.WORKER in roles or has_kubelet:
        wanted.append(Event.READY)
    return tuple(wanted)


def start_progress(node: Node, address: str, power_on: float, *, has_kubelet: bool) -> NodeProgress:
    """A node that was switched on at ``power_on``, in seconds since 1970."""
    return NodeProgress(
        name=node.name, roles=node.roles, address=address, power_on=power_on, has_kubelet=has_kubelet
    )


def recall_progress(progress: NodeProgress, kept: Mapping[str, Any]) -> bool:
    """Take over what an earlier look at the same start has kept; whether it was the same start."""
    if kept.get("power_on") != progress.power_on:
        return False
    names = {event.value: event for event in Event}
    progress.times |= {names[name]: seconds for name, seconds in kept["events"].items() if name in names}
    progress.units |= kept["units"]
    progress.failed_units = tuple(kept["failed_units"])
    return True


def read_console(progress: NodeProgress, text: str, seconds: float) -> None:
    """Note what the console shows ``seconds`` after power-on.

    cloud-init says its last words at every start, not only at the first.
    """
    if text.strip():
        progress.note(Event.FIRMWARE, seconds)
    for event, pattern in _SIGNS:
        if pattern.search(text):
            progress.note(event, seconds)


def read_units(progress: NodeProgress, text: str) -> None:
    """Take what ``UNITS_COMMAND`` printed."""
    failed = []
    start = 0
    for line in text.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split() if "=" in word)
        start = int(words.get("UserspaceTimestampMonotonic") or start)
        name, stamp = words.get("Id", ""), words.get("ActiveEnterTimestampMonotonic", "0")
        if words.get("ActiveState") == "failed":
            failed.append(name)
        if name and stamp.isdigit() and stamp != "0":
            progress.units[name] = round((int(stamp) - start) / 1e6, 1)
    progress.failed_units = tuple(sorted(failed))
    progress.units_asked = bool(progress.units)
