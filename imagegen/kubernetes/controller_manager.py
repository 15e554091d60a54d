"""Flags of kube-controller-manager as a function of the cluster and the version."""

from __future__ import annotations

from datetime import timedelta

from imagegen.kubernetes.arguments import Arguments, merge_arguments
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.leader_election import leader_election_flags
from imagegen.kubernetes.tls import delegated_serving_arguments, serving_arguments
from imagegen.model.cluster import BootstrapMethod, Cluster, Cni
from imagegen.pki import paths

COMPONENT = "kube-controller-manager"
SECURE_PORT = 10257
#: plain HTTP, in versions that cannot ask the API server who may read their health
INSECURE_PORT = 10252

#: for bootstrap tokens that are Secrets; off unless named
TOKEN_CONTROLLERS = "bootstrapsigner,tokencleaner"  # noqa: S105
#: left out: csr-approver signs off certificate requests, and more strictly
BUILT_IN_APPROVER = "csrapproving"


def controller_manager_arguments(cluster: Cluster, gates: Gates) -> Arguments:
    """Every flag, the user's over ours. It serves metrics and health on loopback only."""
    extra = cluster.kubernetes.extra_args_of(COMPONENT)
    network = cluster.network
    kubeconfig = paths.CONTROLLER_MANAGER_KUBECONFIG
    has_tokens = cluster.bootstrap.method is BootstrapMethod.TOKEN
    controllers = f"*,{TOKEN_CONTROLLERS}" if has_tokens else "*"
    if gates.has(COMPONENT, f"controller {BUILT_IN_APPROVER}"):
        controllers += f",-{BUILT_IN_APPROVER}"
    ours = {
        # with bridge a node's range follows from its address, with flannel-etcd flannel itself hands it out
        "allocate-node-cidrs": "false" if network.cni in (Cni.BRIDGE, Cni.FLANNEL_ETCD) else "true",
        "cluster-cidr": str(network.pods),
        "cluster-name": cluster.name,
        "cluster-signing-cert-file": paths.CA,
        "cluster-signing-key-file": paths.CA_KEY,
        **_signing_duration(cluster, gates),
        "controllers": controllers,
        "kubeconfig": kubeconfig,
        **leader_election_flags(),
        "node-cidr-mask-size": str(network.node_cidr_mask_size),
        "profiling": "false",
        "root-ca-file": paths.CA,
        "service-account-private-key-file": paths.CONTROLLER_MANAGER_SERVICE_ACCOUNT_KEY,
        "service-cluster-ip-range": str(network.services),
        "terminated-pod-gc-threshold": "1000",
        "use-service-account-credentials": "true",
        "v": "2",
        **delegated_serving_arguments(
            gates,
            COMPONENT,
            kubeconfig,
            serving_arguments(cluster, gates, COMPONENT, paths.CONTROLLER_MANAGER_SERVER),
        ),
    }
    return merge_arguments(ours, extra)


def _signing_duration(cluster: Cluster, gates: Gates) -> dict[str, str]:
    """How long signed certificates are valid; a year, unsaid, in the oldest version."""
    names = ("cluster-signing-duration", "experimental-cluster-signing-duration")
    lifetime = format_hours(cluster.pki.lifetime)
    return next(({name: lifetime} for name in names if gates.has(COMPONENT, f"--{name}")), {})


def format_hours(duration: timedelta) -> str:
    """A duration as Go reads it, in whole minutes: ``8760h0m0s``."""
    minutes = int(duration.total_seconds()) // 60
    return f"{minutes // 60}h{minutes % 60}m0s"
