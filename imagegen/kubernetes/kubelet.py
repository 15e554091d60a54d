"""Flags and configuration of the kubelet as functions of the cluster and the version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen.kubernetes.arguments import Arguments, FromEnvironment, merge_arguments
from imagegen.kubernetes.gates import Gates, State
from imagegen.kubernetes.tls import CIPHER_SUITES, MINIMUM, needs_cipher_suites
from imagegen.model.cluster import Cluster
from imagegen.pki import paths

COMPONENT = "kubelet"
CONFIG = f"{paths.KUBERNETES}/kubelet.yaml"
RUNTIME_ENDPOINT = "unix:///run/containerd/containerd.sock"
PORT = 10250
VERBOSITY = "2"

#: what ``protectKernelDefaults`` insists on (pkg/kubelet/cm setupKernelTunables)
KERNEL_DEFAULTS = {
    "kernel.keys.root_maxbytes": "25000000",
    "kernel.keys.root_maxkeys": "1000000",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "vm.overcommit_memory": "1",
    "vm.panic_on_oom": "0",
}


def kubelet_arguments(cluster: Cluster, gates: Gates) -> Arguments:
    """Only what differs between nodes, or must not be in a file; the user's flags over ours.

    A flag of the user wins over the file, too: the kubelet reads it that way.
    """
    ours: dict[str, str | FromEnvironment] = {
        "bootstrap-kubeconfig": paths.BOOTSTRAP_KUBECONFIG,
        "config": CONFIG,
        "hostname-override": FromEnvironment("NODE_NAME"),
        "kubeconfig": paths.KUBELET_KUBECONFIG,
        # empty on a node with DHCP: then the kubelet takes the address of the default route
        "node-ip": FromEnvironment("NODE_ADDRESS"),
    }
    if not gates.has(COMPONENT, "KubeletConfiguration.containerRuntimeEndpoint"):
        ours["container-runtime-endpoint"] = RUNTIME_ENDPOINT
    if gates.state(COMPONENT, "--container-runtime") is State.AVAILABLE:
        ours["container-runtime"] = "remote"
    if not gates.has(COMPONENT, "KubeletConfiguration.logging.verbosity"):
        ours["v"] = VERBOSITY
    return merge_arguments(ours, cluster.kubernetes.extra_args_of(COMPONENT))


def kubelet_config(cluster: Cluster, gates: Gates) -> Mapping[str, Any]:
    """KubeletConfiguration v1beta1: the same on every node."""
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": paths.CA},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "systemd",
        "clusterDNS": [str(cluster.network.dns)],
        "clusterDomain": cluster.network.domain,
        "eventRecordQPS": 50,
        "imageGCHighThresholdPercent": 85,
        "imageGCLowThresholdPercent": 80,
        "podPidsLimit": 4096,
        "protectKernelDefaults": True,
        "readOnlyPort": 0,
        "resolvConf": resolv_conf(cluster),
        "rotateCertificates": True,
        "serverTLSBootstrap": True,
        "tlsMinVersion": MINIMUM,
    }
    if gates.has(COMPONENT, "KubeletConfiguration.containerRuntimeEndpoint"):
        config["containerRuntimeEndpoint"] = RUNTIME_ENDPOINT
    for handler in ("enableDebugFlagsHandler", "enableProfilingHandler"):
        if gates.has(COMPONENT, f"KubeletConfiguration.{handler}"):
            config[handler] = False
    if gates.has(COMPONENT, "KubeletConfiguration.logging.verbosity"):
        config["logging"] = {"verbosity": int(VERBOSITY)}
    if gates.has(COMPONENT, "KubeletConfiguration.failCgroupV1"):
        config["failCgroupV1"] = True
    if gates.has(COMPONENT, "KubeletConfiguration.seccompDefault"):
        config["seccompDefault"] = True
    if gates.has(COMPONENT, "KubeletConfiguration.shutdownGracePeriod"):
        config |= {"shutdownGracePeriod": "60s", "shutdownGracePeriodCriticalPods": "20s"}
    if needs_cipher_suites(cluster.kubernetes.extra_args_of(COMPONENT)):
        config["tlsCipherSuites"] = list(CIPHER_SUITES)
    return dict(sorted(config.items(), key=lambda pair: (pair[0] not in ("apiVersion", "kind"), pair[0])))


def resolv_conf(cluster: Cluster) -> str:
    """The file with the real name servers, which pods inherit.

    systemd-resolved answers on a loopback address that no pod can reach: its own list is taken where it runs.
    """
    if cluster.image.os.family == "debian":
        return "/run/systemd/resolve/resolv.conf"
    return "/etc/resolv.conf"
