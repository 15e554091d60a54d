"""Nodes against each other and against the node range: names, addresses, network cards."""

from __future__ import annotations

from imagegen.diagnostics import register_code
from imagegen.model.checks.network import is_edge
from imagegen.model.cluster import Node, Role
from imagegen.model.refusals import BAD_NAME
from imagegen.model.review import Review

DUPLICATE_NAME = register_code(
    "IMG110",
    "two nodes have the same name",
    "A node's name is its host name, its name in Kubernetes and the name of its folder in the output.",
)
DUPLICATE_ADDRESS = register_code(
    "IMG111", "two nodes have the same address", "Each static address belongs to one node."
)
DUPLICATE_MAC = register_code(
    "IMG112",
    "two nodes have the same MAC address",
    "The MAC address finds the network card of one node; two cards with one address on one network do "
    "not work.",
)
BAD_ADDRESS = register_code(
    "IMG113",
    "a node's address does not fit the network",
    "A static address lies in network.nodes and is not its network or broadcast address, nor the gateway's.",
)
NEEDS_STATIC = register_code(
    "IMG119",
    "a node needs a fixed address",
    "etcd members, masters and load balancers are named by address in certificates and in the "
    "configuration of other nodes, so they cannot take their address by DHCP. Workers and base nodes "
    "can.",
)
ANONYMOUS_CARD = register_code(
    "IMG120",
    "DHCP nodes cannot be told apart",
    "A node with a dynamic address is found by its MAC address: in the DHCP server's list, and by the "
    "lab. With several such nodes, give each its mac.",
)

#: a node of that name could answer for the API server, or for itself on every machine
_TAKEN_NAMES = frozenset({"kubernetes", "localhost"})
_STATIC_ROLES = (Role.ETCD, Role.MASTER, Role.LB)


def check_nodes(review: Review) -> None:
    nodes = review.cluster.nodes
    names: dict[str, int] = {}
    addresses: dict[object, int] = {}
    macs: dict[str, int] = {}
    for number, node in enumerate(nodes):
        first = names.setdefault(node.name, number)
        if first != number:
            _report_twice(review, DUPLICATE_NAME, f"name {node.name}", number, first, "name")
        if node.name in _TAKEN_NAMES or node.name.isdigit():
            message = f"{node.name} cannot be the name of a node, because it already means something else"
            review.error(BAD_NAME, message, f"nodes[{number}].name", hint=f"for example node-{node.name}")
        if node.address is None:
            _check_dynamic(review, number, node)
        else:
            first = addresses.setdefault(node.address, number)
            if first != number:
                _report_twice(review, DUPLICATE_ADDRESS, f"address {node.address}", number, first, "address")
            _check_address(review, number, node)
        if node.mac is not None:
            first = macs.setdefault(node.mac, number)
            if first != number:
                _report_twice(review, DUPLICATE_MAC, f"mac {node.mac}", number, first, "mac")
    dynamic = [number for number, node in enumerate(nodes) if node.address is None]
    anonymous = [number for number in dynamic if nodes[number].mac is None]
    if len(dynamic) > 1 and anonymous:
        others = f" and {len(anonymous) - 1} more" if len(anonymous) > 1 else ""
        message = f"of {len(dynamic)} DHCP nodes, {nodes[anonymous[0]].name}{others} cannot be told by a mac"
        path = f"nodes[{anonymous[0]}].address"
        review.warning(ANONYMOUS_CARD, message, path, hint='add mac: "52:54:00:…"', needs=["nodes"])


def _report_twice(review: Review, code: str, what: str, number: int, first: int, key: str) -> None:
    message = f"{what} is given twice, also to {review.label(first)}"
    if key == "name":
        message = f"{what} is given twice"
    review.error(code, message, f"nodes[{number}].{key}", also=[f"nodes[{first}].{key}"])


def _check_dynamic(review: Review, number: int, node: Node) -> None:
    needing = [role.value for role in _STATIC_ROLES if role in node.roles]
    if needing:
        message = (
            f"{review.label(number)} has the role {' and '.join(needing)}, wanted a fixed address, got dhcp"
        )
        hint = f"an address in {review.cluster.network.nodes}"
        path = f"nodes[{number}].address"
        review.error(NEEDS_STATIC, message, path, hint=hint, needs=[f"nodes[{number}].roles"])


def _check_address(review: Review, number: int, node: Node) -> None:
    network, address = review.cluster.network, node.address
    assert address is not None
    problem, also = "", "network.nodes"
    if address not in network.nodes:
        problem = f"address {address} of {review.label(number)} is not in nodes {network.nodes}"
    elif address == network.gateway:
        problem, also = f"address {address} of {review.label(number)} is the gateway's", "network.gateway"
    elif edge := is_edge(address, network.nodes):
        problem = (
            f"address {address} of {review.label(number)} is the {edge} address of nodes {network.nodes}"
        )
    if problem:
        review.error(BAD_ADDRESS, problem, f"nodes[{number}].address", also=[also])
