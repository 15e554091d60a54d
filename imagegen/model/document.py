"""The cluster file as the user writes it, version 1: every key with its meaning, default and examples.

Nothing here compares one value with another. A default that depends on other keys is left to ``resolve``.
"""

from __future__ import annotations

import enum
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from imagegen.model.cluster import (
    Addon,
    BootstrapMethod,
    CertificateSet,
    ClusterDns,
    Cni,
    DiskFormat,
    Endpoint,
    Firmware,
    ImageMode,
    ImagePki,
    KeyAlgorithm,
    Layout,
    NodeDns,
    NodeTool,
    OperatingSystem,
    ProxyMode,
    Role,
    Runtime,
    Target,
)
from imagegen.model.scalars import (
    ADDRESS,
    DOMAIN,
    DURATION,
    ENDPOINT,
    FLAG_NAME,
    FLAG_VALUE,
    KUBERNETES_VERSION,
    MAC,
    NAME,
    NODE_ADDRESS,
    PACKAGE,
    RANGE,
    SIZE,
    SNAPSHOT,
    TEXT,
    TIME_SERVER,
    TRUTH,
    WHOLE_NUMBER,
    choice_of,
)
from imagegen.model.version import Version

FILE_VERSION = 1


class FlagOwner(enum.StrEnum):
    """The components that take flags of the user's own."""

    APISERVER = "kube-apiserver"
    CONTROLLER_MANAGER = "kube-controller-manager"
    SCHEDULER = "kube-scheduler"
    KUBELET = "kubelet"
    PROXY = "kube-proxy"
    ETCD = "etcd"


def _key(
    description: str,
    *,
    default: Any = ...,
    spelt: object = None,
    examples: list[Any] | None = None,
    **limits: Any,
) -> Any:
    """A key. ``spelt``: the default as the user would write it; none when it depends on other keys."""
    extra: dict[str, Any] = {"default": spelt} if spelt is not None else {}
    return Field(default, description=description, examples=examples, json_schema_extra=extra, **limits)


_UPPER = {word: word.upper() for word in ("ca", "cidr", "cni", "dns", "mac", "ntp", "os", "pki", "ssh")}


def _title(name: str) -> str:
    """``node_cidr_mask_size`` → ``node CIDR mask size``"""
    return " ".join(_UPPER.get(word, word) for word in name.split("_"))


class Section(BaseModel):
    """A mapping of the file: unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        defer_build=True,  # only the whole file is ever validated
        frozen=True,
        field_title_generator=lambda name, _: _title(name),
        model_title_generator=lambda model: (model.__doc__ or "").rstrip("."),
    )


class KubernetesSection(Section):
    """Which Kubernetes, and how its parts run."""

    version: Annotated[Version, KUBERNETES_VERSION] = _key(
        "The exact Kubernetes version.", examples=["1.36.4", "1.37.0"]
    )
    layout: Annotated[Layout, choice_of(Layout)] = _key(
        "How the control plane runs: as systemd units, as static pods, or set up by kubeadm.",
        default=Layout.SYSTEMD,
        spelt="systemd",
    )
    extra_args: dict[
        Annotated[FlagOwner, choice_of(FlagOwner)],
        dict[Annotated[str, FLAG_NAME], Annotated[str, FLAG_VALUE]],
    ] = _key(
        "Flags of your own, by component, without the leading dashes. They win over the generated ones.",
        default={},
        spelt={},
        examples=[{"kube-apiserver": {"profiling": "false"}}],
    )


class NetworkSection(Section):
    """Address ranges and how packets travel."""

    nodes: Annotated[IPv4Network, RANGE] = _key(
        "The range that all nodes are in.", examples=["10.240.0.0/24"]
    )
    gateway: Annotated[IPv4Address | None, ADDRESS] = _key(
        "The default gateway. Default: the first address of `nodes`, unless a node has it.",
        default=None,
        examples=["10.240.0.1"],
    )
    nameservers: tuple[Annotated[IPv4Address, ADDRESS], ...] = _key(
        "DNS servers of the nodes. Default: the gateway.", default=(), examples=[["10.240.0.1"]]
    )
    services: Annotated[IPv4Network | None, RANGE] = _key(
        "The range of service addresses; the API server gets the first one. Default: 10.32.0.0/16, or "
        "another private range when that one overlaps.",
        default=None,
        examples=["10.32.0.0/16"],
    )
    pods: Annotated[IPv4Network | None, RANGE] = _key(
        "The range of pod addresses, cut into one piece a node. Default: 10.200.0.0/16, or another "
        "private range when that one overlaps.",
        default=None,
        examples=["10.200.0.0/16"],
    )
    dns: Annotated[IPv4Address | None, ADDRESS] = _key(
        "The service address of the cluster's DNS. Default: the tenth address of `services`.",
        default=None,
        examples=["10.32.0.10"],
    )
    cluster_dns: Annotated[ClusterDns, choice_of(ClusterDns)] = _key(
        "Who answers for the names of services: CoreDNS, or nobody; pods then resolve names as their node "
        "does.",
        default=ClusterDns.COREDNS,
        spelt="coredns",
    )
    domain: Annotated[str, DOMAIN] = _key(
        "The DNS domain of the cluster.", default="cluster.local", spelt="cluster.local"
    )
    cni: Annotated[Cni, choice_of(Cni)] = _key(
        "The pod network. `loopback` gives pods none, `bridge` one that ends at the node.",
        default=Cni.FLANNEL,
        spelt="flannel",
    )
    proxy: Annotated[ProxyMode | None, choice_of(ProxyMode)] = _key(
        "How kube-proxy handles service addresses. Default: nftables where it is stable (Kubernetes "
        "1.33, kernel 5.13), else iptables.",
        default=None,
        examples=["nftables"],
    )
    node_dns: Annotated[NodeDns, choice_of(NodeDns)] = _key(
        "Who answers for the names of the nodes: nobody but each node's own hosts file, or the load "
        "balancers (`lb`), which then are the name servers of all nodes and pass on to `nameservers`.",
        default=NodeDns.NONE,
        spelt="none",
    )
    node_cidr_mask_size: Annotated[int, WHOLE_NUMBER] = _key(
        "Prefix length of the piece of `pods` that one node gets.", default=24, spelt=24, ge=16, le=28
    )
    ntp_servers: tuple[Annotated[str, TIME_SERVER], ...] = _key(
        "Time servers, by address or DNS name. Default: those of the distribution.",
        default=(),
        spelt=[],
        examples=[["10.240.0.1"]],
    )


class ControlPlaneSection(Section):
    """How clients reach the API."""

    endpoint: Annotated[Endpoint | None, ENDPOINT] = _key(
        "HOST:PORT of the API for kubelets and people. Default: the load balancer, else the only master.",
        default=None,
        examples=["10.240.0.11:6443"],
    )


#: the curves are often named without their algorithm
_SHORT_KEYS = {
    "p256": KeyAlgorithm.ECDSA_P256,
    "p384": KeyAlgorithm.ECDSA_P384,
    "p521": KeyAlgorithm.ECDSA_P521,
}


class PkiSection(Section):
    """Keys and certificates."""

    key: Annotated[KeyAlgorithm, choice_of(KeyAlgorithm, _SHORT_KEYS)] = _key(
        "The algorithm of all keys.", default=KeyAlgorithm.ECDSA_P256, spelt="ecdsa-p256"
    )
    certificates: Annotated[CertificateSet, choice_of(CertificateSet)] = _key(
        "A certificate for each purpose, or a single one a node for all of its servers and clients, of one "
        "authority for the API and etcd.",
        default=CertificateSet.EACH,
        spelt="each",
    )
    ca_lifetime: Annotated[timedelta, DURATION] = _key(
        "How long the certificate authorities are valid.", default=timedelta(days=3650), spelt="10y"
    )
    lifetime: Annotated[timedelta, DURATION] = _key(
        "How long all other certificates are valid.", default=timedelta(days=365), spelt="1y"
    )


class BootstrapSection(Section):
    """How nodes join."""

    method: Annotated[BootstrapMethod, choice_of(BootstrapMethod)] = _key(
        "Bootstrap tokens as Secrets, or a token file of the API server (for old versions).",
        default=BootstrapMethod.TOKEN,
        spelt="token",
    )
    token_lifetime: Annotated[timedelta, DURATION] = _key(
        "How long a node may join, counted from the first boot of the first master; 0 means forever.",
        default=timedelta(hours=24),
        spelt="24h",
    )
    approve_serving: Annotated[bool, TRUTH] = _key(
        "Approve the serving certificates of kubelets that ask for no more than this file says.",
        default=True,
        spelt=True,
    )


class ImageSection(Section):
    """The machine images."""

    os: Annotated[OperatingSystem, choice_of(OperatingSystem)] = _key(
        "The operating system.", default=OperatingSystem.DEBIAN_13, spelt="debian-13"
    )
    mode: Annotated[ImageMode, choice_of(ImageMode)] = _key(
        "`golden`: images are built. `stock`: first boot brings a stock cloud image to the same state.",
        default=ImageMode.GOLDEN,
        spelt="golden",
    )
    pki: Annotated[ImagePki, choice_of(ImagePki)] = _key(
        "Where a node's keys come from: its own seed, or the image (then the image is a secret).",
        default=ImagePki.SEED,
        spelt="seed",
    )
    size: Annotated[int, SIZE] = _key(
        "The size of the system disk.", default=8192, spelt="8GiB", examples=["20GiB"]
    )
    cpus: Annotated[int | None, WHOLE_NUMBER] = _key(
        "Processors of the machine that an OVA describes. Default: what its roles need.",
        default=None,
        examples=[4],
        ge=1,
        le=128,
    )
    memory: Annotated[int | None, SIZE] = _key(
        "Memory of the machine that an OVA describes. Default: what its roles need.",
        default=None,
        examples=["8GiB"],
    )
    firmware: tuple[Annotated[Firmware, choice_of(Firmware)], ...] = _key(
        "What the image boots on.",
        default=(Firmware.BIOS, Firmware.UEFI),
        spelt=["bios", "uefi"],
        min_length=1,
    )
    formats: tuple[Annotated[DiskFormat, choice_of(DiskFormat)], ...] = _key(
        "The disk formats to write.", default=(DiskFormat.QCOW2,), spelt=["qcow2"], min_length=1
    )
    snapshot: Annotated[str | None, SNAPSHOT] = _key(
        "Take packages from the distribution's archive as it was at this time. Default: as it is today.",
        default=None,
        examples=["20261101T000000Z"],
    )
    tools: tuple[Annotated[NodeTool, choice_of(NodeTool)], ...] = _key(
        "Programs for people who look around on nodes with pods; nothing of the cluster needs them.",
        default=(NodeTool.CRICTL,),
        spelt=["crictl"],
    )
    packages: tuple[Annotated[str, PACKAGE], ...] = _key(
        "Further packages of the distribution, for every image.", default=(), spelt=[], examples=[["tcpdump"]]
    )


class AccessSection(Section):
    """Who may log in."""

    user: Annotated[str, TEXT] = _key("The login name of the administrator.", default="ops", spelt="ops")
    ssh_authorized_keys: tuple[Annotated[str, TEXT], ...] = _key(
        "Public SSH keys of the administrator. Without one nobody can log in.",
        default=(),
        spelt=[],
        examples=[["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG… ops@example"]],
    )


class NodeEntry(Section):
    """One machine."""

    name: Annotated[str, NAME] = _key(
        "The host name; also the node's name in Kubernetes.", examples=["worker-0"]
    )
    roles: tuple[Annotated[Role, choice_of(Role)], ...] = _key(
        "What the node does. `base` is a prepared host without Kubernetes.",
        examples=[["worker"]],
        min_length=1,
    )
    address: Annotated[IPv4Address | None, NODE_ADDRESS] = _key(
        "The fixed address, or `dhcp` (workers and base only).", examples=["10.240.0.21", "dhcp"]
    )
    mac: Annotated[str | None, MAC] = _key(
        "The address of the network card, to find it by. Default: the first Ethernet card.",
        default=None,
        examples=["52:54:00:00:00:22"],
    )


class ClusterFile(Section):
    """An imagegen cluster file."""

    version: Annotated[int, WHOLE_NUMBER] = _key(
        "The version of this file format.", ge=FILE_VERSION, le=FILE_VERSION
    )
    name: Annotated[str, NAME] = _key(
        "The name of the cluster; artifacts begin with it.", examples=["quickstart"]
    )
    kubernetes: KubernetesSection
    network: NetworkSection
    control_plane: ControlPlaneSection = ControlPlaneSection.model_construct()
    runtime: Annotated[Runtime | None, choice_of(Runtime)] = _key(
        "What runs containers. Default: containerd (docker before Kubernetes 1.10).",
        default=None,
        examples=["containerd"],
    )
    pki: PkiSection = PkiSection.model_construct()
    bootstrap: BootstrapSection = BootstrapSection.model_construct()
    image: ImageSection = ImageSection.model_construct()
    targets: tuple[Annotated[Target, choice_of(Target)], ...] = _key(
        "Where the machines run; decides which payload limits are checked.",
        default=(Target.QEMU,),
        spelt=["qemu"],
        min_length=1,
    )
    access: AccessSection = AccessSection.model_construct()
    addons: tuple[Annotated[Addon, choice_of(Addon)], ...] = _key(
        "What runs in the cluster from the start, beside DNS and the pod network.",
        default=(),
        spelt=[],
        examples=[["metrics-server"]],
    )
    profiles: tuple[Annotated[str, TEXT], ...] = _key(
        "Folders with profiles of your own, relative to this file and below its folder.",
        default=(),
        spelt=[],
        examples=[["profiles"]],
    )
    nodes: tuple[NodeEntry, ...] = _key("The machines of the cluster.", min_length=1)
