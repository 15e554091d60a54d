"""What one authority or certificate is, as data: who signs it, what it says, where it lies, and why.

Knows nothing about keys, files or clocks, nor which of them a cluster has: that is ``inventory``. Names of
subjects follow the source documents and kubeadm.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address

from imagegen.model.cluster import KeyAlgorithm

#: Stems inside the secret store: ``.crt`` and ``.key`` follow, for the service account ``.key`` and ``.pub``.
CLUSTER_CA = "pki/ca"
ETCD_CA = "pki/etcd/ca"
FRONT_PROXY_CA = "pki/front-proxy-ca"
SERVICE_ACCOUNT = "pki/sa"
ADMIN = "pki/admin"
SUPER_ADMIN = "pki/super-admin"
METRICS_SERVER = "pki/metrics-server"
SECRETBOX_KEY = "encryption/secretbox-key"


class Usage(enum.StrEnum):
    """Extended key usages that a certificate of the cluster may have."""

    SERVER = "serverAuth"
    CLIENT = "clientAuth"


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject as Kubernetes reads it: ``common_name`` is the user, ``organization`` the group."""

    common_name: str
    organization: str = ""

    def __str__(self) -> str:
        return f"CN={self.common_name}" + (f", O={self.organization}" if self.organization else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthoritySpec:
    """A certificate authority; ``name`` is its stem in the store."""

    name: str
    subject: Subject
    key: KeyAlgorithm
    lifetime: timedelta
    why: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a certificate and its key lie on the node: ``stem`` plus ``.crt`` and ``.key``."""

    stem: str
    owner: str
    key_mode: str = "0600"
    certificate_mode: str = "0644"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSpec:
    """One leaf certificate. ``name`` is its stem in the store, ``issuer`` the stem of its authority.

    ``node`` is the only node that holds the key, or None for a person's certificate. ``placement`` is None
    when the certificate travels inside a kubeconfig.
    """

    name: str
    issuer: str
    subject: Subject
    usages: tuple[Usage, ...]
    dns_names: tuple[str, ...]
    addresses: tuple[IPv4Address, ...]
    node: str | None
    key: KeyAlgorithm
    lifetime: timedelta
    placement: Placement | None
    why: str
    #: the same pair once more, for other users of the node
    further: tuple[Placement, ...] = ()


ADMIN_SUBJECT = Subject("kubernetes-admin", "kubeadm:cluster-admins")
SUPER_ADMIN_SUBJECT = Subject("kubernetes-super-admin", "system:masters")
CONTROLLER_MANAGER_SUBJECT = Subject("system:kube-controller-manager")
SCHEDULER_SUBJECT = Subject("system:kube-scheduler")
KUBE_PROXY_SUBJECT = Subject("system:kube-proxy", "system:node-proxier")
CSR_APPROVER_SUBJECT = Subject("imagegen:csr-approver")
FIRST_BOOT_SUBJECT = Subject("imagegen:first-boot", "system:masters")
FLANNEL_SUBJECT = Subject("flannel")
#: of a node's only certificate
SINGLE_SUBJECT = Subject("kubernetes")
SINGLE = "kubernetes"
KUBELET_CLIENT_SUBJECT = Subject("kube-apiserver-kubelet-client")
FRONT_PROXY_SUBJECT = Subject("front-proxy-client")
