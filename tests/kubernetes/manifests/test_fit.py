"""API objects in the form of old versions: what is asked for exists there, and nothing else changes."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from imagegen.kubernetes.gates import Gates, load_gates
from imagegen.kubernetes.manifests import access, metrics_server
from imagegen.kubernetes.manifests.calico import calico
from imagegen.kubernetes.manifests.coredns import coredns, corefile
from imagegen.kubernetes.manifests.fit import fit_objects
from imagegen.kubernetes.manifests.flannel import find_namespace, flannel
from imagegen.kubernetes.manifests.objects import Manifest
from imagegen.kubernetes.manifests.sample import sample
from imagegen.kubernetes.releases import newest_patch
from imagegen.model.compatibility import CALICO_FIRST
from tests.kubernetes.clusters import MINORS
from tests.pki.clusters import quickstart

NETWORK = quickstart().network


def list_calico(gates: Gates) -> tuple[Manifest, ...]:
    return calico("registry.example/node:1", "registry.example/cni:1", NETWORK.pods, gates, nftables=True)


def list_objects(gates: Gates) -> tuple[Manifest, ...]:
    """Every object that first boot may apply, as it is written."""
    return (
        *access.bootstrap_bindings(gates),
        *access.identity_bindings(gates, "kube-apiserver-kubelet-client"),
        *access.csr_approver_access(),
        *access.cluster_info_access(),
        *coredns("registry.example/coredns:1", NETWORK.dns, NETWORK.domain, gates),
        *flannel("registry.example/flannel:1", NETWORK.pods, ("10.0.0.1", 6443), gates, nftables=False),
        *([] if gates.version.minor < CALICO_FIRST else list_calico(gates)),
        *sample("registry.example/coredns:1"),
        *metrics_server.metrics_server("registry.example/metrics-server:1", gates),
    )


def fit(minor: str) -> list[dict[str, Any]]:
    gates = load_gates(newest_patch(minor))
    return [cast("dict[str, Any]", body) for body in fit_objects(list_objects(gates), gates)]


@pytest.mark.parametrize("minor", MINORS)
def test_every_api_is_there(minor: str) -> None:
    gates = load_gates(newest_patch(minor))
    for body in fit(minor):
        api = body["apiVersion"]
        owner = "kube-apiserver" if api.startswith("rbac") else "cluster"
        assert api == "v1" or gates.has(owner, api), (api, body["kind"])


@pytest.mark.parametrize("minor", MINORS)
def test_bindings_name_roles_that_exist(minor: str) -> None:
    """Either the API server makes them, or we do."""
    objects = fit(minor)
    ours = {(body["kind"], body["metadata"]["name"]) for body in objects}
    builtin = {"cluster-admin", "system:node-bootstrapper", "system:node-proxier", "system:auth-delegator"}
    gates = load_gates(newest_patch(minor))
    if gates.has("cluster", "cluster role nodeclient"):
        prefix = "system:certificates.k8s.io:certificatesigningrequests"
        builtin |= {f"{prefix}:nodeclient", f"{prefix}:selfnodeclient"}
    if gates.has("cluster", "cluster role system:kubelet-api-admin"):
        builtin.add("system:kubelet-api-admin")
    builtin.add("extension-apiserver-authentication-reader")
    for body in objects:
        if "roleRef" in body:
            role = (body["roleRef"]["kind"], body["roleRef"]["name"])
            assert role in ours or role[1] in builtin, body["metadata"]["name"]


def find(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (body,) = [b for b in objects if (b["kind"], b["metadata"]["name"]) == (kind, name)]
    return body


@pytest.mark.parametrize(
    ("minor", "daemon_set", "deployment"),
    [
        ("1.6", "extensions/v1beta1", "apps/v1beta1"),
        ("1.8", "apps/v1beta2", "apps/v1beta2"),
        ("1.9", "apps/v1", "apps/v1"),
        ("1.37", "apps/v1", "apps/v1"),
    ],
)
def test_workloads_have_the_newest_api_of_their_version(minor: str, daemon_set: str, deployment: str) -> None:
    objects = fit(minor)
    assert find(objects, "DaemonSet", "flannel")["apiVersion"] == daemon_set
    assert find(objects, "Deployment", "coredns")["apiVersion"] == deployment


def test_the_pods_of_the_oldest_version_use_no_field_that_came_later() -> None:
    objects = fit("1.6")
    text = json.dumps(objects)
    for word in ("priorityClassName", "seccompProfile", "allowPrivilegeEscalation", "OrCreate", "xtables"):
        assert word not in text
    template = find(objects, "DaemonSet", "flannel")["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        "scheduler.alpha.kubernetes.io/critical-pod": "",
        "seccomp.security.alpha.kubernetes.io/pod": "docker/default",
    }
    assert template["spec"]["nodeSelector"] == {"beta.kubernetes.io/os": "linux"}
    assert [volume["name"] for volume in template["spec"]["volumes"]] == ["run", "config"]
    assert find(objects, "PodDisruptionBudget", "coredns")["spec"]["minAvailable"] == 1


def test_an_old_seccomp_profile_has_its_new_name_from_1_11_on() -> None:
    for minor, value in (("1.10", "docker/default"), ("1.11", "runtime/default")):
        template = find(fit(minor), "Deployment", "coredns")["spec"]["template"]
        assert template["metadata"]["annotations"]["seccomp.security.alpha.kubernetes.io/pod"] == value


@pytest.mark.parametrize("minor", [minor for minor in MINORS if int(minor.split(".")[1]) >= 19])
def test_newer_versions_get_what_is_written(minor: str) -> None:
    gates = load_gates(newest_patch(minor))
    objects = list_objects(gates)
    assert fit_objects(objects, gates) == objects


def test_flannel_keeps_to_kube_system_while_only_that_may_hold_critical_pods() -> None:
    found = {minor: find_namespace(load_gates(newest_patch(minor))) for minor in ("1.16", "1.17")}
    assert found == {"1.16": "kube-system", "1.17": "kube-flannel"}


def test_what_is_written_stays_as_it_is() -> None:
    """Fitting works on copies: the same objects fit several versions."""
    gates = load_gates(newest_patch("1.6"))
    objects = list_objects(gates)
    before = json.dumps(objects)
    fit_objects(objects, gates)
    assert json.dumps(objects) == before


def test_corefiles_of_old_servers() -> None:
    def words(minor: str) -> set[str]:
        return set(corefile("cluster.local", load_gates(newest_patch(minor))).split())

    gone = {"ready", "loop", "reload", "max_concurrent"}
    assert words("1.10") & gone == set()
    assert words("1.12") & gone == {"loop", "reload"}
    assert words("1.17") & gone == {"loop", "ready", "reload"}
    assert words("1.19") & gone == gone
