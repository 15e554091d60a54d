"""CoreDNS on a load balancer: answers for the names of the nodes, and passes the rest on.

Reference: the plug-ins ``hosts`` and ``forward`` (coredns.io/plugins), both in every CoreDNS of the table.
"""

from __future__ import annotations

from imagegen.model.cluster import Cluster

COMPONENT = "coredns"
FOLDER = "/etc/coredns"
COREFILE = f"{FOLDER}/Corefile"
HOSTS = f"{FOLDER}/hosts"
PORT = 53
_FALL_THROUGH = "        fallthrough\n"


def render_corefile(cluster: Cluster) -> str:
    """One server on the node's own address; systemd-resolved keeps the loopback one."""
    servers = " ".join(str(server) for server in cluster.network.nameservers)
    rest = f"    forward . {servers}\n" if servers else ""
    return (
        ".:53 {\n"
        "    bind {$NODE_ADDRESS}\n"
        "    errors\n"
        f"    hosts {HOSTS} {{\n"
        f"{_FALL_THROUGH if rest else ''}"
        "    }\n"
        f"{rest}"
        "    cache 30\n"
        "    reload\n"
        "}\n"
    )


def render_hosts(cluster: Cluster) -> str:
    """Every node with a fixed address. Nobody knows the others before they come; the API server reaches
    them by the address that they tell it.
    """
    return "".join(f"{node.address} {node.name}\n" for node in cluster.nodes if node.address is not None)
