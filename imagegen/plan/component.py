"""What a component is: two pure functions from the model to a Fragment, and what they may read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.releases import Releases
from imagegen.model.cluster import Cluster, Node, Role
from imagegen.plan.items import Fragment


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything that a component may read. ``gates`` and ``releases`` are those of the cluster's version."""

    cluster: Cluster
    gates: Gates
    releases: Releases


class Component(Protocol):
    """A module of ``plan.components``. Roles come in declaration order; what ``plan_node`` gives is boot."""

    __name__: str

    def plan_role(self, ctx: Context, roles: tuple[Role, ...]) -> Fragment:
        """What all nodes with these roles share. Bake items do not depend on the list of nodes."""
        ...

    def plan_node(self, ctx: Context, node: Node) -> Fragment:
        """What this one node needs on top; cheap, because it runs for each of up to 10,000 nodes."""
        ...
