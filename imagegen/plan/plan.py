"""The Plan: what every machine of one cluster must contain, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from imagegen.model.cluster import Cluster, Node, Role
from imagegen.plan.items import Item, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePlan:
    """The items that all nodes of one set of roles share, merged, in canonical order (kind, key)."""

    roles: tuple[Role, ...]
    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        return "+".join(self.roles)

    def of_phase(self, phase: Phase) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.phase is phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One node: the shared items of its roles and its own, which are always of phase ``boot``."""

    node: Node
    role_plan: RolePlan
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Immutable. Node plans are made when asked for, so a plan of 10,000 nodes never holds them all."""

    cluster: Cluster
    role_plans: tuple[RolePlan, ...]
    _plan_node: Callable[[Node, RolePlan], NodePlan] = field(repr=False, compare=False)

    def role_plan(self, roles: tuple[Role, ...]) -> RolePlan:
        """The shared plan of a set of roles; raises KeyError."""
        for plan in self.role_plans:
            if plan.roles == roles:
                return plan
        raise KeyError(roles)

    def node_plan(self, name: str) -> NodePlan:
        """The plan of one node; raises KeyError."""
        node = self.cluster.node(name)
        return self._plan_node(node, self.role_plan(node.roles))

    def node_plans(self) -> Iterator[NodePlan]:
        by_roles = {plan.roles: plan for plan in self.role_plans}
        for node in self.cluster.nodes:
            yield self._plan_node(node, by_roles[node.roles])
