"""The add-ons of the cluster: CoreDNS and, where the cluster file asks for it, flannel, as manifests and
images.

Masters get the manifests, which first boot applies; workers get the images, so that pods start without a
registry.
"""

from __future__ import annotations

from imagegen.emit import emit_yaml_documents
from imagegen.kubernetes.manifests.coredns import coredns
from imagegen.kubernetes.manifests.flannel import flannel
from imagegen.model.cluster import Cni, Layout, Node, ProxyMode, Role
from imagegen.plan.component import Context
from imagegen.plan.components.first_boot import ADDONS
from imagegen.plan.items import ContainerImage, File, Fragment, Item, Origin, Phase

_DNS_ORIGIN = Origin("component addons", reason="cluster DNS")
_FLANNEL_ORIGIN = Origin("component addons", reason="network.cni is flannel")

_NOTHING = Fragment()


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    items: list[Item] = []
    # With loopback alone no pod gets an address, so DNS pods would never be ready.
    if ctx.cluster.network.cni is not Cni.LOOPBACK:
        items += _plan_coredns(ctx, roles)
    if ctx.cluster.network.cni is Cni.FLANNEL:
        items += _plan_flannel(ctx, roles)
    return Fragment(tuple(items))


def plan_node(ctx: Context, node: Node) -> Fragment:
    """Nothing: add-ons do not differ from node to node."""
    return _NOTHING


def _plan_coredns(ctx: Context, roles: tuple[Role, ...]) -> list[Item]:
    network = ctx.cluster.network
    image = ctx.releases.image("coredns")
    items: list[Item] = []
    # kubeadm installs CoreDNS itself
    if Role.MASTER in roles and ctx.cluster.kubernetes.layout is not Layout.KUBEADM:
        text = emit_yaml_documents(coredns(image, network.dns, network.domain, ctx.gates))
        items.append(_manifest("20-coredns.yaml", text, _DNS_ORIGIN))
    if ctx.cluster.has_kubelet(roles):
        items.append(ContainerImage(phase=Phase.BAKE, origin=_DNS_ORIGIN, reference=image))
    return items


def _plan_flannel(ctx: Context, roles: tuple[Role, ...]) -> list[Item]:
    network = ctx.cluster.network
    image = ctx.releases.image("flannel")
    items: list[Item] = []
    if Role.MASTER in roles:
        objects = flannel(image, network.pods, nftables=network.proxy is ProxyMode.NFTABLES)
        items.append(_manifest("10-flannel.yaml", emit_yaml_documents(objects), _FLANNEL_ORIGIN))
    if ctx.cluster.has_kubelet(roles):
        items.append(ContainerImage(phase=Phase.BAKE, origin=_FLANNEL_ORIGIN, reference=image))
    return items


def _manifest(name: str, text: str, origin: Origin) -> File:
    return File(phase=Phase.BAKE, origin=origin, path=f"{ADDONS}/{name}", content=(text,))
