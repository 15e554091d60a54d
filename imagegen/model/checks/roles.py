"""Whether the roles make up a cluster, and where its API is."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address

from imagegen.diagnostics import register_code
from imagegen.model.cluster import Cluster, Node, Role
from imagegen.model.resolve import DEFAULT_PORT, NO_ENDPOINT
from imagegen.model.review import Review

EVEN_ETCD = register_code(
    "IMG116",
    "an even number of etcd members",
    "etcd works while more than half of its members do. Two members stand fewer failures than one, "
    "four no more than three; use an odd number.",
)
MISSING_ROLE = register_code(
    "IMG117",
    "a role is missing that another role needs",
    "Masters need etcd, workers and load balancers need a master, etcd alone serves nobody. A cluster "
    "of `base` nodes only is fine, and so is one without workers.",
)
ROLES_APART = register_code(
    "IMG118",
    "roles cannot be on one node",
    "`base` means a prepared host without anything on it, so it goes with no other role. A load "
    "balancer listens on the port of the API server, so it cannot be on a master unless the endpoint "
    "has another port.",
)
NO_API = register_code(
    "IMG121",
    "it is not clear where the API is",
    "With one load balancer the API is there, else with one master on that master. Otherwise say "
    "control_plane.endpoint, usually a virtual address or a DNS name.",
)
BAD_ENDPOINT = register_code(
    "IMG122",
    "the endpoint does not lead to the API",
    "control_plane.endpoint is a DNS name, an address outside the cluster (a balancer of your own), a "
    "virtual address, or the address of a load balancer or master. A master listens on port 6443.",
)

# role → the role that must exist for it, and why
_NEEDS = (
    (Role.MASTER, Role.ETCD, "masters keep their state in etcd"),
    (Role.WORKER, Role.MASTER, "workers join a master"),
    (Role.LB, Role.MASTER, "a load balancer needs masters behind it"),
    (Role.ETCD, Role.MASTER, "etcd serves nobody without a master"),
)


def check_roles(review: Review) -> None:
    cluster = review.cluster
    count = {role: len(cluster.nodes_with(role)) for role in Role}
    for role, needed, reason in _NEEDS:
        if count[role] and not count[needed]:
            hint = f"add {needed.value} to the roles of a node"
            review.error(MISSING_ROLE, f"there is no {needed.value} node, but {reason}", "nodes", hint=hint)
    if count[Role.ETCD] and count[Role.ETCD] % 2 == 0:
        message = f"{count[Role.ETCD]} etcd members stand no more failures than {count[Role.ETCD] - 1}"
        review.warning(EVEN_ETCD, message, "nodes", hint="use an odd number")
    for number, node in enumerate(cluster.nodes):
        if len(node.roles) > 1:
            _check_together(review, number, node)
        written = review.draft.document.nodes[number].roles
        if len(written) != len(node.roles):
            twice = next(role for i, role in enumerate(written) if role in written[:i])
            message = f"the role {twice.value} is given twice"
            review.error(ROLES_APART, message, f"nodes[{number}].roles", hint="remove one")
    if count[Role.MASTER] or count[Role.LB]:
        _check_endpoint(review)


def _check_together(review: Review, number: int, node: Node) -> None:
    path = f"nodes[{number}].roles"
    if Role.BASE in node.roles:
        message = f"{review.label(number)} has the role base together with others"
        review.error(ROLES_APART, message, path, hint="remove base; every role includes it")
    if Role.LB in node.roles and Role.MASTER in node.roles and review.cluster.endpoint.port == DEFAULT_PORT:
        message = (
            f"{review.label(number)} is a load balancer and a master, and both listen on port {DEFAULT_PORT}"
        )
        review.error(ROLES_APART, message, path, hint="use two nodes", needs=["control_plane.endpoint"])


def _check_endpoint(review: Review) -> None:
    cluster, path = review.cluster, "control_plane.endpoint"
    endpoint = cluster.endpoint
    if endpoint == NO_ENDPOINT:
        _report_unclear(review, cluster)
        return
    if not review.is_written(path):
        return
    try:
        address = IPv4Address(endpoint.host)
    except AddressValueError:
        _check_endpoint_name(review)
        return
    network = cluster.network
    for name, inside in (("services", network.services), ("pods", network.pods)):
        if address in inside:
            message = f"endpoint {address} is in {name} {inside}, which nodes cannot reach while they start"
            review.error(BAD_ENDPOINT, message, path, also=[f"network.{name}"])
    number, node = next(((i, n) for i, n in enumerate(cluster.nodes) if n.address == address), (0, None))
    if node is None:
        return
    if Role.MASTER not in node.roles and Role.LB not in node.roles:
        message = (
            f"endpoint {address} is {review.label(number)}, which is neither a master nor a load balancer"
        )
        review.error(BAD_ENDPOINT, message, path, also=[f"nodes[{number}]"])
    elif Role.LB not in node.roles and endpoint.port != DEFAULT_PORT:
        message = f"endpoint {address}:{endpoint.port} is a master, which listens on port {DEFAULT_PORT}"
        review.error(
            BAD_ENDPOINT, message, path, also=[f"nodes[{number}]"], hint=f"write {address}:{DEFAULT_PORT}"
        )


def _check_endpoint_name(review: Review) -> None:
    """A worker of the endpoint's name would get a certificate for it and could answer for the API."""
    name = review.cluster.endpoint.host.removesuffix(f".{review.cluster.network.domain}")
    for number, node in enumerate(review.cluster.nodes):
        if node.name == name and Role.MASTER not in node.roles and Role.LB not in node.roles:
            message = f"endpoint {name} is the node {name}, which is neither a master nor a load balancer"
            review.error(BAD_ENDPOINT, message, "control_plane.endpoint", also=[f"nodes[{number}]"])


def _report_unclear(review: Review, cluster: Cluster) -> None:
    balancers, masters = cluster.nodes_with(Role.LB), cluster.nodes_with(Role.MASTER)
    several = balancers if len(balancers) > 1 else masters
    if len(several) < 2:
        return  # the one there is takes its address by DHCP, which is reported
    kind = "load balancers" if several is balancers else "masters and no load balancer"
    message = f"there are {len(several)} {kind}, wanted control_plane.endpoint"
    hint = f"for example control_plane: {{endpoint: {several[0].address}:{DEFAULT_PORT}}}"
    review.error(NO_API, message, "nodes", hint=hint, needs=["control_plane.endpoint"])
