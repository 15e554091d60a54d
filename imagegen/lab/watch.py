"""Watches a lab come up: consoles, ports, the API; keeps the times."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from imagegen.errors import ImagegenError
from imagegen.lab.api import ApiError
from imagegen.lab.console import find_trouble, last_lines
from imagegen.lab.errors import BootFailureError
from imagegen.lab.progress import (
    UNITS_COMMAND,
    Event,
    NodeProgress,
    list_services,
    read_console,
    read_units,
    recall_progress,
    start_progress,
)
from imagegen.lab.timeline import Timeline, render_table
from imagegen.model.cluster import Role

if TYPE_CHECKING:
    from imagegen.lab.cluster import LabCluster

_LOOK_SECONDS = 1.0
#: questions to the API cost the emulated master time
_ASK_SECONDS = 3.0
_PROBE_SECONDS = 2.0
_SHOWN_LINES = 40

OnChange = Callable[["Watch"], None]


class Watch:
    """How far a lab is. ``look`` brings it up to date."""

    def __init__(self, lab: LabCluster) -> None:
        self.lab = lab
        self.nodes: dict[str, NodeProgress] = {
            node.name: start_progress(
                node,
                lab.address_of(node.name),
                self._power_on(node.name),
                has_kubelet=lab.cluster.has_kubelet(node.roles),
            )
            for node in lab.nodes
        }
        self.started_at = min((m.started_at for m in lab.machines.values()), default=time.time())
        self.api_seconds: float | None = None
        self.ready_seconds: float | None = None
        self._last_asked = 0.0
        self._recall()

    def _power_on(self, name: str) -> float:
        machine = self.lab.machines.get(name)
        return machine.started_at if machine is not None else 0.0

    def _recall(self) -> None:
        """Take over the times that an earlier look at the same starts has kept."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            kept = json.loads(self.lab.folder.timeline.read_text(encoding="utf-8"))
            new = [p for p in self.nodes.values() if not recall_progress(p, kept["nodes"].get(p.name, {}))]
            if not new:
                self.started_at = kept["power_on"]
                self.api_seconds, self.ready_seconds = kept["api_seconds"], kept["ready_seconds"]
            else:
                # after a restart of some nodes, it is their way back that is timed
                self.started_at = min(progress.power_on for progress in new)

    def save(self) -> None:
        """Keep the timeline beside the lab's state; it appears complete or not at all."""
        path = self.lab.folder.timeline
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(self.timeline().emit(), encoding="utf-8")
        partial.replace(path)

    @property
    def seconds(self) -> float:
        """Since the first power-on."""
        return time.time() - self.started_at

    def look(self) -> None:
        """Look at every console, at ports that have not answered yet, and at the API."""
        for progress in self.nodes.values():
            self._look_at_node(progress)
        if time.monotonic() - self._last_asked >= _ASK_SECONDS:
            self._ask_api()
            self._last_asked = time.monotonic()

    @property
    def is_complete(self) -> bool:
        """Whether every node has met every event that is expected of it."""
        return all(progress.is_complete for progress in self.nodes.values())

    @property
    def has_trouble(self) -> bool:
        return any(progress.trouble for progress in self.nodes.values())

    def ask_units(self, timeout: float = 60.0) -> None:
        """Ask every node that can be logged in to when its units became active, and which failed."""
        asked = [progress for progress in self.nodes.values() if progress.has(Event.CLOUD_INIT)]
        if asked:
            with ThreadPoolExecutor(max_workers=len(asked)) as pool:
                list(pool.map(lambda progress: self._ask_units(progress, timeout), asked))

    def _ask_units(self, progress: NodeProgress, timeout: float) -> None:
        with contextlib.suppress(ImagegenError):
            done = self.lab.ssh(progress.name, UNITS_COMMAND, timeout=timeout, check=False)
            read_units(progress, done.stdout)

    def timeline(self) -> Timeline:
        return Timeline(
            cluster=self.lab.cluster.name,
            kubernetes=str(self.lab.cluster.kubernetes.version),
            engine=self.lab.engine.name,
            runs_on=self.lab.engine.describe(),
            started_at=self.started_at,
            seconds=None if self.ready_seconds is None else round(self.ready_seconds, 1),
            api_seconds=None if self.api_seconds is None else round(self.api_seconds, 1),
            nodes=self.nodes,
        )

    def _look_at_node(self, progress: NodeProgress) -> None:
        machine = self.lab.machines.get(progress.name)
        if machine is None:
            progress.trouble = "off"
            return
        seconds = time.time() - machine.started_at
        text = machine.read_console()
        read_console(progress, text, seconds)
        progress.cpu_seconds = machine.cpu_seconds() or progress.cpu_seconds
        trouble = find_trouble(text)
        if trouble is not None:
            progress.trouble = trouble
        elif not machine.is_alive():
            progress.trouble = "ended"
        elif progress.has(Event.KERNEL):
            self._probe(progress, seconds)

    def _probe(self, progress: NodeProgress, seconds: float) -> None:
        ports = list(list_services(progress.roles, has_kubelet=progress.has_kubelet))
        if Role.LB in progress.roles:
            ports.append((Event.BALANCER, self.lab.cluster.endpoint.port))
        for event, port in ports:
            if not progress.has(event):
                with contextlib.suppress(OSError):
                    self.lab.network.connect(progress.address, port, _PROBE_SECONDS).close()
                    progress.note(event, seconds)

    def _ask_api(self) -> None:
        if not any(p.has(Event.API) for p in self.nodes.values()):
            return
        api = self.lab.api
        if self.api_seconds is None:
            if not api.is_ready():
                return
            self.api_seconds = self.seconds
        with contextlib.suppress(ApiError):
            self._note_nodes()
            if any(p.has_kubelet and not p.has(Event.CSR) for p in self.nodes.values()):
                for request in api.list_requests():
                    machine = self.lab.machines.get(request.node)
                    if request.kind != "client" or not request.issued or machine is None:
                        continue
                    # a node that was replaced has requests of an earlier life
                    if request.node in self.nodes and request.age < time.time() - machine.started_at:
                        self._note(request.node, Event.CSR)

    def _note_nodes(self) -> None:
        for name, condition in self.lab.api.list_nodes().items():
            machine = self.lab.machines.get(name)
            if name not in self.nodes or machine is None:
                continue
            # Ready outlives a power cut: only a heartbeat of this start counts
            if condition.ready and condition.heartbeat_age < time.time() - machine.started_at:
                self._note(name, Event.READY)

    def _note(self, name: str, event: Event) -> None:
        self.nodes[name].note(event, time.time() - self.lab.machines[name].started_at)


def watch_lab(
    watch: Watch,
    timeout: float,
    *,
    nodes: Sequence[str] | None = None,
    on_change: OnChange = lambda watch: None,
) -> Timeline:
    """Look once a second until the nodes are complete; ``on_change`` is told after every look.

    Writes the timeline beside the lab's state, however it ends. Raises BootFailureError when a node cannot
    boot, and after ``timeout`` seconds with what is missing.
    """
    wanted = [watch.nodes[name] for name in nodes] if nodes is not None else list(watch.nodes.values())
    needs_api = any(Role.WORKER in p.roles or Role.MASTER in p.roles for p in wanted)
    deadline = time.monotonic() + timeout
    try:
        while True:
            watch.look()
            done = all(p.is_complete for p in wanted) and (watch.api_seconds is not None or not needs_api)
            if done and watch.ready_seconds is None:
                watch.ready_seconds = watch.seconds
            on_change(watch)
            if done:
                return watch.timeline()
            failed = next((p for p in wanted if p.trouble), None)
            if failed is not None:
                raise _tell_trouble(watch, failed)
            if time.monotonic() >= deadline:
                raise _tell_timeout(watch, wanted, timeout)
            time.sleep(_LOOK_SECONDS)
    finally:
        watch.save()


def _console_of(watch: Watch, name: str) -> str:
    machine = watch.lab.machines.get(name)
    return last_lines(machine.read_console(), _SHOWN_LINES) if machine is not None else ""


def _tell_trouble(watch: Watch, progress: NodeProgress) -> BootFailureError:
    return BootFailureError(
        f"{progress.name} does not come up: {progress.trouble}\n{_console_of(watch, progress.name)}",
        hint=f"its whole console is {watch.lab.folder.console(progress.name)}",
    )


def _tell_timeout(watch: Watch, wanted: Sequence[NodeProgress], timeout: float) -> BootFailureError:
    late = [p for p in wanted if not p.is_complete]
    lines = [f"the cluster is not ready after {timeout:g} s", render_table(watch.nodes.values()).rstrip()]
    for progress in late[:1]:
        missing = ", ".join(event.value for event in progress.wanted if not progress.has(event))
        lines.append(f"{progress.name} lacks {missing}; the last lines of its console:")
        lines.append(_console_of(watch, progress.name))
    name = late[0].name if late else next(iter(watch.nodes))
    file = watch.lab.cluster.file
    return BootFailureError(
        "\n".join(lines),
        hint=f"consoles are in {watch.lab.folder.consoles}; look around with: "
        f"imagegen ssh {file} {name} -- sudo journalctl -b -p warning; stop with: imagegen down {file}",
    )
