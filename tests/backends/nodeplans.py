"""Small hand-made plans: what a backend gets, without the rooms that make it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from imagegen.model.cluster import Cluster, ImageMode, OperatingSystem, Role, Target
from imagegen.pki.store import StoreError
from imagegen.plan.items import File, Item, Origin, Phase
from imagegen.plan.plan import NodePlan, Plan, RolePlan
from tests.pki.clusters import quickstart

BAKE, BOOT = Phase.BAKE, Phase.BOOT
ORIGIN = Origin("profiles/test.yaml", 7, "a test")


class FakeStore:
    """Secrets made up by name, or the given ones."""

    def __init__(self, **given: bytes) -> None:
        self.given = {name.replace("__", "/"): data for name, data in given.items()}

    def read(self, name: str) -> bytes:
        if name in self.given:
            return self.given[name]
        if name.startswith("missing"):
            raise StoreError(f"{name} is not there")
        return f"<{name}>\n".encode()


def make_cluster(
    *,
    mode: ImageMode = ImageMode.GOLDEN,
    os: OperatingSystem = OperatingSystem.DEBIAN_13,
    targets: Sequence[Target] = (Target.QEMU,),
) -> Cluster:
    """The quickstart cluster: etcd-0, master-0, worker-0, and worker-1 by DHCP."""
    cluster = quickstart()
    image = dataclasses.replace(cluster.image, mode=mode, os=os)
    return dataclasses.replace(cluster, image=image, targets=tuple(targets))


def make_file(path: str, *content: object, phase: Phase = BOOT, **settings: str) -> File:
    return File(phase=phase, origin=ORIGIN, path=path, content=content, **settings)  # type: ignore[arg-type]


def make_node_plan(
    cluster: Cluster, name: str, shared: Sequence[Item] = (), own: Sequence[Item] = ()
) -> NodePlan:
    node = cluster.node(name)
    return NodePlan(node=node, role_plan=RolePlan(roles=node.roles, items=tuple(shared)), items=tuple(own))


def make_plan(cluster: Cluster, shared: Sequence[Item] = (), own: Sequence[Item] = ()) -> Plan:
    """A plan in which all nodes hold the same items."""
    role_plans = tuple(RolePlan(roles=roles, items=tuple(shared)) for roles in cluster.role_sets)
    return Plan(
        cluster=cluster,
        role_plans=role_plans,
        _plan_node=lambda node, role: NodePlan(node=node, role_plan=role, items=tuple(own)),
    )


WORKER = (Role.WORKER,)
