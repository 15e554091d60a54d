"""Docker as the kubelet's runtime, up to Kubernetes 1.23: the daemon's configuration and its names by system.

Sources of names: the packages docker.io of Debian and Ubuntu, docker-engine of Oracle Linux 7's add-ons, and
Docker's own docker-ce for Oracle Linux 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagegen.kubernetes.flannel import DOCKER_VARIABLE
from imagegen.model.cluster import Cluster, Cni, OperatingSystem, Runtime

CONFIG = "/etc/docker/daemon.json"
SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True, slots=True)
class DockerPackage:
    """``packages`` bring the daemon and its command; ``daemon`` is the command line of its unit."""

    packages: tuple[str, ...]
    daemon: str


_ACTIVATED = "-H fd:// --containerd=/run/containerd/containerd.sock"
_DEBIAN = f"/usr/sbin/dockerd {_ACTIVATED}"
_UPSTREAM = f"/usr/bin/dockerd {_ACTIVATED}"
PACKAGES: Mapping[OperatingSystem, DockerPackage] = {
    OperatingSystem.DEBIAN_12: DockerPackage(("docker.io",), _DEBIAN),
    OperatingSystem.DEBIAN_13: DockerPackage(("docker.io", "docker-cli"), _DEBIAN),
    OperatingSystem.UBUNTU_2204: DockerPackage(("docker.io",), _UPSTREAM),
    OperatingSystem.UBUNTU_2404: DockerPackage(("docker.io",), _UPSTREAM),
    OperatingSystem.ORACLELINUX_7: DockerPackage(("docker-engine",), "/usr/bin/dockerd"),
    OperatingSystem.ORACLELINUX_9: DockerPackage(("docker-ce", "docker-ce-cli"), _UPSTREAM),
}


def has_docker_network(cluster: Cluster) -> bool:
    """Whether pods get their addresses from Docker's own bridge, which has the node's range from flannel.

    Then there are no CNI plug-ins: the kubelet leaves the network to the runtime.
    """
    return cluster.runtime is Runtime.DOCKER and cluster.network.cni is Cni.FLANNEL_ETCD


def daemon_config(cluster: Cluster) -> Mapping[str, Any]:
    """``daemon.json``. The cgroup driver is the kubelet's; a container outlives a restart of the daemon.

    With CNI, Docker has no network of its own and writes no packet filter: its DROP in the chain FORWARD
    would meet the pods. With its own network, address, MTU and masquerading come as flags from flannel.
    """
    network: dict[str, Any] = {}
    if not has_docker_network(cluster):
        network = {"bridge": "none", "ip-masq": False, "iptables": False}
    return {
        **network,
        "exec-opts": ["native.cgroupdriver=systemd"],
        "live-restore": True,
        "log-driver": "json-file",
        "log-opts": {"max-file": "5", "max-size": "10m"},
        "max-concurrent-downloads": 10,
        "storage-driver": "overlay2",
    }


def exec_start(cluster: Cluster) -> str:
    """The daemon with the flags that flannel gives it."""
    return f"{PACKAGES[cluster.image.os].daemon} ${DOCKER_VARIABLE}"
