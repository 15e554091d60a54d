"""Access rules: each identity gets what it needs and no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import pytest

from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.manifests import access
from imagegen.kubernetes.manifests.coredns import coredns
from imagegen.kubernetes.manifests.flannel import flannel
from imagegen.kubernetes.manifests.objects import Manifest
from tests.pki.clusters import quickstart

NETWORK = quickstart().network
GATES = load_gates(quickstart().kubernetes.version)
EVERYTHING: tuple[Manifest, ...] = (
    *access.bootstrap_bindings(GATES),
    *access.identity_bindings(GATES, "kube-apiserver-kubelet-client"),
    *access.csr_approver_access(),
    *access.cluster_info_access(),
    *coredns("registry.example/coredns:1", NETWORK.dns, NETWORK.domain, GATES),
    *flannel("registry.example/flannel:1", NETWORK.pods, ("10.0.0.1", 6443), GATES, nftables=True),
)


def of_kind(*kinds: str) -> Iterable[dict[str, Any]]:
    return (cast("dict[str, Any]", body) for body in EVERYTHING if body["kind"] in kinds)


def test_no_rule_of_ours_is_a_wildcard() -> None:
    rules = [rule for role in of_kind("ClusterRole", "Role") for rule in role["rules"]]
    assert rules
    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_nobody_of_ours_reads_secrets() -> None:
    for role in of_kind("ClusterRole", "Role"):
        assert all("secrets" not in rule["resources"] for rule in role["rules"]), role["metadata"]["name"]


def test_the_approver_writes_approvals_and_nothing_else() -> None:
    (role,) = [role for role in of_kind("ClusterRole") if role["metadata"]["name"] == access.CSR_APPROVER]
    writes = [
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in {"get", "list", "watch"}
    ]
    assert writes == [
        ("certificatesigningrequests/approval", "update"),
        ("signers", "approve"),
        ("subjectaccessreviews", "create"),
    ]
    (signers,) = [rule for rule in role["rules"] if rule["resources"] == ["signers"]]
    assert signers["resourceNames"] == [
        "kubernetes.io/kube-apiserver-client-kubelet",
        "kubernetes.io/kubelet-serving",
    ]


def test_only_the_admins_are_cluster_admin() -> None:
    subjects = [
        subject["name"]
        for binding in of_kind("ClusterRoleBinding")
        if binding["roleRef"]["name"] == "cluster-admin"
        for subject in binding["subjects"]
    ]
    assert subjects == ["kubeadm:cluster-admins"]


@pytest.mark.parametrize("name", ["system:anonymous", "system:unauthenticated", "system:masters"])
def test_nothing_is_bound_to(name: str) -> None:
    bindings = of_kind("ClusterRoleBinding", "RoleBinding")
    assert all(subject["name"] != name for binding in bindings for subject in binding["subjects"])


def test_pods_of_ours_run_with_little() -> None:
    for workload in of_kind("Deployment", "DaemonSet"):
        spec = workload["spec"]["template"]["spec"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"]["drop"] == ["ALL"]
            assert "memory" in container["resources"]["limits"]
            assert not context.get("privileged")


def test_every_role_that_is_bound_is_ours_or_the_api_servers() -> None:
    ours = {role["metadata"]["name"] for role in of_kind("ClusterRole", "Role")}
    for binding in of_kind("ClusterRoleBinding", "RoleBinding"):
        name = binding["roleRef"]["name"]
        assert name in ours or name.startswith("system:") or name == "cluster-admin"
