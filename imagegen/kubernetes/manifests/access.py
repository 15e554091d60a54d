"""Who may do what before anyone logs in: TLS bootstrap, the admin, the API server at the kubelets, the
approver.

Cluster roles named ``system:…`` are the API server's own; it makes them before it reports ready.
"""

from __future__ import annotations

from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.manifests.objects import (
    Manifest,
    cluster_role,
    cluster_role_binding,
    group,
    role,
    role_binding,
    rule,
    user,
)

#: Every bootstrap token has this group
#: (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
BOOTSTRAPPERS = "system:bootstrappers"
#: The token of node NAME has ``system:bootstrappers:imagegen:NAME`` too; the approver asks for it.
NODE_BOOTSTRAPPERS_PREFIX = "system:bootstrappers:imagegen:"
NODES = "system:nodes"
CSR_APPROVER = "imagegen:csr-approver"

_CERTIFICATES = "certificates.k8s.io"
_SIGNERS = ("kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving")


def bootstrap_bindings(gates: Gates) -> tuple[Manifest, ...]:
    """What a kubelet with a bootstrap token may do, and a kubelet with a certificate for its renewal."""
    nodeclient = "system:certificates.k8s.io:certificatesigningrequests:nodeclient"
    selfnodeclient = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
    roles: list[Manifest] = []
    if not gates.has("cluster", "cluster role nodeclient"):
        nodeclient, selfnodeclient = "imagegen:nodeclient", "imagegen:selfnodeclient"
        roles = [
            cluster_role(name, [rule([_CERTIFICATES], [f"certificatesigningrequests/{part}"], ["create"])])
            for name, part in ((nodeclient, "nodeclient"), (selfnodeclient, "selfnodeclient"))
        ]
    return (
        *roles,
        cluster_role_binding("imagegen:node-bootstrapper", "system:node-bootstrapper", group(BOOTSTRAPPERS)),
        cluster_role_binding("imagegen:nodeclient", nodeclient, group(BOOTSTRAPPERS)),
        cluster_role_binding("imagegen:selfnodeclient", selfnodeclient, group(NODES)),
    )


def identity_bindings(gates: Gates, kubelet_client: str) -> tuple[Manifest, ...]:
    """The admin's group, the API server as a client of kubelets (a user by that name), and nodes that run
    kube-proxy as themselves.
    """
    kubelet_admin, roles = "system:kubelet-api-admin", []
    if not gates.has("cluster", "cluster role system:kubelet-api-admin"):
        kubelet_admin = "imagegen:kubelet-api-admin"
        parts = [f"nodes/{part}" for part in ("log", "metrics", "proxy", "spec", "stats")]
        roles = [
            cluster_role(
                kubelet_admin,
                [
                    rule([""], ["nodes"], ["get", "list", "proxy", "watch"]),
                    rule([""], parts, ["create", "delete", "get", "patch", "update"]),
                ],
            )
        ]
    return (
        *roles,
        cluster_role_binding("kubeadm:cluster-admins", "cluster-admin", group("kubeadm:cluster-admins")),
        cluster_role_binding(
            "imagegen:kube-apiserver-kubelet-client",
            kubelet_admin,
            user(kubelet_client),
        ),
        cluster_role_binding("imagegen:node-proxier", "system:node-proxier", group(NODES)),
    )


def csr_approver_access() -> tuple[Manifest, ...]:
    """The approver's role: read requests, sign off requests of the two kubelet signers, ask what a
    requester may do.
    """
    rules = (
        rule([_CERTIFICATES], ["certificatesigningrequests"], ["get", "list", "watch"]),
        rule([_CERTIFICATES], ["certificatesigningrequests/approval"], ["update"]),
        rule([_CERTIFICATES], ["signers"], ["approve"], names=_SIGNERS),
        rule(["authorization.k8s.io"], ["subjectaccessreviews"], ["create"]),
    )
    return (
        cluster_role(CSR_APPROVER, rules),
        cluster_role_binding(CSR_APPROVER, CSR_APPROVER, user(CSR_APPROVER)),
    )


def cluster_info_access() -> tuple[Manifest, ...]:
    """Reading ``cluster-info``, for whoever is authenticated, a bootstrap token included.

    kubeadm lets anonymous users read it; here anonymous requests reach the health endpoints only.
    """
    name = "imagegen:cluster-info"
    rules = [rule([""], ["configmaps"], ["get"], names=["cluster-info"])]
    return (
        role(name, "kube-public", rules),
        role_binding(name, "kube-public", name, group("system:authenticated")),
    )
