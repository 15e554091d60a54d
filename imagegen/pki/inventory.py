"""Which authorities and certificates a cluster has, and which names they carry: one table, and who asks it.

Knows nothing about keys, files or clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import IPv4Address

from imagegen.model.cluster import Addon, CertificateSet, Cluster, Cni, KeyAlgorithm, Layout, Node, Role
from imagegen.model.compatibility import KUBEADM_ECDSA_ACCOUNT_FIRST
from imagegen.pki import paths
from imagegen.pki.spec import (
    ADMIN,
    ADMIN_SUBJECT,
    CLUSTER_CA,
    CONTROLLER_MANAGER_SUBJECT,
    CSR_APPROVER_SUBJECT,
    ETCD_CA,
    FIRST_BOOT_SUBJECT,
    FLANNEL_SUBJECT,
    FRONT_PROXY_CA,
    FRONT_PROXY_SUBJECT,
    KUBE_PROXY_SUBJECT,
    KUBELET_CLIENT_SUBJECT,
    METRICS_SERVER,
    SCHEDULER_SUBJECT,
    SINGLE,
    SINGLE_SUBJECT,
    SUPER_ADMIN,
    SUPER_ADMIN_SUBJECT,
    AuthoritySpec,
    CertificateSpec,
    Placement,
    Subject,
    Usage,
)

LOOPBACK = IPv4Address("127.0.0.1")
#: the name by which API servers dial metrics-server
METRICS_SERVER_HOST = "metrics-server.kube-system.svc"

_SERVER = (Usage.SERVER,)
_CLIENT = (Usage.CLIENT,)
_BOTH = (Usage.SERVER, Usage.CLIENT)

#: the names and addresses that a certificate holds
_Names = tuple[tuple[str, ...], tuple[IPv4Address, ...]]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A row of the certificate table: one certificate on every node that has all of ``roles``."""

    name: str
    roles: tuple[Role, ...]
    issuer: str
    subject: Subject
    usages: tuple[Usage, ...]
    names: Callable[[Cluster, Node], _Names]
    placement: Placement | None
    why: str
    #: only with this pod network; None: with all
    cni: Cni | None = None
    layouts: frozenset[Layout] = frozenset(Layout)
    #: only where the machine runs a kubelet
    with_kubelet: bool = False

    def subject_of(self, node: Node) -> Subject:
        """The subject with the node's name where it is written ``{node}``."""
        if "{node}" not in self.subject.common_name:
            return self.subject
        return Subject(self.subject.common_name.format(node=node.name), self.subject.organization)


def _no_names(_cluster: Cluster, _node: Node) -> _Names:
    return ((), ())


def _node_names(_cluster: Cluster, node: Node) -> _Names:
    """The node itself, from outside and over loopback."""
    addresses = (node.address, LOOPBACK) if node.address else (LOOPBACK,)
    return (tuple(dict.fromkeys((node.name, "localhost"))), tuple(dict.fromkeys(addresses)))


def _apiserver_names(cluster: Cluster, node: Node) -> _Names:
    """Every name under which a client may dial the API server of ``node``."""
    names = [*service_names(cluster), *_node_names(cluster, node)[0]]
    addresses = [*_node_names(cluster, node)[1], cluster.network.api_service]
    endpoint = parse_address(cluster.endpoint.host)
    if endpoint is None:
        names.append(cluster.endpoint.host)
    else:
        addresses.append(endpoint)
    for balancer in cluster.nodes_with(Role.LB):
        names.append(balancer.name)
        if balancer.address:
            addresses.append(balancer.address)
    return (tuple(dict.fromkeys(names)), tuple(dict.fromkeys(addresses)))


def service_names(cluster: Cluster) -> tuple[str, ...]:
    """The names of the Service ``kubernetes`` in the namespace ``default``, shortest first."""
    full = "kubernetes.default.svc"
    return ("kubernetes", "kubernetes.default", full, f"{full}.{cluster.network.domain}")


def parse_address(host: str) -> IPv4Address | None:
    """``host`` as an address, or None when it is a name."""
    try:
        return IPv4Address(host)
    except ValueError:
        return None


_DAEMONS = frozenset({paths.USER_APISERVER, paths.USER_CONTROLLER_MANAGER, paths.USER_SCHEDULER})
#: layouts in which the daemons get what we issue; kubeadm issues some certificates itself, with our CA
_OURS = frozenset({Layout.SYSTEMD, Layout.STATIC_PODS})
_M = (Role.MASTER,)
_E = (Role.ETCD,)

_LEAVES: tuple[_Leaf, ...] = (
    _Leaf(
        "apiserver", _M, CLUSTER_CA, Subject("kube-apiserver"), _SERVER, _apiserver_names,
        Placement(paths.APISERVER, paths.USER_APISERVER),
        "the API server proves itself to every client",
    ),
    _Leaf(
        "apiserver-kubelet-client", _M, CLUSTER_CA, KUBELET_CLIENT_SUBJECT, _CLIENT, _no_names,
        Placement(paths.APISERVER_KUBELET_CLIENT, paths.USER_APISERVER),
        "the API server reads logs and runs commands through the kubelets",
    ),
    _Leaf(
        "apiserver-etcd-client", _M, ETCD_CA, Subject("kube-apiserver"), _CLIENT, _no_names,
        Placement(paths.APISERVER_ETCD_CLIENT, paths.USER_APISERVER),
        "only API servers may read and write etcd",
    ),
    _Leaf(
        "front-proxy-client", _M, FRONT_PROXY_CA, FRONT_PROXY_SUBJECT, _CLIENT, _no_names,
        Placement(paths.FRONT_PROXY_CLIENT, paths.USER_APISERVER),
        "the API server passes requests on to aggregated API servers",
    ),
    _Leaf(
        "controller-manager-server", _M, CLUSTER_CA, Subject("kube-controller-manager"), _SERVER, _node_names,
        Placement(paths.CONTROLLER_MANAGER_SERVER, paths.USER_CONTROLLER_MANAGER),
        "health and metrics of the controller manager on port 10257", layouts=_OURS,
    ),
    _Leaf(
        "scheduler-server", _M, CLUSTER_CA, Subject("kube-scheduler"), _SERVER, _node_names,
        Placement(paths.SCHEDULER_SERVER, paths.USER_SCHEDULER),
        "health and metrics of the scheduler on port 10259", layouts=_OURS,
    ),
    _Leaf(
        "controller-manager", _M, CLUSTER_CA, CONTROLLER_MANAGER_SUBJECT, _CLIENT, _no_names, None,
        "the controller manager's identity at the API server", layouts=_OURS,
    ),
    _Leaf(
        "scheduler", _M, CLUSTER_CA, SCHEDULER_SUBJECT, _CLIENT, _no_names, None,
        "the scheduler's identity at the API server", layouts=_OURS,
    ),
    _Leaf(
        "csr-approver", _M, CLUSTER_CA, CSR_APPROVER_SUBJECT, _CLIENT, _no_names, None,
        "signs off what kubelets may ask for, and nothing else",
    ),
    _Leaf(
        "first-boot", _M, CLUSTER_CA, FIRST_BOOT_SUBJECT, _CLIENT, _no_names, None,
        "applies bindings, tokens and add-ons on the first boot; never leaves the master",
    ),
    _Leaf(
        "kubelet", _M, CLUSTER_CA, Subject("system:node:{node}", "system:nodes"), _CLIENT, _no_names, None,
        "the kubelet of a master that starts the API server itself cannot ask it for a certificate",
        layouts=frozenset({Layout.STATIC_PODS}),
    ),
    _Leaf(
        "kube-proxy", _M, CLUSTER_CA, KUBE_PROXY_SUBJECT, _CLIENT, _no_names, None,
        "kube-proxy on a master; pure workers use the kubelet's certificate",
        layouts=_OURS, with_kubelet=True,
    ),
    _Leaf(
        "etcd-server", _E, ETCD_CA, Subject("etcd"), _BOTH, _node_names,
        Placement(paths.ETCD_SERVER, paths.USER_ETCD),
        "etcd proves itself to clients; its gateway dials itself with this certificate, hence both usages",
    ),
    _Leaf(
        "etcd-peer", _E, ETCD_CA, Subject("etcd-peer"), _BOTH, _node_names,
        Placement(paths.ETCD_PEER, paths.USER_ETCD),
        "members dial and answer each other with one certificate, hence both usages",
    ),
    _Leaf(
        "etcd-healthcheck-client", _E, ETCD_CA, Subject("kube-etcd-healthcheck-client"), _CLIENT, _no_names,
        Placement(paths.ETCD_HEALTHCHECK_CLIENT, "root"),
        "health checks and etcdctl on the member itself",
    ),
    *(
        _Leaf(
            "flannel", roles, ETCD_CA, FLANNEL_SUBJECT, _CLIENT, _no_names,
            Placement(paths.FLANNEL_ETCD_CLIENT, "root"),
            "flanneld keeps the pod ranges of the nodes in etcd", Cni.FLANNEL_ETCD,
        )
        for roles in (_M, (Role.WORKER,))
    ),
)  # fmt: skip


def is_single(cluster: Cluster) -> bool:
    """Whether each node has one certificate for all of its servers and clients."""
    return cluster.pki.certificates is CertificateSet.SINGLE


def etcd_authority(cluster: Cluster) -> str:
    """The stem of the authority that members and clients of etcd trust."""
    return CLUSTER_CA if is_single(cluster) else ETCD_CA


def kubelet_client_subject(cluster: Cluster) -> Subject:
    """As whom the API server comes to kubelets."""
    return SINGLE_SUBJECT if is_single(cluster) else KUBELET_CLIENT_SUBJECT


def list_authorities(cluster: Cluster) -> tuple[AuthoritySpec, ...]:
    """The authorities of the cluster, in order of issue."""
    rows = (
        (CLUSTER_CA, "kubernetes-ca", "signs the API server, its clients, and the kubelets' requests"),
        (ETCD_CA, "etcd-ca", "signs etcd members and the few clients that may read etcd"),
        (FRONT_PROXY_CA, "front-proxy-ca", "signs only the API server's identity at aggregated API servers"),
    )
    return tuple(
        AuthoritySpec(
            name=name, subject=Subject(cn), key=cluster.pki.key, lifetime=cluster.pki.ca_lifetime, why=why
        )
        for name, cn, why in rows
        if name != ETCD_CA or not is_single(cluster)
    )


def service_account_algorithm(cluster: Cluster) -> KeyAlgorithm:
    """The algorithm of the key pair that signs service-account tokens.

    Kubernetes signs tokens with RSA or ECDSA only (pkg/serviceaccount/jwt.go), so Ed25519 becomes P-256.
    Up to 1.25 kubeadm lets no master join beside an ECDSA key, so that becomes RSA.
    """
    wanted = KeyAlgorithm.ECDSA_P256 if cluster.pki.key is KeyAlgorithm.ED25519 else cluster.pki.key
    is_old = cluster.kubernetes.version.minor < KUBEADM_ECDSA_ACCOUNT_FIRST
    if cluster.kubernetes.layout is Layout.KUBEADM and is_old and wanted.value.startswith("ecdsa"):
        return KeyAlgorithm.RSA_2048
    return wanted


@cache
def _select_leaves(roles: tuple[Role, ...], cni: Cni, layout: Layout, has_kubelet: bool) -> tuple[_Leaf, ...]:
    """Each leaf once, though several of its rows may fit."""
    found = (
        leaf
        for leaf in _LEAVES
        if all(role in roles for role in leaf.roles)
        and leaf.cni in (None, cni)
        and layout in leaf.layouts
        and (has_kubelet or not leaf.with_kubelet)
    )
    return tuple({leaf.name: leaf for leaf in found}.values())


def owner_of(user: str, layout: Layout) -> str:
    """Who owns what ``user`` reads: containers that kubeadm describes run as root."""
    return "root" if layout is Layout.KUBEADM and user in _DAEMONS else user


def _place(placement: Placement | None, layout: Layout) -> Placement | None:
    if placement is None or owner_of(placement.owner, layout) == placement.owner:
        return placement
    return replace(placement, owner=owner_of(placement.owner, layout))


def list_node_certificates(cluster: Cluster, node: Node) -> Iterator[CertificateSpec]:
    """The leaf certificates of one node; none for a node that is only worker, lb or base."""
    found = _list_leaves(cluster, node)
    if not is_single(cluster):
        yield from found
        return
    merged: list[CertificateSpec] = []
    for leaf in found:
        if is_merged(leaf):
            merged.append(leaf)
        else:
            yield leaf
    if merged:
        yield _merge(merged, node)


def is_merged(leaf: CertificateSpec) -> bool:
    """Whether a node's single certificate takes the place of this one.

    Identities in kubeconfigs stay, because their names are their rights, and so does what aggregated API
    servers trust.
    """
    return leaf.placement is not None and leaf.issuer != FRONT_PROXY_CA


def _merge(leaves: list[CertificateSpec], node: Node) -> CertificateSpec:
    """One certificate with all names, usages and places."""
    places = tuple(leaf.placement for leaf in leaves if leaf.placement is not None)
    usages = {usage for leaf in leaves for usage in leaf.usages}
    return replace(
        leaves[0],
        name=f"nodes/{node.name}/{SINGLE}",
        issuer=CLUSTER_CA,
        subject=SINGLE_SUBJECT,
        usages=tuple(usage for usage in Usage if usage in usages),
        dns_names=tuple(dict.fromkeys(name for leaf in leaves for name in leaf.dns_names)),
        addresses=tuple(dict.fromkeys(address for leaf in leaves for address in leaf.addresses)),
        placement=places[0],
        further=places[1:],
        why="pki.certificates is single: one certificate for every server and client of this node",
    )


def _list_leaves(cluster: Cluster, node: Node) -> Iterator[CertificateSpec]:
    cni, layout = cluster.network.cni, cluster.kubernetes.layout
    for leaf in _select_leaves(node.roles, cni, layout, cluster.has_kubelet(node.roles)):
        dns_names, addresses = leaf.names(cluster, node)
        yield CertificateSpec(
            name=f"nodes/{node.name}/{leaf.name}",
            issuer=leaf.issuer,
            subject=leaf.subject_of(node),
            usages=leaf.usages,
            dns_names=dns_names,
            addresses=addresses,
            node=node.name,
            key=cluster.pki.key,
            lifetime=cluster.pki.lifetime,
            placement=_place(leaf.placement, layout),
            why=leaf.why,
        )


def list_certificates(cluster: Cluster) -> Iterator[CertificateSpec]:
    """Every leaf certificate of the cluster: the people's, then node by node in the order of the file."""
    people = (
        (ADMIN, ADMIN_SUBJECT, "daily administration; the binding of its group can be taken back"),
        (SUPER_ADMIN, SUPER_ADMIN_SUBJECT, "break glass: works even when RBAC is broken; keep it offline"),
    )
    for name, subject, why in people:
        yield CertificateSpec(
            name=name,
            issuer=CLUSTER_CA,
            subject=subject,
            usages=_CLIENT,
            dns_names=(),
            addresses=(),
            node=None,
            key=cluster.pki.key,
            lifetime=cluster.pki.lifetime,
            placement=None,
            why=why,
        )
    if Addon.METRICS_SERVER in cluster.addons:
        yield CertificateSpec(
            name=METRICS_SERVER,
            issuer=CLUSTER_CA,
            subject=Subject("metrics-server"),
            usages=_SERVER,
            dns_names=(METRICS_SERVER_HOST, f"{METRICS_SERVER_HOST}.{cluster.network.domain}"),
            addresses=(),
            node=None,
            key=cluster.pki.key,
            lifetime=cluster.pki.lifetime,
            placement=None,
            why="metrics-server proves itself to the API server; its pod gets it as a Secret",
        )
    for node in cluster.nodes:
        yield from list_node_certificates(cluster, node)


def bootstrap_token_name(node: str) -> str:
    """The store entry that holds the bootstrap token of ``node``."""
    return f"nodes/{node}/bootstrap-token"


def has_bootstrap_token(cluster: Cluster, node: Node) -> bool:
    """Whether the node's kubelet joins with a token of its own."""
    return cluster.joins_by_token(node.roles)
