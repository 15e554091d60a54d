"""From the model to the Plan: runs every profile and component once a set of roles, merges, checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from imagegen.diagnostics import Report, Span
from imagegen.kubernetes.check import check_companions, check_extra_args, check_flannel, check_images
from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import load_releases
from imagegen.model.cluster import Cluster, Node, Role
from imagegen.model.systems import SYSTEMS
from imagegen.plan.check import check_node_items, check_role_items
from imagegen.plan.component import Component, Context
from imagegen.plan.components import (
    access,
    addons,
    apiserver,
    await_api,
    certificates,
    cni,
    containerd,
    controller_manager,
    csr_approver,
    docker,
    etcd,
    firewall,
    first_boot,
    flannel_etcd,
    host,
    identity,
    kube_proxy,
    kubeadm,
    kubelet,
    leanboot,
    load_balancer,
    node_dns,
    platform,
    preload,
    scheduler,
    settle,
    static_pods,
)
from imagegen.plan.fitting import fit_items
from imagegen.plan.items import Fragment, Item, Package, Port
from imagegen.plan.merge import (
    Opinion,
    Replacements,
    drop_contradicted,
    merge_node_items,
    merge_opinions,
    opinions_of,
)
from imagegen.plan.plan import NodePlan, Plan, RolePlan
from imagegen.plan.profiles import Profiles

#: every component, one concern each; the order decides whose origin an equal opinion keeps
COMPONENTS: tuple[Component, ...] = (
    identity,
    host,
    platform,
    leanboot,
    access,
    firewall,
    certificates,
    etcd,
    apiserver,
    controller_manager,
    scheduler,
    static_pods,
    kubeadm,
    containerd,
    docker,
    kubelet,
    await_api,
    kube_proxy,
    cni,
    flannel_etcd,
    load_balancer,
    node_dns,
    first_boot,
    csr_approver,
    addons,
    preload,
    settle,
)


def build_plan(cluster: Cluster, profiles: Profiles, report: Report) -> Plan | None:
    """The Plan of ``cluster``; None when a finding is an error.

    Every node shape (set of roles, static or DHCP) is merged and checked once here; the plan of each single
    node is made when it is asked for.
    """
    cni.check_cluster(cluster, report)
    builder = _Builder(cluster, profiles)
    check_companions(cluster, builder.ctx.gates, report)
    check_flannel(cluster, builder.ctx.gates, report)
    check_images(cluster, report)
    check_extra_args(cluster, builder.ctx.gates, report)
    role_plans = tuple(builder.build_role(roles, report) for roles in cluster.role_sets)
    if not report.has_errors:
        for node in _sample_nodes(cluster):
            builder.check_node(node, report)
    if report.has_errors:
        return None
    builder.replacements.report_idle(report)
    return Plan(cluster=cluster, role_plans=role_plans, _plan_node=builder.plan_node)


def plan_base(cluster: Cluster, profiles: Profiles) -> RolePlan:
    """What a machine of ``cluster`` has before it has any role: the plan of role ``base``.

    Only for a cluster and profiles that ``build_plan`` took.
    """
    return _Builder(cluster, profiles).build_role((Role.BASE,), Report())


class _Builder:
    """The shared state of one build: the context, and per set of roles the merged items by identity."""

    def __init__(self, cluster: Cluster, profiles: Profiles) -> None:
        version = cluster.kubernetes.version
        self.ctx = Context(cluster=cluster, gates=load_gates(version), releases=load_releases(version))
        self.facts = SYSTEMS[cluster.image.os]
        self.profiles = profiles
        self.replacements = Replacements()
        self._shared: dict[tuple[Role, ...], dict[tuple[str, str], Item]] = {}
        self._spans: dict[tuple[Role, ...], dict[tuple[str, str], Span]] = {}

    def build_role(self, roles: tuple[Role, ...], report: Report) -> RolePlan:
        opinions = list(self._fit_opinions(self.profiles.opinions(self.ctx.cluster, roles)))
        for component in COMPONENTS:
            opinions += opinions_of(self._fit(component.plan_role(self.ctx, roles)))
        opinions += opinions_of(firewall.plan_ruleset(self.ctx, roles, _merge_ports(opinions)))
        items = merge_opinions(opinions, report, self.replacements)
        spans = {o.item.identity: o.span for o in opinions if o.span is not None}
        has_foreign_packages = bool(self.ctx.cluster.image.packages) or any(
            isinstance(o.item, Package) and o.span is not None for o in opinions
        )
        check_role_items(roles, items, spans, report, has_foreign_packages=has_foreign_packages)
        self._spans[roles] = spans
        self._shared[roles] = {item.identity: item for item in items}
        return RolePlan(roles=roles, items=items)

    def _plan_fragments(self, node: Node) -> list[Fragment]:
        return [self._fit(component.plan_node(self.ctx, node)) for component in COMPONENTS]

    def _fit(self, fragment: Fragment) -> Fragment:
        return Fragment(fit_items(fragment.items, self.facts)) if fragment.items else fragment

    def _fit_opinions(self, opinions: Iterable[Opinion]) -> Iterator[Opinion]:
        """What shipped profiles say is fitted, too; what users wrote (it has a place) is not."""
        for opinion in opinions:
            if opinion.span is not None:
                yield opinion
            else:
                yield from (replace(opinion, item=item) for item in fit_items([opinion.item], self.facts))

    def plan_node(self, node: Node, role_plan: RolePlan) -> NodePlan:
        items = merge_node_items(self._shared[node.roles], self._plan_fragments(node), f"node {node.name}")
        return NodePlan(node=node, role_plan=role_plan, items=items)

    def check_node(self, node: Node, report: Report) -> None:
        """Merge and check one node with findings; a profile that contradicts what is per node gets IMG203."""
        shared = self._shared[node.roles]
        own = [item for fragment in self._plan_fragments(node) for item in fragment.items]
        own = drop_contradicted(own, shared, self._spans[node.roles], report)
        merge_opinions(map(Opinion, [*shared.values(), *own]), report, Replacements())
        check_node_items(node, own, shared, report)


def _merge_ports(opinions: Iterable[Opinion]) -> list[Port]:
    """The port table as it will be; what is wrong with it is found when everything is merged."""
    ports = [opinion for opinion in opinions if isinstance(opinion.item, Port)]
    merged = merge_opinions(ports, Report(), Replacements())
    return [item for item in merged if isinstance(item, Port)]


def _sample_nodes(cluster: Cluster) -> Iterable[Node]:
    """One node of each shape: its set of roles, and whether address and hardware address are known."""
    seen: dict[tuple[object, ...], Node] = {}
    for node in cluster.nodes:
        seen.setdefault((node.roles, node.address is None, node.mac is None), node)
    return seen.values()
