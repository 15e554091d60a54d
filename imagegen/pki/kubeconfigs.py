"""Kubeconfigs as file bodies: text from the model, certificates, keys and tokens as references."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from imagegen.content import Content, Ref
from imagegen.emit import emit_yaml
from imagegen.model.cluster import Cluster, Node
from imagegen.pki import inventory, paths, spec
from imagegen.pki.resolve import resolve_content as resolve_content

#: The API server of the same node: components on a master do not depend on the load balancer.
LOCAL_API_SERVER = "https://127.0.0.1:6443"

_CA = Ref(f"{spec.CLUSTER_CA}.crt", public=True, encoding="base64")
#: A mark that needs quotes in YAML, so that the value that takes its place is quoted too.
_MARK = re.compile(r"@ref(\d+)@")


@dataclass(frozen=True, slots=True)
class _Account:
    """A user entry: the stem of a certificate or the name of a token in the store, or a file on the node."""

    certificate: str = ""
    token: str = ""
    certificate_file: str = ""


def admin_kubeconfig(cluster: Cluster) -> Content:
    """For people's daily work, through the endpoint."""
    return _kubeconfig(cluster.name, cluster.endpoint.url, "admin", _Account(certificate=spec.ADMIN))


def super_admin_kubeconfig(cluster: Cluster) -> Content:
    """For the day when RBAC locks everybody out: group system:masters, through the endpoint."""
    return _kubeconfig(
        cluster.name, cluster.endpoint.url, "super-admin", _Account(certificate=spec.SUPER_ADMIN)
    )


def controller_manager_kubeconfig(cluster: Cluster, node: Node) -> Content:
    return _local(cluster, node, "controller-manager")


def scheduler_kubeconfig(cluster: Cluster, node: Node) -> Content:
    return _local(cluster, node, "scheduler")


def csr_approver_kubeconfig(cluster: Cluster, node: Node) -> Content:
    return _local(cluster, node, "csr-approver")


def first_boot_kubeconfig(cluster: Cluster, node: Node) -> Content:
    return _local(cluster, node, "first-boot")


def master_kubelet_kubeconfig(cluster: Cluster, node: Node) -> Content:
    """For the kubelet of a master that runs the API server as a pod: the node's own certificate, embedded."""
    return _local(cluster, node, "kubelet")


def kube_proxy_kubeconfig(cluster: Cluster, node: Node) -> Content:
    """For kube-proxy on a master that is also a worker: its own certificate, embedded."""
    return _kubeconfig(
        cluster.name,
        cluster.endpoint.url,
        "kube-proxy",
        _Account(certificate=f"nodes/{node.name}/kube-proxy"),
    )


def kube_proxy_worker_kubeconfig(cluster: Cluster) -> Content:
    """For kube-proxy on a pure worker: the certificate that the kubelet got by TLS bootstrap; no secret."""
    return _kubeconfig(
        cluster.name,
        cluster.endpoint.url,
        "kubelet",
        _Account(certificate_file=paths.KUBELET_CLIENT_CERTIFICATE),
    )


def bootstrap_kubeconfig(cluster: Cluster, node: Node) -> Content:
    """For the kubelet's first contact: the token of this one node."""
    return _kubeconfig(
        cluster.name,
        cluster.endpoint.url,
        "kubelet-bootstrap",
        _Account(token=inventory.bootstrap_token_name(node.name)),
    )


def _local(cluster: Cluster, node: Node, certificate: str) -> Content:
    account = _Account(certificate=f"nodes/{node.name}/{certificate}")
    return _kubeconfig(cluster.name, LOCAL_API_SERVER, certificate, account)


def _kubeconfig(cluster_name: str, server: str, user: str, account: _Account) -> Content:
    """The parts of one kubeconfig; the text around the references is made once for all nodes."""
    if account.certificate:
        certificate = Ref(f"{account.certificate}.crt", public=True, encoding="base64")
        refs: tuple[Ref, ...] = (_CA, certificate, Ref(f"{account.certificate}.key", encoding="base64"))
        texts = _template(cluster_name, server, user, "certificate")
    elif account.token:
        refs = (_CA, Ref(account.token))
        texts = _template(cluster_name, server, user, "token")
    else:
        refs = (_CA,)
        texts = _template(cluster_name, server, user, account.certificate_file)
    return _interleave(texts, refs)


def _interleave(texts: tuple[str, ...], refs: tuple[Ref, ...]) -> Content:
    parts: list[str | bytes | Ref] = [texts[0]]
    for ref, text in zip(refs, texts[1:], strict=True):
        parts += (ref, text)
    return tuple(parts)


@lru_cache(maxsize=64)
def _template(cluster_name: str, server: str, user: str, credential: str) -> tuple[str, ...]:
    """The text around each reference: the CA first, then what ``credential`` needs."""
    credentials: dict[str, dict[str, str]] = {
        "certificate": {"client-certificate-data": "@ref1@", "client-key-data": "@ref2@"},
        "token": {"token": "@ref1@"},
    }
    context = f"{user}@{cluster_name}"
    text = emit_yaml(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": cluster_name,
                    "cluster": {"certificate-authority-data": "@ref0@", "server": server},
                }
            ],
            "users": [
                {
                    "name": context,
                    "user": credentials.get(
                        credential, {"client-certificate": credential, "client-key": credential}
                    ),
                }
            ],
            "contexts": [{"name": context, "context": {"cluster": cluster_name, "user": context}}],
            "current-context": context,
        }
    )
    return tuple(_MARK.split(text)[::2])
