"""Names of nodes by DNS: CoreDNS on the load balancers, and resolvers that ask for names without a dot."""

from __future__ import annotations

from imagegen.emit import emit_unit
from imagegen.kubernetes import node_dns
from imagegen.kubernetes.units import UNPRIVILEGED, Daemon, emit_daemon_unit
from imagegen.model.cluster import Node, NodeDns, Role
from imagegen.model.systems import SYSTEMS
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.daemons import plan_account
from imagegen.plan.items import (
    Binary,
    Directory,
    File,
    Fragment,
    Item,
    Origin,
    Phase,
    Port,
    Unit,
)

UNIT = "coredns.service"
RESOLVER = "/etc/systemd/resolved.conf.d/20-imagegen-node-dns.conf"
_USER = "coredns"
_ORIGIN = Origin("component node_dns", reason="network.node_dns is lb: load balancers know the nodes by name")
_NOTHING = Fragment()


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if ctx.cluster.network.node_dns is not NodeDns.LB:
        return _NOTHING
    items: list[Item] = _plan_server(ctx) if Role.LB in roles else []
    if SYSTEMS[ctx.cluster.image.os].has_resolved:
        text = emit_unit([("Resolve", [("ResolveUnicastSingleLabel", "yes")])])
        items.append(File(phase=Phase.BAKE, origin=_ORIGIN, path=RESOLVER, content=(text,)))
    return Fragment(tuple(items))


def plan_node(ctx: Context, node: Node) -> Fragment:
    """Nothing: all load balancers answer the same; whom a node asks is in its network configuration."""
    return _NOTHING


def _plan_server(ctx: Context) -> list[Item]:
    part = ctx.releases.part(node_dns.COMPONENT)
    ports: list[Item] = [
        Port(
            phase=Phase.BAKE,
            origin=_ORIGIN,
            first=node_dns.PORT,
            last=node_dns.PORT,
            protocol=protocol,
            purpose="names of the nodes (DNS)",
            sources=(str(ctx.cluster.network.nodes),),
        )
        for protocol in ("tcp", "udp")
    ]
    return [
        Binary(
            phase=Phase.BAKE,
            origin=_ORIGIN,
            path="/usr/local/bin/coredns",
            part=part.name,
            version=part.version,
            member=part.member("coredns"),
        ),
        *plan_account(_ORIGIN, _USER, gecos="CoreDNS"),
        Directory(phase=Phase.BAKE, origin=_ORIGIN, path=node_dns.FOLDER),
        File(
            phase=Phase.BAKE,
            origin=_ORIGIN,
            path=node_dns.COREFILE,
            content=(node_dns.render_corefile(ctx.cluster),),
        ),
        File(
            phase=Phase.BOOT,
            origin=_ORIGIN,
            path=node_dns.HOSTS,
            content=(node_dns.render_hosts(ctx.cluster),),
        ),
        Unit(phase=Phase.BAKE, origin=_ORIGIN, name=UNIT, content=_emit_unit()),
        *ports,
    ]


def _emit_unit() -> str:
    return emit_daemon_unit(
        Daemon(
            description="DNS server for the names of the nodes",
            documentation="https://coredns.io/plugins/hosts/",
            type="exec",
            exec_start=f"/usr/local/bin/coredns -conf {node_dns.COREFILE}",
            user=_USER,
            needs=(paths.NODE_ENV, node_dns.HOSTS),
            environment_files=(paths.NODE_ENV,),
            resources=(("TasksMax", "256"), ("MemoryMax", "256M"), ("OOMScoreAdjust", "-500")),
            sandbox=(
                *UNPRIVILEGED,
                ("CapabilityBoundingSet", "CAP_NET_BIND_SERVICE"),
                ("AmbientCapabilities", "CAP_NET_BIND_SERVICE"),
            ),
        )
    )
