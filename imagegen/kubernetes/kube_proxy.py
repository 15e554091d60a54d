"""Flags and configuration of kube-proxy as functions of the cluster and the version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen.kubernetes.arguments import Arguments, FromEnvironment, merge_arguments
from imagegen.kubernetes.config_fields import apply_flags, config_fields
from imagegen.kubernetes.gates import Gates
from imagegen.model.cluster import Cluster
from imagegen.pki import paths

COMPONENT = "kube-proxy"
CONFIG = f"{paths.KUBERNETES}/kube-proxy.yaml"
HEALTH_PORT = 10256
VERBOSITY = "2"


def kube_proxy_arguments(cluster: Cluster, gates: Gates) -> Arguments:
    """The flags that kube-proxy heeds beside its configuration file; the user's over ours."""
    extra = cluster.kubernetes.extra_args_of(COMPONENT)
    ours: dict[str, str | FromEnvironment] = {
        "config": CONFIG,
        "hostname-override": FromEnvironment("NODE_NAME"),
    }
    if not gates.has(COMPONENT, "KubeProxyConfiguration.logging"):
        ours["v"] = VERBOSITY
    fields = config_fields(COMPONENT)
    return merge_arguments(ours, {k: v for k, v in extra.items() if k not in fields})


def kube_proxy_config(cluster: Cluster, gates: Gates) -> Mapping[str, Any]:
    """KubeProxyConfiguration v1alpha1: the same on every node. The user's flags are written as its fields."""
    config: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "0.0.0.0",  # noqa: S104 - not a socket: the node's primary address family
        "clientConnection": {"kubeconfig": paths.KUBE_PROXY_KUBECONFIG},
        "clusterCIDR": str(cluster.network.pods),
        "conntrack": {"maxPerCore": 32768, "min": 131072},
        "detectLocalMode": "ClusterCIDR",
        "enableProfiling": False,
        "healthzBindAddress": f"0.0.0.0:{HEALTH_PORT}",
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": cluster.network.proxy.value,
    }
    if gates.has(COMPONENT, "KubeProxyConfiguration.logging"):
        config["logging"] = {"verbosity": int(VERBOSITY)}
    apply_flags(COMPONENT, config, cluster.kubernetes.extra_args_of(COMPONENT))
    return config
