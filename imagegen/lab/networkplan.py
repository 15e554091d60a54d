"""What the lab's private network must be for a cluster: addresses, leases, names, relays. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, ip_address
from typing import Any

from imagegen.errors import UsageError
from imagegen.model.cluster import Cluster, Node, Role

BRIDGE = "br0"
#: where clouds answer; asked here, it answers at once instead of letting programs wait
METADATA_ADDRESS = "169.254.169.254"
_GCE_NAME = "metadata.google.internal"
#: names under which distributions look for the time
_TIME_NAMES = ("pool.ntp.org", "ntp.ubuntu.com")
#: addresses of DHCP nodes are looked for from here on, counted from the start of the range
_FIRST_LEASE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What DHCP gives to one card."""

    mac: str
    address: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the metadata server tells the machine with this address; as on Compute Engine.

    ``attributes`` maps a key (``user-data``) to the path of the file that holds its value.
    """

    address: str
    hostname: str
    instance_id: str
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Connections to ``port`` at ``address`` go to the first of ``targets`` that takes them. An empty
    address: the port of 127.0.0.1 of this machine, outside the network; 0 is any free port.
    """

    port: int
    targets: tuple[tuple[str, int], ...]
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """One private network. ``addresses`` are the bridge's own, such as ``10.240.0.1/24``; the first is the
    gateway. ``names`` maps DNS names (with everything below them) to addresses.
    """

    addresses: tuple[str, ...]
    taps: tuple[str, ...] = ()
    leases: tuple[Lease, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    relays: tuple[Relay, ...] = ()
    metadata: tuple[Metadata, ...] = ()
    #: seconds that the time server is ahead of this machine
    clock_offset: float = 0.0
    #: tap of each node
    tap_of: dict[str, str] = field(default_factory=dict)
    address_of: dict[str, str] = field(default_factory=dict)
    mac_of: dict[str, str] = field(default_factory=dict)

    @property
    def gateway(self) -> str:
        return self.addresses[0].partition("/")[0]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan_network(cluster: Cluster, *, api_port: int = 0, clock_offset: float = 0.0) -> NetworkPlan:
    """The network in which this cluster can live.

    The bridge takes the gateway's address, and those of name servers, time servers and an endpoint that no
    node has. ``api_port`` is where the API is reached from this machine. Raises UsageError when the range
    of nodes has no address left for a DHCP node.
    """
    nodes = cluster.nodes
    macs = {node.name: node.mac or _make_mac(number) for number, node in enumerate(nodes)}
    addresses = {node.name: str(node.address) for node in nodes if node.address is not None}
    free = _list_free(cluster)
    leases = []
    for node in nodes:
        if node.address is None:
            address = _take(free, node)
            addresses[node.name] = address
            leases.append(Lease(mac=macs[node.name], address=address, name=node.name))
    gateway = str(cluster.network.gateway) if cluster.network.gateway is not None else _take(free, None)
    own, names, relays = _plan_services(cluster, addresses, gateway)
    api = _list_api_targets(cluster, addresses)
    length = cluster.network.nodes.prefixlen
    in_range = [f"{a}/{length}" for a in own if ip_address(a) in cluster.network.nodes]
    others = [f"{a}/32" for a in own if ip_address(a) not in cluster.network.nodes]
    return NetworkPlan(
        addresses=(*in_range, *others),
        taps=tuple(f"tap{number}" for number in range(len(nodes))),
        leases=tuple(leases),
        names=names,
        relays=(*([Relay(port=api_port, targets=api)] if api else []), *relays),
        clock_offset=clock_offset,
        tap_of={node.name: f"tap{number}" for number, node in enumerate(nodes)},
        address_of=addresses,
        mac_of=macs,
    )


def _make_mac(number: int) -> str:
    """A card of QEMU's own range; the second half is away from macs that people make up."""
    return f"52:54:00:1a:{number >> 8:02x}:{number & 255:02x}"


def _list_free(cluster: Cluster) -> Iterator[str]:
    network = cluster.network
    taken = {node.address for node in cluster.nodes} | {network.gateway, *network.nameservers}
    first = min(_FIRST_LEASE, network.nodes.num_addresses // 2)
    size = network.nodes.num_addresses
    for offset in [*range(first, size - 1), *range(1, first)]:
        address = network.nodes[offset]
        if address not in taken and str(address) != cluster.endpoint.host:
            yield str(address)


def _take(free: Iterator[str], node: Node | None) -> str:
    address = next(free, None)
    if address is None:
        who = f"node {node.name}" if node is not None else "the lab's gateway"
        raise UsageError(f"the range of nodes has no address left for {who}")
    return address


def _is_address(text: str) -> bool:
    try:
        return isinstance(ip_address(text), IPv4Address)
    except ValueError:
        return False


def _plan_services(
    cluster: Cluster, addresses: dict[str, str], gateway: str
) -> tuple[list[str], tuple[tuple[str, str], ...], tuple[Relay, ...]]:
    """The bridge's addresses, the names that DNS knows, and relays for an endpoint that is no node's."""
    of_nodes = set(addresses.values())
    own = [gateway, *(str(a) for a in cluster.network.nameservers)]
    names = dict.fromkeys(_TIME_NAMES, gateway) | {_GCE_NAME: METADATA_ADDRESS}
    for server in cluster.network.ntp_servers:
        if _is_address(server):
            own.append(server)
        elif server != _GCE_NAME:
            names[server] = gateway
    names |= addresses
    relays: tuple[Relay, ...] = ()
    endpoint = cluster.endpoint
    targets = _list_masters(cluster, addresses)
    outer = _list_api_targets(cluster, addresses)
    if outer and not _is_address(endpoint.host):
        names[endpoint.host] = outer[0][0]
    elif targets and endpoint.host not in of_nodes:
        own.append(endpoint.host)
        relays = (Relay(address=endpoint.host, port=endpoint.port, targets=targets),)
    own.append(METADATA_ADDRESS)
    kept = [a for a in dict.fromkeys(own) if a not in of_nodes]
    return kept, tuple(sorted(names.items())), relays


def _list_masters(cluster: Cluster, addresses: dict[str, str]) -> tuple[tuple[str, int], ...]:
    return tuple((addresses[node.name], 6443) for node in cluster.nodes_with(Role.MASTER))


def _list_api_targets(cluster: Cluster, addresses: dict[str, str]) -> tuple[tuple[str, int], ...]:
    """The endpoint when a node has it, else the load balancers, else the masters; none without masters."""
    endpoint = cluster.endpoint
    if endpoint.host in set(addresses.values()):
        return ((endpoint.host, endpoint.port),)
    balancers = cluster.nodes_with(Role.LB)
    if balancers and not _is_address(endpoint.host):
        return tuple((addresses[node.name], endpoint.port) for node in balancers)
    return _list_masters(cluster, addresses)
