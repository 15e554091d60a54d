"""Flags and configuration of kube-scheduler as functions of the cluster and the version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen.kubernetes.arguments import Arguments, merge_arguments
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.tls import serving_arguments
from imagegen.model.cluster import Cluster
from imagegen.pki import paths

COMPONENT = "kube-scheduler"
CONFIG = f"{paths.KUBERNETES}/kube-scheduler.yaml"
INSECURE = "127.0.0.1:10251"


def scheduler_arguments(cluster: Cluster, gates: Gates) -> Arguments:
    """Every flag, the user's over ours. It serves metrics and health on loopback only."""
    extra = cluster.kubernetes.extra_args_of(COMPONENT)
    ours = {
        "authentication-kubeconfig": paths.SCHEDULER_KUBECONFIG,
        "authorization-kubeconfig": paths.SCHEDULER_KUBECONFIG,
        "bind-address": "127.0.0.1",
        "client-ca-file": paths.CA,
        "config": CONFIG,
        "requestheader-client-ca-file": paths.FRONT_PROXY_CA,
        "v": "2",
        **serving_arguments(paths.SCHEDULER_SERVER, extra),
    }
    return merge_arguments(ours, extra)


def scheduler_config(gates: Gates) -> Mapping[str, Any]:
    """KubeSchedulerConfiguration in the newest API version that this release reads."""
    api = gates.choose(
        COMPONENT,
        *(
            f"kubescheduler.config.k8s.io/{version} KubeSchedulerConfiguration"
            for version in ("v1", "v1beta3", "v1beta2", "v1beta1", "v1alpha2", "v1alpha1")
        ),
    )
    version, kind = api.split(" ")
    config: dict[str, Any] = {
        "apiVersion": version,
        "kind": kind,
        "clientConnection": {"kubeconfig": paths.SCHEDULER_KUBECONFIG},
        "enableContentionProfiling": False,
        "enableProfiling": False,
        "leaderElection": {"leaderElect": True},
    }
    if gates.has(COMPONENT, "KubeSchedulerConfiguration.healthzBindAddress"):
        # plain HTTP, which these versions cannot close beside a file: on loopback only
        config |= {"healthzBindAddress": INSECURE, "metricsBindAddress": INSECURE}
    return config
