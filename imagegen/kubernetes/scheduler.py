"""Flags and configuration of kube-scheduler as functions of the cluster and the version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen.kubernetes.arguments import Arguments, merge_arguments
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.leader_election import leader_election_config, leader_election_flags
from imagegen.kubernetes.tls import delegated_serving_arguments, serving_arguments
from imagegen.model.cluster import Cluster
from imagegen.pki import paths

COMPONENT = "kube-scheduler"
SECURE_PORT = 10259
INSECURE_PORT = 10251
CONFIG = f"{paths.KUBERNETES}/kube-scheduler.yaml"
INSECURE = f"127.0.0.1:{INSECURE_PORT}"
_APIS = tuple(
    f"kubescheduler.config.k8s.io/{version} KubeSchedulerConfiguration"
    for version in ("v1", "v1beta3", "v1beta2", "v1beta1")
)


def has_config(gates: Gates) -> bool:
    """Whether the scheduler reads a file whose API was at least a beta; before, flags say the same."""
    return any(gates.has(COMPONENT, api) for api in _APIS)


def scheduler_arguments(cluster: Cluster, gates: Gates) -> Arguments:
    """Every flag, the user's over ours. It serves metrics and health on loopback only."""
    extra = cluster.kubernetes.extra_args_of(COMPONENT)
    serving = delegated_serving_arguments(
        gates,
        COMPONENT,
        paths.SCHEDULER_KUBECONFIG,
        serving_arguments(cluster, gates, COMPONENT, paths.SCHEDULER_SERVER),
    )
    ours = {"v": "2", **serving}
    if has_config(gates):
        # beside a file the port is the file's
        ours = {"config": CONFIG, **ours}
        ours.pop("port", None)
    else:
        ours |= {"kubeconfig": paths.SCHEDULER_KUBECONFIG, "profiling": "false", **leader_election_flags()}
    return merge_arguments(ours, extra)


def scheduler_config(gates: Gates) -> Mapping[str, Any]:
    """KubeSchedulerConfiguration in the newest API version that is read; only for ``has_config``."""
    api = gates.choose(COMPONENT, *_APIS)
    version, kind = api.split(" ")
    config: dict[str, Any] = {
        "apiVersion": version,
        "kind": kind,
        "clientConnection": {"kubeconfig": paths.SCHEDULER_KUBECONFIG},
        "enableContentionProfiling": False,
        "enableProfiling": False,
        "leaderElection": leader_election_config(),
    }
    if gates.has(COMPONENT, "KubeSchedulerConfiguration.healthzBindAddress"):
        # plain HTTP, which these versions cannot close beside a file: on loopback only
        config |= {"healthzBindAddress": INSECURE, "metricsBindAddress": INSECURE}
    return config
