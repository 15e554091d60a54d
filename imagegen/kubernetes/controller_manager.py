"""Flags of kube-controller-manager as a function of the cluster and the version."""

from __future__ import annotations

from datetime import timedelta

from imagegen.kubernetes.arguments import Arguments, merge_arguments
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.tls import insecure_port_arguments, serving_arguments
from imagegen.model.cluster import Cluster, Cni
from imagegen.pki import paths

COMPONENT = "kube-controller-manager"

#: everything but the built-in approver: csr-approver signs off certificate requests, and more strictly
CONTROLLERS = "*,bootstrapsigner,tokencleaner,-csrapproving"


def controller_manager_arguments(cluster: Cluster, gates: Gates) -> Arguments:
    """Every flag, the user's over ours. It serves metrics and health on loopback only."""
    extra = cluster.kubernetes.extra_args_of(COMPONENT)
    network = cluster.network
    kubeconfig = paths.CONTROLLER_MANAGER_KUBECONFIG
    duration = gates.choose(
        COMPONENT, "--cluster-signing-duration", "--experimental-cluster-signing-duration"
    )
    ours = {
        # with bridge a node's range follows from its address
        "allocate-node-cidrs": "false" if network.cni is Cni.BRIDGE else "true",
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "client-ca-file": paths.CA,
        "cluster-cidr": str(network.pods),
        "cluster-name": cluster.name,
        "cluster-signing-cert-file": paths.CA,
        "cluster-signing-key-file": paths.CA_KEY,
        duration.removeprefix("--"): format_hours(cluster.pki.lifetime),
        "controllers": CONTROLLERS,
        "kubeconfig": kubeconfig,
        "leader-elect": "true",
        "node-cidr-mask-size": str(network.node_cidr_mask_size),
        "profiling": "false",
        "requestheader-client-ca-file": paths.FRONT_PROXY_CA,
        "root-ca-file": paths.CA,
        "service-account-private-key-file": paths.CONTROLLER_MANAGER_SERVICE_ACCOUNT_KEY,
        "service-cluster-ip-range": str(network.services),
        "terminated-pod-gc-threshold": "1000",
        "use-service-account-credentials": "true",
        "v": "2",
        **insecure_port_arguments(gates, COMPONENT, "port"),
        **serving_arguments(paths.CONTROLLER_MANAGER_SERVER, extra),
    }
    return merge_arguments(ours, extra)


def format_hours(duration: timedelta) -> str:
    """A duration as Go reads it, in whole minutes: ``8760h0m0s``."""
    minutes = int(duration.total_seconds()) // 60
    return f"{minutes // 60}h{minutes % 60}m0s"
