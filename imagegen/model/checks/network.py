"""Ranges against each other, and the addresses that belong into them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

from imagegen.diagnostics import Severity, register_code
from imagegen.model.cluster import Cni
from imagegen.model.review import Review

OVERLAP = register_code(
    "IMG104",
    "two address ranges overlap",
    "Nodes, services and pods need ranges of their own: an address in two of them is reached in one of"
    " the two ways only. Change one of the ranges; private ranges are 10.0.0.0/8, 172.16.0.0/12 and "
    "192.168.0.0/16.",
)
RANGE_SIZE = register_code(
    "IMG123",
    "an address range has the wrong size",
    "Every worker gets one piece of network.pods, with the prefix length network.node_cidr_mask_size, so "
    "there must be enough pieces. A service range has at most 20 bits (/12), which every version of the API "
    "server takes, and the DNS service needs the tenth address. network.nodes must have room for the nodes.",
)
BAD_GATEWAY = register_code(
    "IMG124",
    "the gateway or a name server cannot be reached that way",
    "The gateway is an address in network.nodes that no node has. Name servers lie outside the ranges "
    "of pods and services, because nodes need them before there are any.",
)
BAD_DNS = register_code(
    "IMG115",
    "the DNS service address is not usable",
    "network.dns is an address in network.services, but not the first one (that is the API server's), "
    "nor the network or broadcast address.",
)
MOVED = register_code(
    "IMG127",
    "a default range gave way to another range",
    "network.services or network.pods was not given, and the usual default overlaps a range of this "
    "cluster, so another private range was taken. Write it into the file to make it explicit.",
)
NO_POD_NETWORK = register_code(
    "IMG128",
    "pods cannot talk to each other",
    "The CNI choice `loopback` gives pods no network at all. With workers that is rarely wanted.",
)

_FREE = tuple(
    IPv4Network(r)
    for r in ("10.32.0.0/16", "10.64.0.0/10", "10.200.0.0/16", "172.20.0.0/16", "192.168.128.0/17")
)


def check_network(review: Review) -> None:
    _check_overlaps(review)
    _check_sizes(review)
    _check_dns(review)
    _check_gateway(review)
    _check_reach(review)
    for path in review.moved:
        name = path.removeprefix("network.")
        chosen = getattr(review.cluster.network, name)
        message = f"{name} were not given and are {chosen}, because the usual default overlaps another range"
        review.add(Severity.NOTE, MOVED, message, "network", hint=f"write {name}: {chosen}", needs=[path])


def _check_overlaps(review: Review) -> None:
    network = review.cluster.network
    ranges = {"nodes": network.nodes, "services": network.services, "pods": network.pods}
    for one, other in combinations(ranges, 2):
        if not ranges[one].overlaps(ranges[other]):
            continue
        # point at the one that the user wrote later and can change more easily
        first, second = (one, other) if review.is_written(f"network.{other}") else (other, one)
        used = [r for name, r in ranges.items() if name != second]
        free = next((f for f in _FREE if not any(f.overlaps(u) for u in used)), None)
        hint = (
            f"choose a range that no host uses, for example {free}"
            if free
            else "choose a range that no host uses"
        )
        message = f"{second} {ranges[second]} overlaps {first} {ranges[first]}"
        review.error(OVERLAP, message, f"network.{second}", hint=hint, also=[f"network.{first}"])


def _check_sizes(review: Review) -> None:
    network, nodes = review.cluster.network, review.cluster.nodes
    if network.nodes.prefixlen > 30:
        message = f"nodes {network.nodes} has no room for nodes"
        review.error(RANGE_SIZE, message, "network.nodes", hint="for example a /24")
    elif len(nodes) > network.nodes.num_addresses - 2:
        message = (
            f"nodes {network.nodes} has {network.nodes.num_addresses - 2} addresses, wanted {len(nodes)}"
        )
        review.error(RANGE_SIZE, message, "network.nodes", needs=["nodes"])
    if network.services.prefixlen < 12:
        message = f"services {network.services} is too large, wanted /12 or smaller"
        review.error(RANGE_SIZE, message, "network.services", hint="a /16 has 65,534 services")
    if network.services.prefixlen > 28:
        message = f"services {network.services} is too small, wanted /28 or larger"
        review.error(RANGE_SIZE, message, "network.services", hint="a /16 is usual")
    mask, prefix = network.node_cidr_mask_size, network.pods.prefixlen
    at = "network.node_cidr_mask_size" if review.is_written("network.node_cidr_mask_size") else "network.pods"
    both = ("network.pods", "network.node_cidr_mask_size")
    if prefix > mask:
        message = f"pods {network.pods} cannot be cut into pieces of /{mask}, wanted a larger range"
        review.error(RANGE_SIZE, message, at, needs=both)
        return
    workers = len(review.cluster.kubelet_nodes)
    if workers > 1 << (mask - prefix):
        pieces = 1 << (mask - prefix)
        message = f"pods {network.pods} has {pieces} pieces of /{mask}, wanted {workers}, one a node"
        need = mask - (workers - 1).bit_length()
        review.error(RANGE_SIZE, message, "network.pods", hint=f"a /{need} is enough", needs=(*both, "nodes"))
    if mask > 25:
        message = f"a node gets {(1 << (32 - mask)) - 2} pod addresses, but the kubelet runs up to 110 pods"
        review.warning(RANGE_SIZE, message, at, hint="a /24 is usual", needs=both)


def _check_dns(review: Review) -> None:
    network = review.cluster.network
    if not review.is_written("network.dns"):
        return
    problem = ""
    if network.dns not in network.services:
        problem = f"dns {network.dns} is not in services {network.services}"
    elif network.dns == network.api_service:
        problem = f"dns {network.dns} is the address of the API server, the first of services"
    elif network.dns in (network.services.network_address, network.services.broadcast_address):
        problem = f"dns {network.dns} is the network or broadcast address of services {network.services}"
    if problem:
        hint = f"for example {network.services[min(10, network.services.num_addresses - 2)]}"
        review.error(BAD_DNS, problem, "network.dns", hint=hint, also=["network.services"])


def is_edge(address: IPv4Address, network: IPv4Network) -> str:
    """``network`` or ``broadcast`` when ``address`` is that address of ``network``, else nothing."""
    if network.prefixlen > 30:
        return ""
    if address == network.network_address:
        return "network"
    return "broadcast" if address == network.broadcast_address else ""


def _check_gateway(review: Review) -> None:
    network = review.cluster.network
    if network.gateway is None and network.nodes.prefixlen <= 30:
        message = f"there is no gateway: a node has {network.nodes[1]}, the first address of nodes"
        review.warning(
            BAD_GATEWAY, message, "network", hint="give network.gateway", needs=["nodes", "network.gateway"]
        )
    elif network.gateway is not None and review.is_written("network.gateway"):
        edge = is_edge(network.gateway, network.nodes)
        if network.gateway not in network.nodes:
            message = f"gateway {network.gateway} is not in nodes {network.nodes}"
            review.error(BAD_GATEWAY, message, "network.gateway", also=["network.nodes"])
        elif edge:
            message = f"gateway {network.gateway} is the {edge} address of nodes {network.nodes}"
            review.error(BAD_GATEWAY, message, "network.gateway", also=["network.nodes"])
    if not review.is_written("network.nameservers"):
        return
    for number, server in enumerate(network.nameservers):
        for name, inside in (("services", network.services), ("pods", network.pods)):
            if server in inside:
                message = (
                    f"name server {server} is in {name} {inside}, which nodes cannot reach while they start"
                )
                path = f"network.nameservers[{number}]"
                review.error(BAD_GATEWAY, message, path, also=[f"network.{name}"])


def _check_reach(review: Review) -> None:
    cni, workers = review.cluster.network.cni, len(review.cluster.kubelet_nodes)
    if cni is Cni.LOOPBACK and workers:
        message = "cni loopback gives pods no network"
        review.warning(NO_POD_NETWORK, message, "network.cni", hint="use flannel", needs=["nodes"])
