"""A new machine in the place of an old one: the steps, in their order, and the Secret of its new token.

What the cluster must forget depends on the node's roles; the seed itself is that of every node.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from imagegen.emit import emit_yaml
from imagegen.errors import UsageError
from imagegen.kubernetes.etcd import CLIENT_PORT, PEER_PORT
from imagegen.kubernetes.kubeadm import TOKEN_GROUP
from imagegen.kubernetes.manifests.access import NODE_BOOTSTRAPPERS_PREFIX
from imagegen.kubernetes.manifests.objects import MANAGED_BY, Manifest
from imagegen.model.cluster import BootstrapMethod, Cluster, ImagePki, Layout, Node, Role
from imagegen.pki import paths

#: beside the node's seed, for ``kubectl apply``
TOKEN_FILE = "bootstrap-token.yaml"  # noqa: S105
#: the cluster-info ConfigMap gets one signature a token; see cloud-init/bootstrap_tokens.py
_MAX_SIGNING_TOKENS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do. ``command`` is a line for a shell, empty when people have to do it."""

    what: str
    command: str = ""


def check_replaceable(cluster: Cluster, node: Node) -> None:
    """Raise UsageError when a new machine with a new seed would not be the node again."""
    if node.has(Role.ETCD) and len(cluster.nodes_with(Role.ETCD)) == 1:
        raise UsageError(
            f"{node.name} is the only member of etcd: with its disk goes all that the cluster knows",
            hint="attach a new seed to the machine as it is (imagegen seed), or restore a snapshot of etcd",
        )
    if node.has(Role.ETCD) and cluster.image.pki is ImagePki.BAKED:
        raise UsageError(
            f"{node.name} has its seed in its image, which says that etcd is new",
            hint="set image.pki: seed for members of etcd",
        )


def has_new_token(cluster: Cluster, node: Node) -> bool:
    """Whether the new machine joins with a token that the running cluster has to be told."""
    return cluster.joins_by_token(node.roles) and cluster.bootstrap.method is BootstrapMethod.TOKEN


def make_token_secret(cluster: Cluster, node: Node, token: str, now: datetime) -> Manifest:
    """The Secret that first boot would have made, as ``cloud-init/bootstrap_tokens.py`` does it."""
    token_id, _, secret = token.partition(".")
    groups = [f"{NODE_BOOTSTRAPPERS_PREFIX}{node.name}"]
    groups += [TOKEN_GROUP] if cluster.kubernetes.layout is Layout.KUBEADM else []
    data = {
        "token-id": token_id,
        "token-secret": secret,
        "description": f"TLS bootstrap of node {node.name}",
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": ",".join(groups),
    }
    if len(cluster.kubelet_nodes) <= _MAX_SIGNING_TOKENS:
        data["usage-bootstrap-signing"] = "true"
    if cluster.bootstrap.token_lifetime:
        data["expiration"] = (now + cluster.bootstrap.token_lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {
            "name": name_token_secret(token),
            "namespace": "kube-system",
            "labels": dict(MANAGED_BY),
        },
        "stringData": data,
    }


def emit_token_secret(cluster: Cluster, node: Node, token: str, now: datetime) -> bytes:
    """The Secret as a file for ``kubectl apply``."""
    return emit_yaml(make_token_secret(cluster, node, token, now)).encode()


def name_token_secret(token: str) -> str:
    """The Secret's name; it holds the public half of the token alone."""
    return f"bootstrap-token-{token.partition('.')[0]}"


def list_steps(cluster: Cluster, node: Node, folder: str, former_token: str = "") -> Iterator[Step]:
    """What to do with a new seed in ``folder``, in this order. ``former_token`` is the old one, of which only
    the public half is named.
    """
    name = shlex.quote(node.name)
    if cluster.has_kubelet(node.roles):
        drain = f"kubectl drain {name} --ignore-daemonsets --delete-emptydir-data --force --timeout=120s"
        yield Step(what="move its pods; a node that is dead has none to ask", command=drain)
    yield Step(what="switch the old machine off for good, and destroy its disk: it holds keys")
    if cluster.has_kubelet(node.roles):
        yield Step(what="let the cluster forget it", command=f"kubectl delete node {name} --ignore-not-found")
    if node.has(Role.ETCD):
        yield from _list_member_steps(cluster, node)
    if has_new_token(cluster, node):
        if former_token:
            secret = name_token_secret(former_token)
            command = f"kubectl -n kube-system delete secret {secret} --ignore-not-found"
            yield Step(what="take back its old token", command=command)
        command = f"kubectl apply -f {shlex.quote(f'{folder}/{TOKEN_FILE}')}"
        yield Step(
            what="tell the cluster its new token, which lives as long as the file says", command=command
        )
    if cluster.image.pki is ImagePki.BAKED:
        yield Step(
            what="build its image again: its seed is inside", command=f"imagegen build … --node {name}"
        )
        yield Step(what="start a new machine from that image")
        return
    address = f" at {node.address}" if node.address is not None else ""
    card = f", with the card {node.mac}" if node.mac is not None else ""
    yield Step(
        what=f"start a new machine from the golden image {cluster.name}-{node.role_set}{address}{card}, "
        f"with {folder}/seed.iso"
    )
    if cluster.has_kubelet(node.roles):
        command = f"kubectl wait --for=condition=Ready node/{name} --timeout=10m"
        yield Step(what="wait until it is there", command=command)


def _list_member_steps(cluster: Cluster, node: Node) -> Iterator[Step]:
    other = next(n for n in cluster.nodes_with(Role.ETCD) if n.name != node.name)
    yield Step(what=f"look for the id of {node.name}, on {other.name}", command=etcdctl("member list"))
    yield Step(what="let the other members forget it", command=etcdctl("member remove ID"))
    yield Step(what="announce the new one, before it starts", command=etcdctl(announce_member(node)))


def announce_member(node: Node) -> str:
    """The words of etcdctl that announce a member before its machine starts."""
    return f"member add {node.name} --peer-urls=https://{node.address}:{PEER_PORT}"


def etcdctl(words: str) -> str:
    """A command line for a member's own machine."""
    certificate = paths.ETCD_HEALTHCHECK_CLIENT
    return (
        f"sudo ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:{CLIENT_PORT} --cacert={paths.ETCD_CA}"
        f" --cert={certificate}.crt --key={certificate}.key {words}"
    )
