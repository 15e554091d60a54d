"""What the daemons' components plan for a set of roles, for their tests and for the judges of their units."""

from __future__ import annotations

from collections.abc import Iterator

from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import load_releases
from imagegen.model.cluster import Cluster, Role
from imagegen.plan.component import Component, Context
from imagegen.plan.components import (
    apiserver,
    containerd,
    controller_manager,
    etcd,
    kube_proxy,
    kubelet,
    scheduler,
)
from imagegen.plan.items import Item

COMPONENTS: tuple[Component, ...] = (
    etcd,
    apiserver,
    controller_manager,
    scheduler,
    containerd,
    kubelet,
    kube_proxy,
)
ALL_IN_ONE = (Role.ETCD, Role.MASTER, Role.WORKER)
ROLE_SETS = ((Role.ETCD,), (Role.MASTER,), (Role.WORKER,), (Role.LB,), (Role.BASE,), ALL_IN_ONE)


def make_context(cluster: Cluster) -> Context:
    version = cluster.kubernetes.version
    return Context(cluster=cluster, gates=load_gates(version), releases=load_releases(version))


def plan_items(cluster: Cluster, roles: tuple[Role, ...]) -> Iterator[Item]:
    """The shared items of all daemons on nodes with these roles."""
    ctx = make_context(cluster)
    for component in COMPONENTS:
        yield from component.plan_role(ctx, roles).items
