"""Flags and configuration of kube-proxy as functions of the cluster and the version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen.kubernetes.arguments import Arguments, FromEnvironment, merge_arguments
from imagegen.kubernetes.config_fields import apply_flags, config_fields
from imagegen.kubernetes.gates import Gates, State
from imagegen.model.cluster import Cluster, ProxyMode
from imagegen.pki import paths

COMPONENT = "kube-proxy"
CONFIG = f"{paths.KUBERNETES}/kube-proxy.yaml"
HEALTH_PORT = 10256
METRICS_ADDRESS = "127.0.0.1:10249"
VERBOSITY = "2"


def has_config(gates: Gates) -> bool:
    """Whether a configuration file leaves the node's name to a flag; before, flags say everything."""
    return gates.has(COMPONENT, "--hostname-override beside a file")


def kube_proxy_arguments(cluster: Cluster, gates: Gates) -> Arguments:
    """The flags that kube-proxy heeds beside its configuration file; the user's over ours."""
    extra = cluster.kubernetes.extra_args_of(COMPONENT)
    ours: dict[str, str | FromEnvironment] = {"hostname-override": FromEnvironment("NODE_NAME")}
    if not gates.has(COMPONENT, "KubeProxyConfiguration.logging"):
        ours["v"] = VERBOSITY
    if not has_config(gates):
        return merge_arguments({**ours, **_fields_as_flags(cluster, gates)}, extra)
    ours["config"] = CONFIG
    fields = config_fields(COMPONENT)
    return merge_arguments(ours, {k: v for k, v in extra.items() if k not in fields})


def _fields_as_flags(cluster: Cluster, gates: Gates) -> dict[str, str]:
    flags = {
        "bind-address": "0.0.0.0",  # noqa: S104 - not a socket: the node's primary address family
        "cluster-cidr": str(cluster.network.pods),
        "conntrack-max-per-core": "32768",
        "conntrack-min": "131072",
        # health has a port of its own; metrics share its address where they have no flag
        "healthz-bind-address": "0.0.0.0",  # noqa: S104
        "kubeconfig": paths.KUBE_PROXY_KUBECONFIG,
        "metrics-bind-address": METRICS_ADDRESS,
        "profiling": "false",
        "proxy-mode": cluster.network.proxy.value,
    }
    if (
        cluster.network.proxy is ProxyMode.IPVS
        and gates.state(COMPONENT, "SupportIPVSProxyMode") is State.ALPHA
    ):
        flags["feature-gates"] = "SupportIPVSProxyMode=true"
    return gates.keep_known(COMPONENT, flags)


def kube_proxy_config(cluster: Cluster, gates: Gates) -> Mapping[str, Any]:
    """KubeProxyConfiguration v1alpha1: the same on every node. The user's flags are written as its fields."""
    can_detect = gates.has(COMPONENT, "KubeProxyConfiguration.detectLocalMode")
    logging = {"logging": {"verbosity": int(VERBOSITY)}}
    config: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "0.0.0.0",  # noqa: S104 - not a socket: the node's primary address family
        "clientConnection": {"kubeconfig": paths.KUBE_PROXY_KUBECONFIG},
        "clusterCIDR": str(cluster.network.pods),
        "conntrack": {"maxPerCore": 32768, "min": 131072},
        **({"detectLocalMode": "ClusterCIDR"} if can_detect else {}),
        "enableProfiling": False,
        "healthzBindAddress": f"0.0.0.0:{HEALTH_PORT}",
        **(logging if gates.has(COMPONENT, "KubeProxyConfiguration.logging") else {}),
        "metricsBindAddress": METRICS_ADDRESS,
        "mode": cluster.network.proxy.value,
    }
    apply_flags(COMPONENT, config, cluster.kubernetes.extra_args_of(COMPONENT))
    return config
