"""Flags and configuration of the kubelet as functions of the cluster and the version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen.kubernetes.arguments import Arguments, FromEnvironment, merge_arguments
from imagegen.kubernetes.containerd import CNI_BINARIES, CNI_CONFIGURATION
from imagegen.kubernetes.docker import has_docker_network
from imagegen.kubernetes.gates import Gates, State
from imagegen.kubernetes.releases import load_releases
from imagegen.kubernetes.tls import cipher_suites, minimum, needs_cipher_suites
from imagegen.model.cluster import Cluster, ClusterDns, Layout, Role, Runtime
from imagegen.model.systems import SYSTEMS
from imagegen.pki import paths

COMPONENT = "kubelet"
CONFIG = f"{paths.KUBERNETES}/kubelet.yaml"
#: where the pods of the control plane are described, on masters that run it that way
STATIC_PODS = f"{paths.KUBERNETES}/manifests"
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


def has_config(gates: Gates) -> bool:
    """Whether the kubelet reads a file whose API was a beta; before, flags say the same."""
    return gates.has(COMPONENT, "kubelet.config.k8s.io/v1beta1 KubeletConfiguration")


#: what a machine is when nothing else is said
WORKER = (Role.WORKER,)


def kubelet_arguments(cluster: Cluster, gates: Gates, roles: tuple[Role, ...] = WORKER) -> Arguments:
    """Only what differs between nodes, or must not be in a file; the user's flags over ours.
    A flag of the user wins over the file, too: the kubelet reads it that way.
    """
    ours: dict[str, str | FromEnvironment] = {
        **_identity_arguments(cluster, gates, roles),
        "hostname-override": FromEnvironment("NODE_NAME"),
        # empty on a node with DHCP: then the kubelet takes the address of the default route
        "node-ip": FromEnvironment("NODE_ADDRESS"),
        **_runtime_arguments(cluster, gates),
    }
    if has_config(gates):
        ours["config"] = CONFIG
    else:
        ours |= _fields_as_flags(kubelet_config(cluster, gates, roles), gates)
    if not gates.has(COMPONENT, "KubeletConfiguration.rotateCertificates"):
        ours |= gates.keep_known(COMPONENT, {"rotate-certificates": "true"})
    if gates.state(COMPONENT, "--require-kubeconfig") is State.AVAILABLE:
        ours["require-kubeconfig"] = "true"
    if not gates.is_changed(COMPONENT, "--allow-privileged"):
        ours["allow-privileged"] = "true"
    if not gates.has(COMPONENT, "KubeletConfiguration.logging.verbosity"):
        ours["v"] = VERBOSITY
    taints = control_plane_taints(cluster, gates, roles)
    if taints and not gates.has(COMPONENT, "KubeletConfiguration.registerWithTaints"):
        ours["register-with-taints"] = ",".join(f"{key}=:NoSchedule" for key in taints)
    return merge_arguments(ours, cluster.kubernetes.extra_args_of(COMPONENT))


def _identity_arguments(cluster: Cluster, gates: Gates, roles: tuple[Role, ...]) -> dict[str, str]:
    if not cluster.joins_by_token(roles):
        return {"kubeconfig": paths.MASTER_KUBELET_KUBECONFIG}
    bootstrap = gates.choose(COMPONENT, "--bootstrap-kubeconfig", "--experimental-bootstrap-kubeconfig")
    return {
        bootstrap.removeprefix("--"): paths.BOOTSTRAP_KUBECONFIG,
        "kubeconfig": paths.KUBELET_KUBECONFIG,
    }


def control_plane_taints(cluster: Cluster, gates: Gates, roles: tuple[Role, ...]) -> tuple[str, ...]:
    """The keys that keep other pods off a master; none for a master that is a worker as well."""
    if Role.WORKER in roles or Role.MASTER not in roles or cluster.kubernetes.layout is Layout.SYSTEMD:
        return ()
    return tuple(key for key in CONTROL_PLANE_KEYS if gates.has("cluster", f"taint {key}"))


def control_plane_labels(gates: Gates) -> tuple[str, ...]:
    """The keys of the labels by which people and pods know a master, oldest first.

    A kubelet may not give them to itself (#79305@1.16): first boot does.
    """
    return tuple(key for key in CONTROL_PLANE_KEYS if gates.has("cluster", key))


CONTROL_PLANE_KEYS = ("node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane")


def _runtime_arguments(cluster: Cluster, gates: Gates) -> dict[str, str]:
    if cluster.runtime is Runtime.DOCKER:
        pause = {"pod-infra-container-image": load_releases(cluster.kubernetes.version).image("pause")}
        if has_docker_network(cluster):
            return pause
        cni = {"network-plugin": "cni", "cni-bin-dir": CNI_BINARIES, "cni-conf-dir": CNI_CONFIGURATION}
        return cni | pause
    flags = {}
    if not gates.has(COMPONENT, "KubeletConfiguration.containerRuntimeEndpoint"):
        flags["container-runtime-endpoint"] = RUNTIME_ENDPOINT
    if gates.state(COMPONENT, "--container-runtime") is State.AVAILABLE:
        flags["container-runtime"] = "remote"
    return flags


def _fields_as_flags(config: Mapping[str, Any], gates: Gates) -> dict[str, str]:
    """The file as flags, for versions that read none."""
    authentication = config["authentication"]
    features = config.get("featureGates", {})
    flags = {
        "anonymous-auth": "false",
        "authentication-token-webhook": "true",
        "authorization-mode": config["authorization"]["mode"],
        "cgroup-driver": config["cgroupDriver"],
        "client-ca-file": authentication["x509"]["clientCAFile"],
        "cluster-dns": ",".join(config.get("clusterDNS", ())),
        "cluster-domain": config["clusterDomain"],
        "event-qps": str(config["eventRecordQPS"]),
        "image-gc-high-threshold": str(config["imageGCHighThresholdPercent"]),
        "image-gc-low-threshold": str(config["imageGCLowThresholdPercent"]),
        "pod-manifest-path": config.get("staticPodPath", ""),
        "protect-kernel-defaults": "true",
        "read-only-port": str(config["readOnlyPort"]),
        "resolv-conf": config["resolvConf"],
        "feature-gates": ",".join(f"{name}={str(on).lower()}" for name, on in features.items()),
    }
    return gates.keep_known(COMPONENT, {name: value for name, value in flags.items() if value})


def _cluster_dns(cluster: Cluster) -> dict[str, list[str]]:
    network = cluster.network
    return {} if network.cluster_dns is ClusterDns.NONE else {"clusterDNS": [str(network.dns)]}


def kubelet_config(cluster: Cluster, gates: Gates, roles: tuple[Role, ...] = WORKER) -> Mapping[str, Any]:
    """KubeletConfiguration v1beta1: the same on every node with these roles."""
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
        **_cluster_dns(cluster),
        "clusterDomain": cluster.network.domain,
        "eventRecordQPS": 50,
        "imageGCHighThresholdPercent": 85,
        "imageGCLowThresholdPercent": 80,
        "protectKernelDefaults": True,
        "readOnlyPort": 0,
        "resolvConf": resolv_conf(cluster),
    }
    config |= _control_plane_fields(cluster, gates, roles)
    for field in ("rotateCertificates", "serverTLSBootstrap"):
        if gates.state(COMPONENT, f"KubeletConfiguration.{field}") is not State.NOT_YET:
            config[field] = True
    if gates.has(COMPONENT, "KubeletConfiguration.tlsMinVersion"):
        config["tlsMinVersion"] = minimum(cluster, gates)
    if gates.has(COMPONENT, "KubeletConfiguration.podPidsLimit"):
        config["podPidsLimit"] = 4096
    if gates.state(COMPONENT, "RotateKubeletServerCertificate") is State.ALPHA:
        config["featureGates"] = {"RotateKubeletServerCertificate": True}
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
    if gates.has(COMPONENT, "KubeletConfiguration.tlsMinVersion") and needs_cipher_suites(
        cluster, gates, COMPONENT
    ):
        config["tlsCipherSuites"] = list(cipher_suites(gates))
    return dict(sorted(config.items(), key=lambda pair: (pair[0] not in ("apiVersion", "kind"), pair[0])))


def _control_plane_fields(cluster: Cluster, gates: Gates, roles: tuple[Role, ...]) -> dict[str, Any]:
    if Role.MASTER not in roles or cluster.kubernetes.layout is Layout.SYSTEMD:
        return {}
    fields: dict[str, Any] = {"staticPodPath": STATIC_PODS}
    taints = control_plane_taints(cluster, gates, roles)
    if taints and gates.has(COMPONENT, "KubeletConfiguration.registerWithTaints"):
        fields["registerWithTaints"] = [{"key": key, "effect": "NoSchedule"} for key in taints]
    return fields


def resolv_conf(cluster: Cluster) -> str:
    """The file with the real name servers, which pods inherit.

    systemd-resolved answers on a loopback address that no pod can reach: its own list is taken where it runs.
    """
    return SYSTEMS[cluster.image.os].resolv_conf
