"""The configuration file of an etcd member as a function of the cluster, the node and the version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen.kubernetes.config_fields import apply_flags
from imagegen.kubernetes.flannel import uses_etcd_v2
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.tls import CIPHER_SUITES, ETCD_MINIMUM
from imagegen.model.cluster import Cluster, Cni, Node, Role
from imagegen.pki import paths

COMPONENT = "etcd"
CONFIG = "/etc/etcd/etcd.yaml"
DATA_DIRECTORY = "/var/lib/etcd"
CLIENT_PORT = 2379
PEER_PORT = 2380
#: metrics and health in plain HTTP, on loopback only
METRICS_PORT = 2381

_GIB = 2**30
_LOGGING = {"logger": "zap", "log-level": "info", "log-outputs": ["stderr"]}


def etcd_config(cluster: Cluster, gates: Gates, node: Node) -> Mapping[str, Any]:
    """The whole file of one member. The node has a fixed address: members are known by it."""
    client = f"https://{node.address}:{CLIENT_PORT}"
    peer = f"https://{node.address}:{PEER_PORT}"
    config: dict[str, Any] = {
        "name": node.name,
        "data-dir": DATA_DIRECTORY,
        "listen-client-urls": f"{client},https://127.0.0.1:{CLIENT_PORT}",
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        **_metrics(gates),
        "initial-cluster": initial_cluster(cluster),
        "initial-cluster-token": cluster.name,
        # a member that comes back without its data must not vote before it has learnt what the others know
        "initial-cluster-state": "existing" if node.rejoins else "new",
        "client-transport-security": _transport_security(paths.ETCD_SERVER),
        "peer-transport-security": _transport_security(paths.ETCD_PEER),
        **_compaction(gates),
        **_version_2(cluster, gates),
        "quota-backend-bytes": 8 * _GIB,
        "snapshot-count": 10000,
        "strict-reconfig-check": True,
        **(_LOGGING if gates.has(COMPONENT, "--logger") else {}),
    }
    if gates.has(COMPONENT, "--feature-gates"):
        config["feature-gates"] = "InitialCorruptCheck=true"
    elif gates.has(COMPONENT, "--experimental-initial-corrupt-check"):
        config["experimental-initial-corrupt-check"] = True
    extra = cluster.kubernetes.extra_args_of(COMPONENT)
    if gates.has(COMPONENT, "--tls-min-version"):
        config["tls-min-version"] = ETCD_MINIMUM
        if extra.get("tls-min-version", ETCD_MINIMUM) != ETCD_MINIMUM:
            config["cipher-suites"] = list(CIPHER_SUITES)
    rest = apply_flags(COMPONENT, config, extra)
    return config | rest


def _metrics(gates: Gates) -> dict[str, str]:
    """Health and metrics apart from the client port, which wants a certificate."""
    there = gates.has(COMPONENT, "--listen-metrics-urls")
    return {"listen-metrics-urls": f"http://127.0.0.1:{METRICS_PORT}"} if there else {}


def _compaction(gates: Gates) -> dict[str, Any]:
    if gates.has(COMPONENT, "--auto-compaction-mode"):
        return {"auto-compaction-mode": "periodic", "auto-compaction-retention": "8h"}
    return {"auto-compaction-retention": 8}


def _version_2(cluster: Cluster, gates: Gates) -> dict[str, bool]:
    """Version 2 of the API beside version 3, for a flannel that knows no other."""
    wanted = cluster.network.cni is Cni.FLANNEL_ETCD and uses_etcd_v2(gates)
    return {"enable-v2": True} if wanted and gates.is_changed(COMPONENT, "--enable-v2") else {}


def initial_cluster(cluster: Cluster) -> str:
    """Every member as ``NAME=PEER-URL``, in the order of the cluster file."""
    members = cluster.nodes_with(Role.ETCD)
    return ",".join(f"{n.name}=https://{n.address}:{PEER_PORT}" for n in members)


def _transport_security(certificate: str) -> dict[str, Any]:
    return {
        "cert-file": f"{certificate}.crt",
        "key-file": f"{certificate}.key",
        "trusted-ca-file": paths.ETCD_CA,
        "client-cert-auth": True,
    }
