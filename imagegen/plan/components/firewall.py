"""The packet filter of a set of roles, generated from its port table.

Knows nftables; by itself it opens nothing but ICMP, DHCP and pod interfaces.

It owns the table ``inet imagegen`` and touches no other, so it lives beside kube-proxy, flannel and Calico.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from imagegen.emit import emit_unit
from imagegen.model.cluster import Cluster, Cni, Node, ProxyMode, Role
from imagegen.model.systems import SYSTEMS
from imagegen.plan.component import Context
from imagegen.plan.items import File, Fragment, Origin, Package, Phase, Port, Unit, UnitState
from imagegen.plan.sandbox import list_sandbox

RULESET = "/etc/imagegen/firewall.nft"
SERVICE = "imagegen-firewall.service"
_TABLE = "inet imagegen"

_NOTHING = Fragment()
_ORIGIN = Origin("component firewall", reason="only the ports of the port table answer")
_POD_INTERFACES = {
    Cni.LOOPBACK: (),
    Cni.BRIDGE: ("cni0",),
    Cni.FLANNEL: ("cni0", "flannel.1"),
    Cni.FLANNEL_ETCD: ("cni0", "docker0", "flannel.1"),
    Cni.CALICO: ("cali*", "tunl0", "vxlan.calico"),
}


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    distribution = Origin(
        "component firewall", reason="the distribution's unit flushes the rules of kube-proxy and of the CNI"
    )
    return Fragment(
        (
            Package(phase=Phase.BAKE, origin=_ORIGIN, name="nftables"),
            Unit(phase=Phase.BAKE, origin=_ORIGIN, name=SERVICE, content=_SERVICE_UNIT),
            Unit(
                phase=Phase.BAKE,
                origin=distribution,
                name="nftables.service",
                content=None,
                state=UnitState.MASKED,
            ),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def plan_ruleset(ctx: Context, roles: tuple[Role, ...], ports: Iterable[Port]) -> Fragment:
    """The ruleset file for the merged ports of all components and profiles of ``roles``."""
    text = emit_ruleset(ctx.cluster, roles, sorted(set(ports), key=lambda p: (p.protocol, p.first, p.last)))
    return Fragment((File(phase=Phase.BAKE, origin=_ORIGIN, path=RULESET, content=(text,), mode="0640"),))


def emit_ruleset(cluster: Cluster, roles: tuple[Role, ...], ports: Sequence[Port]) -> str:
    """nftables text. Loading it again replaces the table in one transaction: no moment is without rules."""
    pods = cluster.has_kubelet(roles)
    rules = list(_ALWAYS)
    if pods:
        rules += [f'iifname "{name}" accept' for name in _POD_INTERFACES[cluster.network.cni]]
        if cluster.network.cni is Cni.CALICO:
            rules.append(f"ip protocol ipencap ip saddr {cluster.network.nodes} accept")
        if cluster.network.proxy is ProxyMode.IPVS:
            # IPVS takes service traffic on the way in, where the other modes forward it.
            clients = f"{cluster.network.nodes}, {cluster.network.pods}"
            rules.append(f"ip saddr {{ {clients} }} ip daddr {cluster.network.services} accept")
    rules += [rule for port in ports for rule in _emit_port(port)]
    priority = "filter" if SYSTEMS[cluster.image.os].has_named_priorities else "0"
    chains = [_emit_chain("input", priority, rules)]
    if not pods:
        chains.append(_emit_chain("forward", priority, ()))
    return f"table {_TABLE}\ndelete table {_TABLE}\n\ntable {_TABLE} {{\n" + "\n".join(chains) + "}\n"


_ALWAYS = (
    'iif "lo" accept',
    "ct state established,related accept",
    "ct state invalid drop",
    "icmp type { destination-unreachable, echo-request, parameter-problem, time-exceeded } accept",
    "meta l4proto ipv6-icmp accept",
    "udp sport 67 udp dport 68 accept",
    "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
)


def _emit_chain(hook: str, priority: str, rules: Iterable[str]) -> str:
    head = f"type filter hook {hook} priority {priority}; policy drop;"
    return f"\tchain {hook} {{\n" + "".join(f"\t\t{line}\n" for line in (head, *rules)) + "\t}\n"


def _emit_port(port: Port) -> list[str]:
    numbers = port.identity[1].partition("/")[0]
    rule = f'{port.protocol} dport {numbers} accept comment "{port.purpose}"'
    if not port.sources:
        return [rule]
    # nft refuses a set whose ranges overlap
    networks = [ip_network(source) for source in port.sources]
    narrow = collapse_addresses(n for n in networks if isinstance(n, IPv4Network))
    wide = collapse_addresses(n for n in networks if isinstance(n, IPv6Network))
    return [
        f"{family} saddr {{ {sources} }} {rule}"
        for family, sources in (("ip", ", ".join(map(str, narrow))), ("ip6", ", ".join(map(str, wide))))
        if sources
    ]


# Loaded before the network is up; stopping it removes our table and nothing else.
_SERVICE_UNIT = emit_unit(
    [
        (
            "Unit",
            [
                ("Description", "Packet filter of this node"),
                ("DefaultDependencies", "no"),
                ("Wants", "network-pre.target"),
                ("Before", "network-pre.target shutdown.target"),
                ("After", "local-fs.target systemd-modules-load.service"),
                ("Conflicts", "shutdown.target"),
                ("ConditionPathExists", RULESET),
            ],
        ),
        (
            "Service",
            [
                ("Type", "oneshot"),
                ("RemainAfterExit", "yes"),
                ("ExecStart", f"/usr/sbin/nft -f {RULESET}"),
                ("ExecReload", f"/usr/sbin/nft -f {RULESET}"),
                ("ExecStop", f"/usr/sbin/nft delete table {_TABLE}"),
                *list_sandbox(capabilities="CAP_NET_ADMIN", families="AF_NETLINK", has_network=True),
            ],
        ),
        ("Install", [("WantedBy", "sysinit.target")]),
    ]
)
