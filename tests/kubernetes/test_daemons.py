"""Controller manager, scheduler, kubelet, kube-proxy, etcd, containerd, audit policy: their decisions."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from imagegen.kubernetes.arguments import FromEnvironment
from imagegen.kubernetes.audit import audit_policy
from imagegen.kubernetes.containerd import containerd_config
from imagegen.kubernetes.controller_manager import controller_manager_arguments, format_hours
from imagegen.kubernetes.etcd import etcd_config
from imagegen.kubernetes.kube_proxy import kube_proxy_arguments, kube_proxy_config
from imagegen.kubernetes.kubelet import has_config as kubelet_has_config
from imagegen.kubernetes.kubelet import kubelet_arguments, kubelet_config
from imagegen.kubernetes.scheduler import scheduler_arguments, scheduler_config
from imagegen.model.cluster import Role
from tests.kubernetes.clusters import MINORS, make_cluster
from tests.kubernetes.test_apiserver import HA


def test_controller_manager_leaves_approval_to_our_approver(tmp_path: Path) -> None:
    cluster, gates = make_cluster(tmp_path)
    arguments = controller_manager_arguments(cluster, gates)
    expected = {
        "bind-address": "127.0.0.1",
        "cluster-cidr": str(cluster.network.pods),
        "cluster-signing-duration": "8760h0m0s",
        "controllers": "*,bootstrapsigner,tokencleaner,-csrapproving",
        "profiling": "false",
        "service-cluster-ip-range": str(cluster.network.services),
        "use-service-account-credentials": "true",
    }
    assert {name: arguments[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(days=365), "8760h0m0s"),
        (timedelta(hours=72), "72h0m0s"),
        (timedelta(minutes=90), "1h30m0s"),
    ],
)
def test_format_hours(duration: timedelta, text: str) -> None:
    assert format_hours(duration) == text


def test_scheduler_keeps_to_itself(tmp_path: Path) -> None:
    cluster, gates = make_cluster(tmp_path)
    assert scheduler_arguments(cluster, gates)["bind-address"] == "127.0.0.1"
    config = scheduler_config(gates)
    assert config["apiVersion"] == "kubescheduler.config.k8s.io/v1"
    assert config["enableProfiling"] is False
    assert config["leaderElection"]["leaderElect"] is True


@pytest.mark.parametrize("minor", MINORS)
def test_kubelet_trusts_nobody_by_itself(tmp_path: Path, minor: str) -> None:
    cluster, gates = make_cluster(tmp_path, minor)
    arguments = kubelet_arguments(cluster, gates)
    if not kubelet_has_config(gates):
        assert arguments["anonymous-auth"] == "false"
        assert arguments["authorization-mode"] == "Webhook"
        assert arguments["read-only-port"] == "0"
        assert arguments["client-ca-file"] == "/etc/kubernetes/pki/ca.crt"
        assert "config" not in arguments
        return
    config = kubelet_config(cluster, gates)
    assert config["authentication"]["anonymous"]["enabled"] is False
    assert config["authentication"]["webhook"]["enabled"] is True
    assert config["authorization"]["mode"] == "Webhook"
    assert config["clusterDNS"] == [str(cluster.network.dns)]
    assert config["eventRecordQPS"] > 0
    assert config["protectKernelDefaults"] is True
    assert config["readOnlyPort"] == 0
    if minor == "1.10":
        assert arguments["rotate-certificates"] == "true"
    else:
        assert config["rotateCertificates"] is True
        assert config["serverTLSBootstrap"] is True
    assert ("featureGates" in config) == (int(minor[2:]) < 12)
    assert config.get("seccompDefault", False) is (int(minor[2:]) >= 25)
    assert ("failCgroupV1" in config) == (int(minor[2:]) >= 31)
    assert "staticPodPath" not in config


def test_kubelet_flags_say_only_who_and_where(tmp_path: Path) -> None:
    cluster, gates = make_cluster(tmp_path, flags="{kubelet: {max-pods: 50}}")
    arguments = kubelet_arguments(cluster, gates)
    assert set(arguments) == {
        "bootstrap-kubeconfig",
        "config",
        "hostname-override",
        "kubeconfig",
        "max-pods",
        "node-ip",
    }
    assert arguments["node-ip"] == FromEnvironment("NODE_ADDRESS")


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
def test_kube_proxy_always_says_its_mode(tmp_path: Path, mode: str) -> None:
    cluster, gates = make_cluster(tmp_path, network=f"proxy: {mode}")
    config = kube_proxy_config(cluster, gates)
    assert config["mode"] == mode
    assert config["metricsBindAddress"].startswith("127.0.0.1:")
    assert (config["detectLocalMode"], config["clusterCIDR"]) == ("ClusterCIDR", str(cluster.network.pods))


def test_flags_for_kube_proxy_reach_its_file(tmp_path: Path) -> None:
    """Beside --config nearly all its flags are ignored, so they are written into it."""
    cluster, gates = make_cluster(
        tmp_path, flags="{kube-proxy: {oom-score-adj: -998, masquerade-all: true, v: 4}}"
    )
    config = kube_proxy_config(cluster, gates)
    assert (config["oomScoreAdj"], config["iptables"]) == (-998, {"masqueradeAll": True})
    arguments = kube_proxy_arguments(cluster, gates)
    assert arguments["v"] == "4"
    assert "masquerade-all" not in arguments


@pytest.mark.parametrize("minor", MINORS)
def test_etcd_members_check_each_other(tmp_path: Path, minor: str) -> None:
    cluster, gates = make_cluster(tmp_path, minor, nodes=HA)
    seen: list[Mapping[str, Any]] = [
        etcd_config(cluster, gates, node) for node in cluster.nodes_with(Role.ETCD)
    ]
    for node, config in zip(cluster.nodes_with(Role.ETCD), seen, strict=True):
        assert config["name"] == node.name
        assert config["client-transport-security"]["client-cert-auth"] is True
        assert config["peer-transport-security"]["client-cert-auth"] is True
        assert config.get("tls-min-version") == ("TLS1.3" if int(minor[2:]) >= 22 else None)
        assert config.get("listen-metrics-urls", "http://127.0.0.1:").startswith("http://127.0.0.1:")
        for key in ("advertise-client-urls", "initial-advertise-peer-urls", "listen-peer-urls"):
            assert config[key].startswith(f"https://{node.address}:")
    assert len({config["initial-cluster"] for config in seen}) == 1
    assert seen[0]["initial-cluster"].count("=https://") == 3
    checks = {"feature-gates", "experimental-initial-corrupt-check"} & set(seen[0])
    if int(minor[2:]) < 14:
        assert checks == set()
    else:
        assert checks == {"feature-gates" if int(minor[2:]) >= 34 else "experimental-initial-corrupt-check"}


def test_flags_for_etcd_reach_its_file_with_their_types(tmp_path: Path) -> None:
    flags = "{etcd: {quota-backend-bytes: 1073741824, tls-min-version: TLS1.2, log-level: debug}}"
    cluster, gates = make_cluster(tmp_path, flags=flags)
    config = etcd_config(cluster, gates, cluster.nodes_with(Role.ETCD)[0])
    assert config["quota-backend-bytes"] == 2**30
    assert config["log-level"] == "debug"
    assert config["tls-min-version"] == "TLS1.2"
    # etcd refuses suites beside TLS 1.3 alone, and wants good ones below it
    assert all(suite.startswith("TLS_ECDHE_") for suite in config["cipher-suites"])


@pytest.mark.parametrize(("minor", "version"), [("1.30", 2), ("1.32", 3), ("1.35", 3), ("1.36", 4)])
def test_containerd_file_has_the_version_of_its_release(tmp_path: Path, minor: str, version: int) -> None:
    _, gates = make_cluster(tmp_path, minor)
    config = tomllib.loads(containerd_config(gates, "registry.k8s.io/pause:3.10"))
    assert config["version"] == version
    assert "'SystemdCgroup': True" in repr(config)
    assert config["imports"] == ["/etc/containerd/conf.d/*.toml"]


def test_no_rule_of_the_audit_policy_writes_a_secret(tmp_path: Path) -> None:
    """The first rule that matches a Secret, a ConfigMap or a token request is at Metadata, for everybody."""
    _, gates = make_cluster(tmp_path)
    rules = audit_policy(gates)["rules"]
    for group, resource in (
        ("", "secrets"),
        ("", "configmaps"),
        ("", "serviceaccounts/token"),
        ("authentication.k8s.io", "tokenreviews"),
    ):
        for rule in rules:
            groups = rule.get("resources", [{"group": group}] if "nonResourceURLs" not in rule else [])
            if any(g["group"] == group and resource in g.get("resources", [resource]) for g in groups):
                assert rule["level"] == "Metadata", resource
                assert set(rule) == {"level", "resources"}
                break
    assert rules[-1] == {"level": "Metadata"}


@pytest.mark.parametrize(("minor", "gate"), [("1.9", "SupportIPVSProxyMode=true"), ("1.10", None)])
def test_ipvs_is_switched_on_while_it_is_behind_a_gate(tmp_path: Path, minor: str, gate: str | None) -> None:
    cluster, gates = make_cluster(tmp_path, minor, network="proxy: ipvs")
    arguments = kube_proxy_arguments(cluster, gates)
    assert arguments["proxy-mode"] == "ipvs"
    assert arguments.get("feature-gates") == gate
