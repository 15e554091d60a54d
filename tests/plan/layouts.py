"""Plans of one cluster in each layout, of any minor."""

from __future__ import annotations

from pathlib import Path

from imagegen.content import Ref
from imagegen.diagnostics import Report
from imagegen.model.cluster import Cluster
from imagegen.plan.build import build_plan
from imagegen.plan.items import File, Item
from imagegen.plan.plan import Plan
from imagegen.plan.profiles import load_profiles
from tests.kubernetes.clusters import make_cluster

#: one node of every kind, and two masters behind a load balancer
NODES = (
    "{name: etcd-0, roles: [etcd], address: 10.240.0.10}",
    "{name: master-0, roles: [master], address: 10.240.0.11}",
    "{name: master-1, roles: [master], address: 10.240.0.12}",
    "{name: both-0, roles: [master, worker], address: 10.240.0.13}",
    "{name: worker-0, roles: [worker], address: 10.240.0.21}",
    "{name: lb-0, roles: [lb], address: 10.240.0.31}",
)
#: etcd on the masters
STACKED = (
    "{name: master-0, roles: [etcd, master], address: 10.240.0.11}",
    "{name: master-1, roles: [etcd, master], address: 10.240.0.12}",
    "{name: master-2, roles: [etcd, master], address: 10.240.0.13}",
    "{name: worker-0, roles: [worker], address: 10.240.0.21}",
    "{name: lb-0, roles: [lb], address: 10.240.0.31}",
)


def plan_layout(folder: Path, minor: str, layout: str, *, nodes: tuple[str, ...] = NODES) -> Plan:
    """The plan; no finding is an error."""
    cluster, _ = make_cluster(folder, minor, layout=layout, nodes=nodes)
    return plan_cluster(cluster)


def plan_cluster(cluster: Cluster) -> Plan:
    report = Report()
    plan = build_plan(cluster, load_profiles((), report), report)
    assert plan is not None, report.render_text()
    return plan


def list_items(plan: Plan, node: str) -> tuple[Item, ...]:
    """Everything on one node, shared and its own."""
    found = plan.node_plan(node)
    return (*found.role_plan.items, *found.items)


def read_file(plan: Plan, node: str, path: str) -> str:
    """The text of a file with ``<NAME>`` for what comes out of the secret store; raises KeyError."""
    for item in list_items(plan, node):
        if isinstance(item, File) and item.path == path:
            return "".join(f"<{p.name}>" if isinstance(p, Ref) else str(p) for p in item.content)
    raise KeyError(path)
