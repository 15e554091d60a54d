"""Which choices go together: the pairs that do not work, and since when. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from imagegen.diagnostics import Severity, register_code
from imagegen.model.cluster import (
    BootstrapMethod,
    CertificateSet,
    ClusterDns,
    Cni,
    KeyAlgorithm,
    Layout,
    ProxyMode,
    Runtime,
)
from imagegen.model.systems import SYSTEMS

IMPOSSIBLE_PAIR = register_code(
    "IMG125",
    "two choices do not work together",
    "Kubernetes version, container runtime, operating system and proxy mode depend on each other. The "
    "message says which two do not fit and since when; change one of them.",
)
DOUBTFUL_PAIR = register_code(
    "IMG126",
    "two choices work together, but not for long or not well",
    "The combination works in this version and is deprecated, or needs something that you should know about.",
)


#: kube-proxy's nftables mode needs this kernel (KEP-3866)
NFTABLES_KERNEL = (5, 13)
#: from this kernel on nf_conntrack_ipv4 is part of nf_conntrack, which kube-proxy's ipvs mode knows since the
#: minor below (kubernetes#70304)
CONNTRACK_MERGED_KERNEL = (4, 19)
CONNTRACK_MERGED_KNOWN = 13
#: kube-proxy agrees with an iptables that writes nftables rules since this minor (kubernetes#82966)
IPTABLES_NFT_KNOWN = 17
#: the minor in which nftables mode became stable: the default from here on
NFTABLES_STABLE = 33
#: the first minor of a Calico that keeps its objects in the API as today's does (3.1)
CALICO_FIRST = 8
#: the first minor with resource metrics as an API of their own (README of metrics-server: 0.3.x, 1.8+)
METRICS_SERVER_FIRST = 8
#: the first minor whose kubelet speaks the CRI that containerd serves (v1alpha2)
CONTAINERD_FIRST = 10
#: the first minor whose kubeadm has a configuration API that is at least a beta (v1beta1)
KUBEADM_FIRST = 13
#: the first minors whose kubeadm reads ECDSA keys (#76390), and lets a master join beside an ECDSA key for
#: service accounts (#112508)
KUBEADM_ECDSA_FIRST = 15
KUBEADM_ECDSA_ACCOUNT_FIRST = 26

_ECDSA = frozenset({KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ECDSA_P384, KeyAlgorithm.ECDSA_P521})
_CGROUP_2 = frozenset(system for system, facts in SYSTEMS.items() if facts.cgroup == 2)
_CGROUP_1 = frozenset(SYSTEMS) - _CGROUP_2
_IPTABLES_NFT = frozenset(system for system, facts in SYSTEMS.items() if facts.has_iptables_nft)
_MERGED_CONNTRACK = frozenset(s for s, facts in SYSTEMS.items() if facts.kernel >= CONNTRACK_MERGED_KERNEL)
_OLD_KERNEL = frozenset(system for system, facts in SYSTEMS.items() if facts.kernel < NFTABLES_KERNEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRule:
    """A combination that is wrong: every path in ``when`` has one of its values.

    ``at`` is where the finding points; ``first`` and ``last`` are the minors it is about, both included.
    """

    at: str
    message: str
    hint: str
    when: Mapping[str, frozenset[StrEnum]] = field(default_factory=dict)
    first: int = 0
    last: int = 9999
    severity: Severity = Severity.ERROR


PAIR_RULES: tuple[PairRule, ...] = (
    PairRule(
        at="network.cluster_dns",
        when={
            "network.cluster_dns": frozenset({ClusterDns.NONE}),
            "kubernetes.layout": frozenset({Layout.KUBEADM}),
        },
        message="kubeadm installs CoreDNS itself, got cluster_dns none",
        hint="use another layout, or leave cluster_dns out",
    ),
    PairRule(
        at="runtime",
        when={"runtime": frozenset({Runtime.DOCKER})},
        first=24,
        message="docker works up to Kubernetes 1.23, got {version} (dockershim was removed in 1.24)",
        hint="use containerd",
    ),
    PairRule(
        at="runtime",
        when={"runtime": frozenset({Runtime.CONTAINERD})},
        last=CONTAINERD_FIRST - 1,
        message="containerd needs Kubernetes 1.10, got {version}",
        hint="use docker",
    ),
    PairRule(
        at="network.proxy",
        when={"network.proxy": frozenset({ProxyMode.NFTABLES})},
        last=30,
        message="proxy nftables needs Kubernetes 1.31, got {version} (before, it is behind a feature gate)",
        hint="use iptables",
    ),
    PairRule(
        at="network.proxy",
        when={"network.proxy": frozenset({ProxyMode.NFTABLES}), "image.os": _OLD_KERNEL},
        message="proxy nftables needs kernel 5.13, which {image.os} does not have",
        hint="use iptables",
    ),
    PairRule(
        at="network.proxy",
        when={"network.proxy": frozenset({ProxyMode.IPVS})},
        last=8,
        message="proxy ipvs needs Kubernetes 1.9, got {version}",
        hint="use iptables",
    ),
    PairRule(
        at="network.proxy",
        when={"network.proxy": frozenset({ProxyMode.IPVS})},
        first=35,
        message="proxy ipvs is deprecated since Kubernetes 1.35",
        hint="use nftables",
        severity=Severity.WARNING,
    ),
    PairRule(
        at="network.proxy",
        when={
            "network.proxy": frozenset({ProxyMode.IPTABLES, ProxyMode.IPVS}),
            "image.os": _IPTABLES_NFT,
        },
        last=IPTABLES_NFT_KNOWN - 1,
        message="{image.os} has an iptables that writes nftables rules, which kube-proxy knows since "
        "Kubernetes 1.17, got {version}",
        hint="use oraclelinux-7, whose iptables is the old one, or a newer Kubernetes",
    ),
    PairRule(
        at="network.proxy",
        when={"network.proxy": frozenset({ProxyMode.IPVS}), "image.os": _MERGED_CONNTRACK},
        last=CONNTRACK_MERGED_KNOWN - 1,
        message="proxy ipvs looks for the module nf_conntrack_ipv4 before Kubernetes 1.13, and the kernel of "
        "{image.os} has none",
        hint="use iptables, oraclelinux-7 or a newer Kubernetes",
    ),
    PairRule(
        at="image.os",
        when={"image.os": _CGROUP_2},
        last=18,
        message="{image.os} boots with cgroup v2, which the kubelet knows since 1.19, got {version}",
        hint="use oraclelinux-7, or a newer Kubernetes",
    ),
    PairRule(
        at="image.os",
        when={"image.os": _CGROUP_1},
        first=35,
        message="{image.os} boots with cgroup v1, which the kubelet refuses since 1.35, got {version}",
        hint="use a newer operating system",
    ),
    PairRule(
        at="network.cni",
        when={"network.cni": frozenset({Cni.CALICO})},
        last=CALICO_FIRST - 1,
        message="cni calico needs Kubernetes 1.8, got {version}",
        hint="use flannel",
    ),
    PairRule(
        at="network.cni",
        when={"network.cni": frozenset({Cni.FLANNEL_ETCD})},
        message="cni flannel-etcd gives every node with pods a key that opens all of etcd, Secrets included",
        hint="use flannel, which asks the API server instead",
        severity=Severity.WARNING,
    ),
    PairRule(
        at="kubernetes.layout",
        when={"kubernetes.layout": frozenset({Layout.KUBEADM})},
        last=KUBEADM_FIRST - 1,
        message="layout kubeadm needs Kubernetes 1.13, got {version} (kubeadm read alphas only)",
        hint="use static-pods, which looks the same and is rendered from 1.6 on",
    ),
    PairRule(
        at="bootstrap.method",
        when={
            "kubernetes.layout": frozenset({Layout.KUBEADM}),
            "bootstrap.method": frozenset({BootstrapMethod.TOKEN_FILE}),
        },
        message="kubeadm join needs bootstrap tokens, which sign what it reads first, got {bootstrap.method}",
        hint="use token",
    ),
    PairRule(
        at="bootstrap.method",
        when={"bootstrap.method": frozenset({BootstrapMethod.TOKEN})},
        last=7,
        message="bootstrap tokens are experimental before Kubernetes 1.8, got {version}",
        hint="use token-file",
        severity=Severity.WARNING,
    ),
    PairRule(
        at="pki.certificates",
        when={"pki.certificates": frozenset({CertificateSet.SINGLE})},
        message="with a single certificate etcd trusts the cluster's authority, and every kubelet's "
        "certificate opens it",
        hint="use each, which gives etcd an authority of its own",
        severity=Severity.WARNING,
    ),
    PairRule(
        at="pki.certificates",
        when={
            "pki.certificates": frozenset({CertificateSet.SINGLE}),
            "kubernetes.layout": frozenset({Layout.KUBEADM}),
        },
        message="kubeadm wants a certificate for each purpose",
        hint="use each",
    ),
    PairRule(
        at="bootstrap.method",
        when={"bootstrap.method": frozenset({BootstrapMethod.TOKEN_FILE})},
        first=8,
        message="tokens in a file never expire: bootstrap.token_lifetime has no meaning for them",
        hint="use token, whose tokens are Secrets with an end",
        severity=Severity.WARNING,
    ),
    PairRule(
        at="pki.key",
        when={"kubernetes.layout": frozenset({Layout.KUBEADM}), "pki.key": _ECDSA},
        first=KUBEADM_FIRST,
        last=KUBEADM_ECDSA_FIRST - 1,
        message="kubeadm reads {pki.key} since Kubernetes 1.15, got {version}",
        hint="use rsa-2048",
    ),
    PairRule(
        at="pki.key",
        when={
            "kubernetes.layout": frozenset({Layout.KUBEADM}),
            "pki.key": frozenset({KeyAlgorithm.ED25519}),
        },
        message="kubeadm reads RSA and ECDSA keys only, got {pki.key}",
        hint="use ecdsa-p256",
    ),
    PairRule(
        at="pki.key",
        when={"pki.key": frozenset({KeyAlgorithm.ED25519})},
        message="Kubernetes signs no service-account tokens with ed25519, so that one key is ecdsa-p256",
        hint="use ecdsa-p256 to have one algorithm everywhere",
        severity=Severity.NOTE,
    ),
)
