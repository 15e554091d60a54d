"""The resolved cluster: every default filled in, every value typed. What the rest of the program reads.

Built only by ``imagegen.model.load``; knows nothing about YAML, files or how a value was spelt.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network

from imagegen.diagnostics import Span
from imagegen.model.version import Version


class Role(enum.StrEnum):
    """What a node does, in the order in which roles are joined in names (``etcd+master``)."""

    BASE = "base"
    ETCD = "etcd"
    MASTER = "master"
    WORKER = "worker"
    LB = "lb"


class Layout(enum.StrEnum):
    SYSTEMD = "systemd"
    STATIC_PODS = "static-pods"
    KUBEADM = "kubeadm"


class Cni(enum.StrEnum):
    LOOPBACK = "loopback"
    BRIDGE = "bridge"
    FLANNEL = "flannel"
    FLANNEL_ETCD = "flannel-etcd"
    CALICO = "calico"


class ProxyMode(enum.StrEnum):
    IPTABLES = "iptables"
    NFTABLES = "nftables"
    IPVS = "ipvs"


class NodeDns(enum.StrEnum):
    """Who answers for the names of the nodes, beside each node's own hosts file."""

    NONE = "none"
    LB = "lb"


class ClusterDns(enum.StrEnum):
    """Who answers for the names of services."""

    COREDNS = "coredns"
    NONE = "none"


class NodeTool(enum.StrEnum):
    """Programs that no service needs, for people who look around on a node."""

    CRICTL = "crictl"


class Addon(enum.StrEnum):
    METRICS_SERVER = "metrics-server"
    SAMPLE = "sample"


class Runtime(enum.StrEnum):
    CONTAINERD = "containerd"
    DOCKER = "docker"


class CertificateSet(enum.StrEnum):
    """A certificate for each purpose, or one a node for all of its servers and clients."""

    EACH = "each"
    SINGLE = "single"


class KeyAlgorithm(enum.StrEnum):
    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    ECDSA_P521 = "ecdsa-p521"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    ED25519 = "ed25519"


class BootstrapMethod(enum.StrEnum):
    TOKEN = "token"  # noqa: S105
    TOKEN_FILE = "token-file"  # noqa: S105


class OperatingSystem(enum.StrEnum):
    DEBIAN_12 = "debian-12"
    DEBIAN_13 = "debian-13"
    UBUNTU_2204 = "ubuntu-22.04"
    UBUNTU_2404 = "ubuntu-24.04"
    ORACLELINUX_7 = "oraclelinux-7"
    ORACLELINUX_9 = "oraclelinux-9"

    @property
    def family(self) -> str:
        """``debian`` (Debian and Ubuntu: apt, netplan or networkd) or ``rpm``."""
        return "rpm" if self.value.startswith("oraclelinux") else "debian"


class ImageMode(enum.StrEnum):
    GOLDEN = "golden"
    STOCK = "stock"


class ImagePki(enum.StrEnum):
    SEED = "seed"
    BAKED = "baked"


class Firmware(enum.StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class DiskFormat(enum.StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VDI = "vdi"
    VHD = "vhd"
    OVA = "ova"
    GCE = "gce"
    ISO = "iso"


class Target(enum.StrEnum):
    QEMU = "qemu"
    VIRTUALBOX = "virtualbox"
    VMWARE = "vmware"
    GCE = "gce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubernetes:
    version: Version
    layout: Layout
    #: component name → flag without leading dashes → value, both sorted; only what the user wrote
    extra_args: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    def extra_args_of(self, component: str) -> Mapping[str, str]:
        """The user's own flags of one component, such as ``kube-apiserver``; empty when there are none."""
        return dict(dict(self.extra_args).get(component, ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    nodes: IPv4Network
    gateway: IPv4Address | None
    nameservers: tuple[IPv4Address, ...]
    services: IPv4Network
    pods: IPv4Network
    dns: IPv4Address
    domain: str
    cni: Cni
    proxy: ProxyMode
    #: prefix length of the pod range that one node gets
    node_cidr_mask_size: int
    #: addresses or DNS names; empty means the distribution's own servers
    ntp_servers: tuple[str, ...] = ()
    node_dns: NodeDns = NodeDns.NONE
    cluster_dns: ClusterDns = ClusterDns.COREDNS

    @property
    def api_service(self) -> IPv4Address:
        """The ClusterIP of ``kubernetes.default``: the first address of the service range."""
        return self.services[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where clients reach the API: ``host`` is an address or a DNS name."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PkiPolicy:
    key: KeyAlgorithm
    ca_lifetime: timedelta
    lifetime: timedelta
    certificates: CertificateSet = CertificateSet.EACH


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    method: BootstrapMethod
    #: counted from the first boot of the first master; zero means that the token does not expire
    token_lifetime: timedelta
    approve_serving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    os: OperatingSystem
    mode: ImageMode
    pki: ImagePki
    size_mib: int
    firmware: tuple[Firmware, ...]
    formats: tuple[DiskFormat, ...]
    #: Debian or Ubuntu archive snapshot as ``YYYYMMDDTHHMMSSZ``, or None for the archive of today
    snapshot: str | None
    packages: tuple[str, ...]
    #: in declaration order of ``NodeTool``
    tools: tuple[NodeTool, ...] = (NodeTool.CRICTL,)
    #: of the machine that an appliance archive describes; None: what its roles need
    cpus: int | None = None
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    user: str
    ssh_authorized_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    #: in declaration order of ``Role``, without duplicates
    roles: tuple[Role, ...]
    #: None when the node takes its address by DHCP
    address: IPv4Address | None
    #: lower case, colon-separated, or None
    mac: str | None
    #: whether a new machine takes the place of an old one that the others know; never in the file
    rejoins: bool = False
    span: Span | None = field(default=None, compare=False)

    @property
    def role_set(self) -> str:
        """The roles joined by ``+``: the name of the golden image that this node boots."""
        return "+".join(self.roles)

    def has(self, role: Role) -> bool:
        return role in self.roles


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """One cluster, complete and valid. ``profile_dirs``: the user's own profile folders, absolute paths."""

    name: str
    kubernetes: Kubernetes
    network: Network
    endpoint: Endpoint
    runtime: Runtime
    pki: PkiPolicy
    bootstrap: Bootstrap
    image: Image
    targets: tuple[Target, ...]
    access: Access
    nodes: tuple[Node, ...]
    profile_dirs: tuple[str, ...]
    #: in declaration order of ``Addon``
    addons: tuple[Addon, ...] = ()
    #: the file the cluster was read from, as the user named it
    file: str = field(compare=False)
    #: model path (``network.services``, ``nodes[2].address``) → place in the file
    spans: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)

    def admit(self, *keys: str) -> Cluster:
        """The same cluster, where whoever holds one of these SSH keys may log in, too."""
        access = replace(self.access, ssh_authorized_keys=(*self.access.ssh_authorized_keys, *keys))
        return replace(self, access=access)

    def rejoin(self, name: str) -> Cluster:
        """The same cluster, where a new machine takes the place of this node's old one."""
        nodes = tuple(replace(node, rejoins=True) if node.name == name else node for node in self.nodes)
        return replace(self, nodes=nodes)

    def nodes_with(self, role: Role) -> tuple[Node, ...]:
        return self._by_role[role]

    def has_kubelet(self, roles: tuple[Role, ...]) -> bool:
        """Whether machines with these roles run pods: workers, and masters whose control plane is pods."""
        has_pods = self.kubernetes.layout is not Layout.SYSTEMD
        return Role.WORKER in roles or (has_pods and Role.MASTER in roles)

    def joins_by_token(self, roles: tuple[Role, ...]) -> bool:
        """Whether the kubelet gets its first certificate by TLS bootstrap.

        The kubelet that starts an API server cannot wait for one.
        """
        starts_api = self.kubernetes.layout is Layout.STATIC_PODS and Role.MASTER in roles
        return self.has_kubelet(roles) and not starts_api

    @cached_property
    def kubelet_nodes(self) -> tuple[Node, ...]:
        """The nodes that the cluster will know as its own, in the order of the file."""
        return tuple(n for n in self.nodes if self.has_kubelet(n.roles))

    @cached_property
    def _by_role(self) -> dict[Role, tuple[Node, ...]]:
        return {role: tuple(n for n in self.nodes if role in n.roles) for role in Role}

    @cached_property
    def role_sets(self) -> tuple[tuple[Role, ...], ...]:
        """Every distinct set of roles, in order of first use: one golden image each."""
        return tuple(dict.fromkeys(n.roles for n in self.nodes))

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {n.name: n for n in self.nodes}

    def nameservers_of(self, node: Node) -> tuple[IPv4Address, ...]:
        """What a node asks for names: the load balancers where they answer, which ask the others."""
        balancers = [n.address for n in self.nodes_with(Role.LB) if n.address is not None]
        if self.network.node_dns is NodeDns.LB and not node.has(Role.LB) and balancers:
            return tuple(balancers)
        return self.network.nameservers

    def node(self, name: str) -> Node:
        """The node of that name; raises KeyError."""
        return self._by_name[name]

    def span_of(self, path: str) -> Span | None:
        """Where the user wrote ``path``, else the closest enclosing place, else None."""
        while path:
            if path in self.spans:
                return self.spans[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return None
