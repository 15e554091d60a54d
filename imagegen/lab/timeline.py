"""From power-on to Ready: the record that ``up`` keeps as JSON and prints for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from imagegen.emit import emit_json
from imagegen.lab.progress import Event, NodeProgress

_COLUMNS = (
    ("kernel", (Event.KERNEL,)),
    ("cloud-init", (Event.CLOUD_INIT,)),
    ("services", (Event.ETCD, Event.API, Event.BALANCER, Event.KUBELET)),
    ("CSR", (Event.CSR,)),
    ("Ready", (Event.READY,)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One start of a lab. ``seconds`` runs from the first power-on until everything was ready, or None."""

    cluster: str
    kubernetes: str
    engine: str
    runs_on: str
    started_at: float
    seconds: float | None
    api_seconds: float | None
    nodes: Mapping[str, NodeProgress] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": 1,
            "cluster": self.cluster,
            "kubernetes": self.kubernetes,
            "engine": self.engine,
            "runs_on": self.runs_on,
            "started": datetime.fromtimestamp(self.started_at, UTC).isoformat(timespec="seconds"),
            "power_on": self.started_at,
            "api_seconds": self.api_seconds,
            "ready_seconds": self.seconds,
            "nodes": {name: node.as_dict() for name, node in self.nodes.items()},
        }

    def emit(self) -> str:
        return emit_json(self.as_dict())


def list_headings() -> tuple[str, ...]:
    """The headings of the table of nodes."""
    return ("node", "roles", "phase", *(name for name, _ in _COLUMNS), "units")


def list_rows(nodes: Iterable[NodeProgress]) -> list[tuple[str, ...]]:
    """One row a node: name, roles, phase, and the seconds after power-on at which each step was done."""
    return [
        (node.name, "+".join(node.roles), _tell_phase(node), *_list_times(node), _tell_units(node))
        for node in nodes
    ]


def _tell_units(node: NodeProgress) -> str:
    """How many units run, and which have failed; nothing as long as the node was not asked."""
    if not node.units_asked:
        return "…"
    return ", ".join(f"{name} failed" for name in node.failed_units) or f"{len(node.units)} ok"


def _tell_phase(node: NodeProgress) -> str:
    if node.trouble:
        return node.trouble
    return "done" if node.is_complete else node.phase


def _list_times(node: NodeProgress) -> Iterable[str]:
    for _, events in _COLUMNS:
        expected = [event for event in events if event in node.wanted or event in node.times]
        times = [node.times[event] for event in expected if event in node.times]
        # a node with several services has them all when the last one answers
        yield f"{max(times):.0f} s" if times and len(times) == len(expected) else "…" if expected else "-"


def render_table(nodes: Iterable[NodeProgress]) -> str:
    """The table as plain text."""
    rows = [list_headings(), *list_rows(nodes)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)
