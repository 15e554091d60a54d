"""Who a node is: the environment file that units read, and the names of the control plane.

cloud-init sets the host name.
"""

from __future__ import annotations

from imagegen.model.cluster import Cluster, Node, Role
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.items import Directory, File, Fragment, Origin, Phase

_ENV = Origin("component identity", reason="units learn the node's name and address from it")
_HOSTS = Origin(
    "component identity",
    reason="the control plane is found by name without DNS; other workers are left out on purpose",
)
_FOLDER = Fragment(
    (
        Directory(
            phase=Phase.BAKE,
            origin=Origin("component identity", reason="imagegen's own files on a machine"),
            path="/etc/imagegen",
        ),
    )
)
_HOSTS_HEAD = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""
_CONTROL_PLANE = (Role.ETCD, Role.MASTER, Role.LB)


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    return _FOLDER


def plan_node(ctx: Context, node: Node) -> Fragment:
    env = f"NODE_NAME={node.name}\n"
    if node.address is not None:
        env += f"NODE_ADDRESS={node.address}\n"
    return Fragment(
        (
            File(phase=Phase.BOOT, origin=_ENV, path=paths.NODE_ENV, content=(env,)),
            File(
                phase=Phase.BOOT, origin=_HOSTS, path="/etc/hosts", content=(list_hosts(ctx.cluster, node),)
            ),
        )
    )


def list_hosts(cluster: Cluster, node: Node) -> str:
    """``/etc/hosts`` of one node: itself, and every node with a control-plane role and a fixed address."""
    own = f"{node.address or '127.0.1.1'} {node.name}\n"
    peers = {peer.name: peer.address for role in _CONTROL_PLANE for peer in cluster.nodes_with(role)}
    rows = [f"{address} {name}\n" for name, address in peers.items() if address and name != node.name]
    return "".join([_HOSTS_HEAD, own, *rows])
