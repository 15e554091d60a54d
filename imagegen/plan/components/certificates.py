"""Places authorities, certificates, keys and kubeconfigs on the nodes that need them, and on no other."""

from __future__ import annotations

from collections.abc import Iterator

from imagegen.content import Content, Ref
from imagegen.model.cluster import Cluster, Layout, Node, Role
from imagegen.pki import inventory, kubeconfigs, paths, spec
from imagegen.plan.component import Context
from imagegen.plan.items import Directory, File, Fragment, Item, Origin, Phase

_WHERE = "component certificates"


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    """Authorities, the service-account pair and the CA key, by role; the directories that hold them."""
    items: list[Item] = []
    if Role.MASTER in roles or Role.WORKER in roles:
        items += [
            _directory(paths.KUBERNETES, "kubeconfigs and configuration of the components"),
            _directory(paths.PKI, "certificates and keys of the components"),
            _public(paths.CA, f"{spec.CLUSTER_CA}.crt", "every component trusts the cluster CA"),
        ]
    if Role.MASTER in roles:
        items += _list_master_files(ctx.cluster)
    if Role.ETCD in roles:
        authority = f"{inventory.etcd_authority(ctx.cluster)}.crt"
        items += [
            _directory("/etc/etcd", "configuration of etcd"),
            _directory(paths.ETCD_PKI, "certificates and keys of etcd"),
            _public(paths.ETCD_CA, authority, "members and clients of etcd are signed by it"),
        ]
    has_kubeadm = ctx.cluster.kubernetes.layout is Layout.KUBEADM
    if Role.WORKER in roles and Role.MASTER not in roles and not has_kubeadm:
        items.append(
            _file(
                paths.KUBE_PROXY_KUBECONFIG,
                kubeconfigs.kube_proxy_worker_kubeconfig(ctx.cluster),
                "root",
                "kube-proxy uses the certificate that the kubelet got, so that a worker's seed has no key",
            )
        )
    return Fragment(tuple(items))


def plan_node(ctx: Context, node: Node) -> Fragment:
    """The leaf certificates of this node with their keys, and its kubeconfigs."""
    items: list[Item] = []
    for certificate in inventory.list_node_certificates(ctx.cluster, node):
        if certificate.placement is not None:
            for place in (certificate.placement, *certificate.further):
                items += _list_pair(certificate, place)
    items += _list_kubeconfigs(ctx, node)
    return Fragment(tuple(items))


def _list_master_files(cluster: Cluster) -> Iterator[Item]:
    layout, etcd = cluster.kubernetes.layout, inventory.etcd_authority(cluster)
    apiserver = inventory.owner_of(paths.USER_APISERVER, layout)
    manager = inventory.owner_of(paths.USER_CONTROLLER_MANAGER, layout)
    yield _public(
        paths.FRONT_PROXY_CA, f"{spec.FRONT_PROXY_CA}.crt", "whom the API server takes a proxy's word from"
    )
    yield _public(paths.APISERVER_ETCD_CA, f"{etcd}.crt", "the API server trusts etcd members by it")
    yield _public(
        paths.SERVICE_ACCOUNT_PUBLIC, f"{spec.SERVICE_ACCOUNT}.pub", "checks service-account tokens"
    )
    account_key = f"{spec.SERVICE_ACCOUNT}.key"
    yield _secret(paths.SERVICE_ACCOUNT_KEY, account_key, apiserver, "signs requested tokens")
    if manager != apiserver:
        yield _secret(
            paths.CONTROLLER_MANAGER_SERVICE_ACCOUNT_KEY,
            account_key,
            manager,
            "signs token Secrets; the same key in a file of its own, as each user reads only its own files",
        )
    else:
        yield _secret(
            paths.FRONT_PROXY_CA_KEY,
            f"{spec.FRONT_PROXY_CA}.key",
            "root",
            "kubeadm joins a master only beside the keys of both authorities",
        )
    yield _secret(
        paths.CA_KEY,
        f"{spec.CLUSTER_CA}.key",
        manager,
        "the controller manager signs the kubelets' requests with it",
    )


def _list_pair(certificate: spec.CertificateSpec, place: spec.Placement) -> Iterator[Item]:
    origin = Origin(_WHERE, reason=certificate.why)
    yield File(
        phase=Phase.BOOT,
        origin=origin,
        path=f"{place.stem}.crt",
        content=(Ref(f"{certificate.name}.crt", public=True),),
        mode=place.certificate_mode,
        owner=place.owner,
        group=place.owner,
    )
    yield File(
        phase=Phase.BOOT,
        origin=origin,
        path=f"{place.stem}.key",
        content=(Ref(f"{certificate.name}.key"),),
        mode=place.key_mode,
        owner=place.owner,
        group=place.owner,
    )


def _list_kubeconfigs(ctx: Context, node: Node) -> Iterator[Item]:
    cluster = ctx.cluster
    has_kubeadm = cluster.kubernetes.layout is Layout.KUBEADM
    if node.has(Role.MASTER) and not has_kubeadm:
        yield _file(
            paths.CONTROLLER_MANAGER_KUBECONFIG,
            kubeconfigs.controller_manager_kubeconfig(cluster, node),
            paths.USER_CONTROLLER_MANAGER,
            "the controller manager talks to the API server of its own node",
        )
        yield _file(
            paths.SCHEDULER_KUBECONFIG,
            kubeconfigs.scheduler_kubeconfig(cluster, node),
            paths.USER_SCHEDULER,
            "the scheduler talks to the API server of its own node",
        )
    if node.has(Role.MASTER):
        yield _file(
            paths.CSR_APPROVER_KUBECONFIG,
            kubeconfigs.csr_approver_kubeconfig(cluster, node),
            paths.USER_CSR_APPROVER,
            "the approver may read and sign off certificate requests and nothing else",
        )
        yield _file(
            paths.FIRST_BOOT_KUBECONFIG,
            kubeconfigs.first_boot_kubeconfig(cluster, node),
            "root",
            "first boot applies bindings and tokens before any other identity has rights",
        )
    if has_kubeadm:
        return
    if cluster.joins_by_token(node.roles):
        yield _file(
            paths.BOOTSTRAP_KUBECONFIG,
            kubeconfigs.bootstrap_kubeconfig(cluster, node),
            "root",
            "the kubelet asks for its certificate with this node's own token",
        )
    elif cluster.has_kubelet(node.roles):
        yield _file(
            paths.MASTER_KUBELET_KUBECONFIG,
            kubeconfigs.master_kubelet_kubeconfig(cluster, node),
            "root",
            "the kubelet starts the API server, so it cannot wait for it to sign a certificate",
        )
    if node.has(Role.MASTER) and cluster.has_kubelet(node.roles):
        yield _file(
            paths.KUBE_PROXY_KUBECONFIG,
            kubeconfigs.kube_proxy_kubeconfig(cluster, node),
            "root",
            "kube-proxy on a master has an identity of its own",
        )


def _directory(path: str, reason: str) -> Directory:
    return Directory(phase=Phase.BAKE, origin=Origin(_WHERE, reason=reason), path=path)


def _public(path: str, name: str, reason: str) -> File:
    return File(
        phase=Phase.BOOT, origin=Origin(_WHERE, reason=reason), path=path, content=(Ref(name, public=True),)
    )


def _secret(path: str, name: str, owner: str, reason: str) -> File:
    return _file(path, (Ref(name),), owner, reason)


def _file(path: str, content: Content, owner: str, reason: str) -> File:
    return File(
        phase=Phase.BOOT,
        origin=Origin(_WHERE, reason=reason),
        path=path,
        content=content,
        mode="0600",
        owner=owner,
        group=owner,
    )
