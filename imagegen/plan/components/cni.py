"""Pod networking on workers: plug-ins and their configuration for loopback, bridge and flannel.

Where Docker's own bridge is the pod network, there is nothing to do here.

``bridge`` is static: every node's pod range follows from its address, and every node has a route to every
other range.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from imagegen.diagnostics import Report, register_code
from imagegen.emit import emit_json, emit_unit
from imagegen.kubernetes.docker import has_docker_network
from imagegen.kubernetes.manifests.flannel import VXLAN_PORT
from imagegen.kubernetes.units import UNPRIVILEGED
from imagegen.model.cluster import Cluster, Cni, Network, Node, Role
from imagegen.pki.paths import NODE_ENV
from imagegen.plan.component import Context
from imagegen.plan.components.first_boot import PROGRAMS, program
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

PLUGINS = "/opt/cni/bin"
CONFIGURATION = "/etc/cni/net.d"
ROUTES = "/etc/imagegen/pod-routes"
ROUTES_UNIT = "imagegen-pod-routes.service"

#: More routes than this belong to a routing daemon: every node's seed lists the ranges of all the others.
MAX_BRIDGE_NODES = 256

_CNI_VERSION = "1.0.0"
#: what flannel's own manifest says; its plug-in took no newer version for years
_FLANNEL_CNI_VERSION = "0.3.1"
_ORIGIN = Origin("component cni", reason="pods get their network as network.cni says")

BRIDGE_NEEDS_ADDRESS = register_code(
    "IMG420",
    "bridge networking needs static addresses",
    "With `cni: bridge` the other nodes reach a worker's pods by a static route through the worker's own "
    "address. A worker that takes its address by DHCP cannot be routed to. Give it an address, or choose "
    "`cni: flannel`.",
)
BRIDGE_RANGE_TOO_SMALL = register_code(
    "IMG421",
    "the pod range has no part for this worker",
    "With `cni: bridge` the worker with host number N in network.nodes gets part N of network.pods, so that "
    "no node's pods move when nodes come and go. The pod range, cut into parts of "
    "network.node_cidr_mask_size, must have more parts than the highest host number.",
)
BRIDGE_TOO_MANY_NODES = register_code(
    "IMG422",
    "too many workers for bridge networking",
    f"With `cni: bridge` every node carries a route to every worker, up to {MAX_BRIDGE_NODES} of them. "
    "Larger clusters need a network that distributes routes itself, such as `cni: flannel`.",
)

#: What each choice needs out of the plug-ins' release.
_PLUGINS_OF = {
    Cni.LOOPBACK: ("loopback",),
    Cni.BRIDGE: ("loopback", "bridge", "host-local", "portmap"),
    Cni.FLANNEL: ("loopback", "bridge", "host-local", "portmap"),
    Cni.FLANNEL_ETCD: ("loopback", "bridge", "host-local", "portmap"),
    # its own plug-in and the list of plug-ins come out of its image
    Cni.CALICO: ("loopback", "host-local", "portmap"),
}

_NOTHING = Fragment()


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    """Workers: plug-ins and configuration. Masters too get the pod routes of ``bridge``, for
    webhooks and the like.
    """
    cni = ctx.cluster.network.cni
    items: list[Item] = []
    if ctx.cluster.has_kubelet(roles) and not has_docker_network(ctx.cluster):
        items += _plan_plugins(ctx)
        if cni is Cni.LOOPBACK:
            items.append(_bake_file("99-loopback.conflist", loopback_conflist()))
        elif cni in (Cni.FLANNEL, Cni.FLANNEL_ETCD):
            items += _plan_flannel(ctx)
    has_daemon = cni is Cni.FLANNEL_ETCD and (Role.WORKER in roles or Role.MASTER in roles)
    if has_daemon or (cni is Cni.CALICO and ctx.cluster.has_kubelet(roles)):
        items.append(_keep_foreign_routes())
    if cni is Cni.BRIDGE and (Role.WORKER in roles or Role.MASTER in roles):
        items += _plan_routes(ctx.cluster)
    return Fragment(tuple(items))


def plan_node(ctx: Context, node: Node) -> Fragment:
    """Workers with ``bridge``: the configuration with this node's own pod range."""
    network = ctx.cluster.network
    if network.cni is not Cni.BRIDGE or not ctx.cluster.has_kubelet(node.roles) or node.address is None:
        return _NOTHING
    return Fragment(
        (
            File(
                phase=Phase.BOOT,
                origin=_ORIGIN,
                path=f"{CONFIGURATION}/10-bridge.conflist",
                content=(bridge_conflist(pod_range(network, node.address)),),
            ),
        )
    )


def check_cluster(cluster: Cluster, report: Report) -> None:
    """Whether ``bridge`` can route to every worker (IMG420, IMG421, IMG422)."""
    network = cluster.network
    if network.cni is not Cni.BRIDGE:
        return
    workers = cluster.kubelet_nodes
    if len(workers) > MAX_BRIDGE_NODES:
        report.error(
            BRIDGE_TOO_MANY_NODES,
            f"wanted at most {MAX_BRIDGE_NODES} workers with cni bridge, got {len(workers)}",
            cluster.span_of("network.cni"),
            hint="choose cni: flannel",
            path="network.cni",
        )
    for node in workers:
        if node.address is None:
            report.error(
                BRIDGE_NEEDS_ADDRESS,
                f"worker {node.name} takes its address by DHCP, which cni bridge cannot route to",
                node.span,
                hint="give it an address, or choose cni: flannel",
            )
        elif _part_number(network, node.address) >= _part_count(network):
            parts = f"{_part_count(network)} parts of /{network.node_cidr_mask_size}"
            report.error(
                BRIDGE_RANGE_TOO_SMALL,
                f"pod range {network.pods} has {parts}, worker {node.name} wants number "
                f"{_part_number(network, node.address)}",
                cluster.span_of("network.pods"),
                also=[node.span] if node.span else [],
                hint="choose a larger range, or smaller parts by node_cidr_mask_size",
            )


def pod_range(network: Network, address: IPv4Address) -> IPv4Network:
    """The pod range of the worker at ``address`` under ``bridge``; depends on no other node.

    Raises ValueError when the pod range has no such part (``check_cluster`` says so with a place).
    """
    number = _part_number(network, address)
    if not 0 <= number < _part_count(network):
        raise ValueError(f"{network.pods} has no part for {address}")
    mask = network.node_cidr_mask_size
    return IPv4Network((int(network.pods.network_address) + (number << (32 - mask)), mask))


def _part_number(network: Network, address: IPv4Address) -> int:
    return int(address) - int(network.nodes.network_address)


def _part_count(network: Network) -> int:
    return int(1 << max(0, network.node_cidr_mask_size - network.pods.prefixlen))


def loopback_conflist() -> str:
    """Pods get the loopback interface and nothing else."""
    return emit_json({"cniVersion": _CNI_VERSION, "name": "loopback", "plugins": [{"type": "loopback"}]})


def bridge_conflist(pods: IPv4Network) -> str:
    """A Linux bridge with addresses out of ``pods``; what leaves the range is masqueraded."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(pods)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return emit_json(
        {"cniVersion": _CNI_VERSION, "name": "bridge", "plugins": [bridge, _PORTMAP]},
    )


def flannel_conflist() -> str:
    """The flannel plug-in reads the node's range from the daemon's subnet file and drives ``bridge``."""
    delegate = {"hairpinMode": True, "isDefaultGateway": True}
    return emit_json(
        {
            "cniVersion": _FLANNEL_CNI_VERSION,
            "name": "cbr0",
            "plugins": [{"type": "flannel", "delegate": delegate}, _PORTMAP],
        }
    )


_PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def _plan_plugins(ctx: Context) -> list[Item]:
    part = ctx.releases.part("cni-plugins")
    return [
        Directory(phase=Phase.BAKE, origin=_ORIGIN, path=CONFIGURATION),
        *(
            Binary(
                phase=Phase.BAKE,
                origin=_ORIGIN,
                path=f"{PLUGINS}/{name}",
                part="cni-plugins",
                version=part.version,
                member=part.member(name),
            )
            for name in _PLUGINS_OF[ctx.cluster.network.cni]
        ),
    ]


def _plan_flannel(ctx: Context) -> list[Item]:
    part = ctx.releases.part("flannel-cni-plugin")
    return [
        Binary(
            phase=Phase.BAKE,
            origin=_ORIGIN,
            path=f"{PLUGINS}/flannel",
            part="flannel-cni-plugin",
            version=part.version,
            member=part.members[0],
        ),
        _bake_file("10-flannel.conflist", flannel_conflist()),
        _keep_foreign_routes(),
        plan_vxlan_port(ctx, _ORIGIN),
    ]


def plan_vxlan_port(ctx: Context, origin: Origin) -> Port:
    """Where flannel's nodes hand each other the traffic of pods."""
    return Port(
        phase=Phase.BAKE,
        origin=origin,
        first=VXLAN_PORT,
        last=VXLAN_PORT,
        protocol="udp",
        purpose="flannel: pod traffic between nodes (VXLAN)",
        sources=(str(ctx.cluster.network.nodes),),
    )


def _plan_routes(cluster: Cluster) -> list[Item]:
    return [
        program("pod-routes", _ORIGIN),
        _keep_foreign_routes(),
        Unit(phase=Phase.BAKE, origin=_ORIGIN, name=ROUTES_UNIT, content=_render_routes_unit()),
        File(phase=Phase.BOOT, origin=_ORIGIN, path=ROUTES, content=(_render_routes(cluster),)),
    ]


def _render_routes(cluster: Cluster) -> str:
    network = cluster.network
    routes = (
        f"{pod_range(network, node.address)} {node.address}\n"
        for node in cluster.kubelet_nodes
        if node.address is not None and _part_number(network, node.address) < _part_count(network)
    )
    return "# POD-RANGE NODE-ADDRESS: the routes of cni bridge; a node skips its own\n" + "".join(routes)


def _render_routes_unit() -> str:
    return emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Routes to the pods of the other nodes"),
                    ("After", "cloud-config.target network-online.target"),
                    ("Wants", "network-online.target"),
                    ("Before", "kubelet.service"),
                    ("ConditionPathExists", ROUTES),
                ],
            ),
            (
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    ("EnvironmentFile", NODE_ENV),
                    ("ExecStart", f"{PROGRAMS}/pod-routes {ROUTES}"),
                    ("Restart", "on-failure"),
                    ("RestartSec", "5s"),
                    *UNPRIVILEGED,
                    ("CapabilityBoundingSet", "CAP_NET_ADMIN"),
                ],
            ),
            ("Install", [("WantedBy", "multi-user.target")]),
        ]
    )


def _keep_foreign_routes() -> File:
    """networkd removes routes that it did not make whenever it configures a link again."""
    return File(
        phase=Phase.BAKE,
        origin=_ORIGIN,
        path="/etc/systemd/networkd.conf.d/50-imagegen-pod-routes.conf",
        content=(emit_unit([("Network", [("ManageForeignRoutes", "no")])]),),
    )


def _bake_file(name: str, text: str) -> File:
    return File(phase=Phase.BAKE, origin=_ORIGIN, path=f"{CONFIGURATION}/{name}", content=(text,))
