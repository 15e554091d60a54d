"""The one port table: read from the same items that the packet filter is made of."""

from __future__ import annotations

from dataclasses import dataclass

from imagegen.plan.items import Port
from imagegen.plan.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRow:
    """One open port and the sets of roles (``etcd+master``) that open it. ``sources`` empty means anyone."""

    port: str
    protocol: str
    purpose: str
    sources: tuple[str, ...]
    roles: tuple[str, ...]


def list_ports(plan: Plan) -> tuple[PortRow, ...]:
    """Every open port of the plan, sorted by number; equal ports of several sets of roles are one row."""
    rows: dict[Port, list[str]] = {}
    for role_plan in plan.role_plans:
        for item in role_plan.items:
            if isinstance(item, Port):
                rows.setdefault(item, []).append(role_plan.name)
    return tuple(
        PortRow(
            port=port.identity[1].partition("/")[0],
            protocol=port.protocol,
            purpose=port.purpose,
            sources=port.sources,
            roles=tuple(roles),
        )
        for port, roles in sorted(
            rows.items(), key=lambda row: (row[0].first, row[0].last, row[0].protocol, row[0].sources)
        )
    )
