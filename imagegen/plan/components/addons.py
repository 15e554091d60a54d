"""The add-ons of the cluster as manifests and images: CoreDNS, flannel or Calico, metrics-server, a sample.

Masters get the manifests, which first boot applies; workers get the images, so that pods start without a
registry.
"""

from __future__ import annotations

from collections.abc import Sequence

from imagegen.content import Content, Ref
from imagegen.emit import emit_yaml_documents
from imagegen.kubernetes.manifests import calico, metrics_server
from imagegen.kubernetes.manifests.coredns import coredns
from imagegen.kubernetes.manifests.fit import fit_objects
from imagegen.kubernetes.manifests.flannel import flannel
from imagegen.kubernetes.manifests.objects import Manifest
from imagegen.kubernetes.manifests.sample import sample
from imagegen.model.cluster import Addon, ClusterDns, Cni, Layout, Node, ProxyMode, Role
from imagegen.pki import spec
from imagegen.plan.component import Context
from imagegen.plan.components.first_boot import ADDONS
from imagegen.plan.items import ContainerImage, File, Fragment, Item, Origin, Phase, Port

_DNS_ORIGIN = Origin("component addons", reason="cluster DNS")
_FLANNEL_ORIGIN = Origin("component addons", reason="network.cni is flannel")
_CALICO_ORIGIN = Origin("component addons", reason="network.cni is calico")
_METRICS_ORIGIN = Origin("component addons", reason="addons has metrics-server")
_SAMPLE_ORIGIN = Origin("component addons", reason="addons has sample")

_NOTHING = Fragment()


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    cluster = ctx.cluster
    items: list[Item] = []
    # With loopback alone no pod gets an address, so DNS pods would never be ready.
    if cluster.network.cni is not Cni.LOOPBACK and cluster.network.cluster_dns is ClusterDns.COREDNS:
        items += _plan_coredns(ctx, roles)
    if cluster.network.cni is Cni.FLANNEL:
        items += _plan_flannel(ctx, roles)
    if cluster.network.cni is Cni.CALICO:
        items += _plan_calico(ctx, roles)
    if Addon.METRICS_SERVER in cluster.addons:
        items += _plan_metrics_server(ctx, roles)
    if Addon.SAMPLE in cluster.addons and Role.MASTER in roles:
        objects = sample(ctx.releases.image("coredns"))
        items.append(_manifest(ctx, "90-sample.yaml", objects, _SAMPLE_ORIGIN))
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
        objects = coredns(image, network.dns, network.domain, ctx.gates)
        items.append(_manifest(ctx, "20-coredns.yaml", objects, _DNS_ORIGIN))
    if ctx.cluster.has_kubelet(roles):
        items.append(ContainerImage(phase=Phase.BAKE, origin=_DNS_ORIGIN, reference=image))
    return items


def _plan_flannel(ctx: Context, roles: tuple[Role, ...]) -> list[Item]:
    network = ctx.cluster.network
    image = ctx.releases.image("flannel")
    items: list[Item] = []
    if Role.MASTER in roles:
        endpoint = ctx.cluster.endpoint
        api = (endpoint.host, endpoint.port)
        nftables = network.proxy is ProxyMode.NFTABLES
        objects = flannel(image, network.pods, api, ctx.gates, nftables=nftables)
        items.append(_manifest(ctx, "10-flannel.yaml", objects, _FLANNEL_ORIGIN))
    if ctx.cluster.has_kubelet(roles):
        items.append(ContainerImage(phase=Phase.BAKE, origin=_FLANNEL_ORIGIN, reference=image))
    return items


def _plan_calico(ctx: Context, roles: tuple[Role, ...]) -> list[Item]:
    network = ctx.cluster.network
    images = [ctx.releases.image(name) for name in calico.IMAGES]
    items: list[Item] = []
    if Role.MASTER in roles:
        node, cni = images
        nftables = network.proxy is ProxyMode.NFTABLES
        objects = calico.calico(node, cni, network.pods, ctx.gates, nftables=nftables)
        items.append(_manifest(ctx, "10-calico.yaml", objects, _CALICO_ORIGIN))
    if ctx.cluster.has_kubelet(roles):
        items += [
            ContainerImage(phase=Phase.BAKE, origin=_CALICO_ORIGIN, reference=image) for image in images
        ]
        items.append(
            Port(
                phase=Phase.BAKE,
                origin=_CALICO_ORIGIN,
                first=calico.BGP_PORT,
                last=calico.BGP_PORT,
                protocol="tcp",
                purpose="Calico: routes between nodes (BGP)",
                sources=(str(network.nodes),),
                by_pod=True,
            )
        )
    return items


def _plan_metrics_server(ctx: Context, roles: tuple[Role, ...]) -> list[Item]:
    image = ctx.releases.image("metrics-server")
    items: list[Item] = []
    if Role.MASTER in roles:
        objects = metrics_server.metrics_server(image, ctx.gates)
        items.append(_manifest(ctx, "31-metrics-server.yaml", objects, _METRICS_ORIGIN))
        items.append(
            File(
                phase=Phase.BOOT,
                origin=_METRICS_ORIGIN,
                path=f"{ADDONS}/30-metrics-server-trust.yaml",
                content=_trust_content(ctx),
                mode="0600",
            )
        )
    if ctx.cluster.has_kubelet(roles):
        items.append(ContainerImage(phase=Phase.BAKE, origin=_METRICS_ORIGIN, reference=image))
        items.append(
            Port(
                phase=Phase.BAKE,
                origin=_METRICS_ORIGIN,
                first=metrics_server.PORT,
                last=metrics_server.PORT,
                protocol="tcp",
                purpose="metrics-server, asked by API servers",
                sources=(str(ctx.cluster.network.nodes),),
                by_pod=True,
            )
        )
    return items


def _trust_content(ctx: Context) -> Content:
    """The Secret and the APIService, with references in the places of their base64."""
    refs = {
        metrics_server.CA_MARK: Ref(f"{spec.CLUSTER_CA}.crt", public=True, encoding="base64"),
        metrics_server.CERTIFICATE_MARK: Ref(f"{spec.METRICS_SERVER}.crt", public=True, encoding="base64"),
        metrics_server.KEY_MARK: Ref(f"{spec.METRICS_SERVER}.key", encoding="base64"),
    }
    parts: list[str | bytes | Ref] = [
        emit_yaml_documents(fit_objects(metrics_server.metrics_server_trust(), ctx.gates))
    ]
    for mark, ref in refs.items():
        (at,) = (number for number, part in enumerate(parts) if isinstance(part, str) and mark in part)
        before, after = str(parts[at]).split(mark)
        parts[at : at + 1] = [before, ref, after]
    return tuple(parts)


def _manifest(ctx: Context, name: str, objects: Sequence[Manifest], origin: Origin) -> File:
    text = emit_yaml_documents(fit_objects(objects, ctx.gates))
    return File(phase=Phase.BAKE, origin=origin, path=f"{ADDONS}/{name}", content=(text,))
