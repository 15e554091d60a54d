"""From the file to the cluster: every default that depends on other keys. Judges nothing; see ``checks``."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from imagegen.model.cluster import (
    Access,
    Addon,
    Bootstrap,
    Cluster,
    Endpoint,
    Image,
    Kubernetes,
    Network,
    Node,
    NodeTool,
    OperatingSystem,
    PkiPolicy,
    ProxyMode,
    Role,
    Runtime,
)
from imagegen.model.compatibility import CONTAINERD_FIRST, NFTABLES_KERNEL, NFTABLES_STABLE
from imagegen.model.document import ClusterFile
from imagegen.model.draft import Draft
from imagegen.model.systems import SYSTEMS

DEFAULT_PORT = 6443
#: in order of preference: the first that overlaps none of the other ranges becomes the default
SERVICE_RANGES = tuple(IPv4Network(r) for r in ("10.32.0.0/16", "172.20.0.0/16", "192.168.128.0/18"))
POD_RANGES = tuple(IPv4Network(r) for r in ("10.200.0.0/16", "172.28.0.0/16", "192.168.192.0/18"))

_ROLE_ORDER = {role: number for number, role in enumerate(Role)}
#: stands in when there is none to be found; ``checks`` reports it
NO_ENDPOINT = Endpoint(host="", port=DEFAULT_PORT)


@dataclass(frozen=True, slots=True)
class Resolved:
    """``moved``: the ranges whose default had to give way, by model path."""

    cluster: Cluster
    moved: tuple[str, ...]


def resolve_cluster(draft: Draft, file: str, profile_dirs: tuple[str, ...]) -> Resolved:
    """The complete cluster. ``profile_dirs`` are absolute."""
    document = draft.document
    nodes = _resolve_nodes(draft)
    network, moved = _resolve_network(document, nodes)
    version = document.kubernetes.version
    runtime = document.runtime
    if runtime is None:
        runtime = Runtime.CONTAINERD if version.minor >= CONTAINERD_FIRST else Runtime.DOCKER
    image = document.image
    cluster = Cluster(
        name=document.name,
        kubernetes=Kubernetes(
            version=version,
            layout=document.kubernetes.layout,
            extra_args=tuple(
                sorted(
                    (str(owner), tuple(sorted(a.items())))
                    for owner, a in document.kubernetes.extra_args.items()
                    if a
                )
            ),
        ),
        network=network,
        endpoint=document.control_plane.endpoint or _find_endpoint(nodes),
        runtime=runtime,
        pki=PkiPolicy(
            key=document.pki.key,
            ca_lifetime=document.pki.ca_lifetime,
            lifetime=document.pki.lifetime,
            certificates=document.pki.certificates,
        ),
        bootstrap=Bootstrap(
            method=document.bootstrap.method,
            token_lifetime=document.bootstrap.token_lifetime,
            approve_serving=document.bootstrap.approve_serving,
        ),
        image=Image(
            os=image.os,
            mode=image.mode,
            pki=image.pki,
            size_mib=image.size,
            firmware=image.firmware,
            formats=image.formats,
            snapshot=image.snapshot,
            packages=image.packages,
            tools=tuple(tool for tool in NodeTool if tool in image.tools),
            cpus=image.cpus,
            memory_mib=image.memory,
        ),
        targets=document.targets,
        access=Access(
            user=document.access.user,
            ssh_authorized_keys=tuple(key.strip() for key in document.access.ssh_authorized_keys),
        ),
        nodes=nodes,
        profile_dirs=profile_dirs,
        addons=tuple(addon for addon in Addon if addon in document.addons),
        file=file,
        spans=draft.spans,
    )
    return Resolved(cluster, moved)


def _resolve_nodes(draft: Draft) -> tuple[Node, ...]:
    orders: dict[tuple[Role, ...], tuple[Role, ...]] = {}
    nodes = []
    for number, entry in enumerate(draft.document.nodes):
        roles = orders.get(entry.roles)
        if roles is None:
            roles = orders[entry.roles] = tuple(sorted(set(entry.roles), key=_ROLE_ORDER.__getitem__))
        span = draft.spans.get(f"nodes[{number}]")
        nodes.append(Node(name=entry.name, roles=roles, address=entry.address, mac=entry.mac, span=span))
    return tuple(nodes)


def _resolve_network(document: ClusterFile, nodes: tuple[Node, ...]) -> tuple[Network, tuple[str, ...]]:
    wanted = document.network
    moved: list[str] = []
    services, pods = wanted.services, wanted.pods
    if services is None:
        services = _pick_range(SERVICE_RANGES, [wanted.nodes, *([pods] if pods else [])])
        if services != SERVICE_RANGES[0]:
            moved.append("network.services")
    if pods is None:
        pods = _pick_range(POD_RANGES, [wanted.nodes, services])
        if pods != POD_RANGES[0]:
            moved.append("network.pods")
    gateway = wanted.gateway or _default_gateway(wanted.nodes, nodes)
    nameservers = wanted.nameservers
    if "nameservers" not in wanted.model_fields_set and gateway is not None:
        nameservers = (gateway,)
    dns = wanted.dns
    if dns is None:
        dns = services[min(10, services.num_addresses - 1)]
    network = Network(
        nodes=wanted.nodes,
        gateway=gateway,
        nameservers=nameservers,
        services=services,
        pods=pods,
        dns=dns,
        domain=wanted.domain,
        cni=wanted.cni,
        proxy=wanted.proxy or default_proxy(document.kubernetes.version.minor, document.image.os),
        node_cidr_mask_size=wanted.node_cidr_mask_size,
        ntp_servers=wanted.ntp_servers,
        node_dns=wanted.node_dns,
        cluster_dns=wanted.cluster_dns,
    )
    return network, tuple(moved)


def _pick_range(candidates: tuple[IPv4Network, ...], taken: list[IPv4Network]) -> IPv4Network:
    """The first candidate that is free, else the first: the overlap is then reported."""
    return next((c for c in candidates if not any(c.overlaps(t) for t in taken)), candidates[0])


def _default_gateway(network: IPv4Network, nodes: tuple[Node, ...]) -> IPv4Address | None:
    if network.prefixlen > 30:
        return None
    first = network[1]
    return None if any(node.address == first for node in nodes) else first


def default_proxy(minor: int, system: OperatingSystem) -> ProxyMode:
    """nftables where Kubernetes calls it stable and the kernel has it, else iptables (KEP-3866)."""
    usable = minor >= NFTABLES_STABLE and SYSTEMS[system].kernel >= NFTABLES_KERNEL
    return ProxyMode.NFTABLES if usable else ProxyMode.IPTABLES


def _find_endpoint(nodes: tuple[Node, ...]) -> Endpoint:
    """The only load balancer, else the only master, else NO_ENDPOINT."""
    for role in (Role.LB, Role.MASTER):
        found = [node for node in nodes if role in node.roles]
        if len(found) == 1 and found[0].address is not None:
            return Endpoint(host=str(found[0].address), port=DEFAULT_PORT)
        if found:
            return NO_ENDPOINT
    return NO_ENDPOINT
