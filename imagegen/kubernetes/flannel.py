"""flanneld as a daemon of the machine, with its subnets in etcd: flags, the network's configuration, etcdctl.

A flannel before 0.19 speaks version 2 of etcd's API, which etcd serves by default up to 3.3.
"""

from __future__ import annotations

from imagegen.emit import emit_json
from imagegen.kubernetes.arguments import Arguments, FromEnvironment
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.manifests.flannel import VXLAN_PORT
from imagegen.model.cluster import Cluster, ProxyMode
from imagegen.pki import paths

COMPONENT = "flannel"
#: flannel's own default; the key below it is ``config``
PREFIX = "/coreos.com/network"
#: ETCD_ENDPOINTS: what depends on the list of nodes
ENVIRONMENT = f"{paths.FLANNEL}/flanneld.env"
NETWORK_FILE = "/etc/etcd/flannel-network.json"
#: where mk-docker-opts.sh puts the flags of dockerd, and under which name
DOCKER_ENVIRONMENT = "/run/flannel/docker"
DOCKER_VARIABLE = "DOCKER_NETWORK_OPTIONS"

_CLIENT = "https://127.0.0.1:2379"


def uses_etcd_v2(gates: Gates) -> bool:
    """Whether this flannel reads and writes etcd by version 2 of its API."""
    return not gates.has(COMPONENT, "etcd API v3")


def flanneld_arguments() -> Arguments:
    """Every flag. With DHCP the address is empty, which means the interface of the default route."""
    return {
        "etcd-cafile": paths.FLANNEL_ETCD_CA,
        "etcd-certfile": f"{paths.FLANNEL_ETCD_CLIENT}.crt",
        "etcd-endpoints": FromEnvironment("ETCD_ENDPOINTS"),
        "etcd-keyfile": f"{paths.FLANNEL_ETCD_CLIENT}.key",
        "etcd-prefix": PREFIX,
        "iface": FromEnvironment("NODE_ADDRESS"),
        "ip-masq": "true",
        "subnet-file": "/run/flannel/subnet.env",
    }


def network_config(cluster: Cluster) -> str:
    """What flannel finds in etcd. The range is the controller manager's ``--cluster-cidr``."""
    network = cluster.network
    return emit_json(
        {
            "Network": str(network.pods),
            "SubnetLen": network.node_cidr_mask_size,
            "EnableNFTables": network.proxy is ProxyMode.NFTABLES,
            "Backend": {"Type": "vxlan", "Port": VXLAN_PORT},
        }
    )


def write_network_command(gates: Gates) -> str:
    """A shell command on an etcd member that writes the configuration, unless some member already did."""
    key, stem = f"{PREFIX}/config", paths.ETCD_HEALTHCHECK_CLIENT
    if uses_etcd_v2(gates):
        etcdctl = (
            f"ETCDCTL_API=2 /usr/local/bin/etcdctl --endpoints {_CLIENT} --ca-file {paths.ETCD_CA} "
            f"--cert-file {stem}.crt --key-file {stem}.key"
        )
        return f'{etcdctl} get {key} >/dev/null 2>&1 || {etcdctl} mk {key} "$$(cat {NETWORK_FILE})"'
    version = "" if gates.is_changed("etcd", "etcdctl default API v3") else "ETCDCTL_API=3 "
    etcdctl = (
        f"{version}/usr/local/bin/etcdctl --endpoints {_CLIENT} --cacert {paths.ETCD_CA} "
        f"--cert {stem}.crt --key {stem}.key"
    )
    return f'found="$$({etcdctl} get {key})"; [ -n "$$found" ] || {etcdctl} put {key} <{NETWORK_FILE}'
