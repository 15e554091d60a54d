"""kube-apiserver: the decisions that make it safe, in every minor."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from imagegen.content import Ref
from imagegen.kubernetes.apiserver import (
    ANONYMOUS_PATHS,
    apiserver_arguments,
    apiserver_environment,
    authentication_config,
    encryption_config,
    limits_anonymous,
)
from imagegen.kubernetes.arguments import FromEnvironment
from tests.kubernetes.clusters import MINORS, make_cluster

HA = (
    "{name: lb, roles: [lb], address: 10.240.0.5}",
    "{name: e-0, roles: [etcd], address: 10.240.0.10}",
    "{name: e-1, roles: [etcd], address: 10.240.0.11}",
    "{name: e-2, roles: [etcd], address: 10.240.0.12}",
    "{name: m-0, roles: [master], address: 10.240.0.20}",
    "{name: m-1, roles: [master], address: 10.240.0.21}",
    "{name: w-0, roles: [worker], address: 10.240.0.30}",
)


@pytest.mark.parametrize("minor", MINORS)
def test_safe_values_in_every_minor(tmp_path: Path, minor: str) -> None:
    cluster, gates = make_cluster(tmp_path, minor)
    arguments = apiserver_arguments(cluster, gates)
    number = int(minor[2:])
    expected = {
        "authorization-mode": "Node,RBAC" if number >= 7 else "RBAC",
        "client-ca-file": "/etc/kubernetes/pki/ca.crt",
        "kubelet-certificate-authority": "/etc/kubernetes/pki/ca.crt",
        "profiling": "false",
        "service-cluster-ip-range": str(cluster.network.services),
    }
    since = {
        "enable-admission-plugins": (10, "NodeRestriction"),
        "service-account-extend-token-expiration": (19, "false"),
        "service-account-issuer": (13, "https://kubernetes.default.svc.cluster.local"),
        "tls-min-version": (10, "VersionTLS13" if gates.has("all", "TLS 1.3") else "VersionTLS12"),
    }
    expected |= {name: value for name, (first, value) in since.items() if number >= first}
    assert not {name for name, (first, _) in since.items() if number < first} & set(arguments)
    assert {name: arguments[name] for name in expected} == expected
    # where the minimum can be chosen and is 1.2
    assert ("tls-cipher-suites" in arguments) == (10 <= number <= 16)
    assert int(str(arguments["audit-log-maxage"])) >= 30
    assert ("audit-policy-file" in arguments) == (number >= 8)


@pytest.mark.parametrize("minor", MINORS)
def test_anonymous_requests_are_off_or_limited_to_health(tmp_path: Path, minor: str) -> None:
    cluster, gates = make_cluster(tmp_path, minor)
    arguments = apiserver_arguments(cluster, gates)
    if not limits_anonymous(gates):
        assert int(minor[2:]) <= 31
        assert arguments["anonymous-auth"] == "false"
        assert "authentication-config" not in arguments
        return
    # the API server refuses both at once
    assert "anonymous-auth" not in arguments
    config = authentication_config(gates)
    assert config["apiVersion"].rpartition("/")[2] == ("v1" if int(minor[2:]) >= 34 else "v1beta1")
    assert [c["path"] for c in config["anonymous"]["conditions"]] == list(ANONYMOUS_PATHS)


def test_nothing_of_the_node_list_is_in_the_flags(tmp_path: Path) -> None:
    cluster, gates = make_cluster(tmp_path, nodes=HA)
    arguments = apiserver_arguments(cluster, gates)
    assert not any(
        str(n.address) in str(value) for n in cluster.nodes for value in arguments.values() if n.address
    )
    assert {name for name, value in arguments.items() if isinstance(value, FromEnvironment)} == {
        "advertise-address",
        "etcd-servers",
        "goaway-chance",
    }
    assert apiserver_environment(cluster, gates) == {
        "ETCD_SERVERS": "https://10.240.0.10:2379,https://10.240.0.11:2379,https://10.240.0.12:2379",
        "GOAWAY_CHANCE": "0.001",
    }


def test_one_server_sends_no_client_away(tmp_path: Path) -> None:
    cluster, gates = make_cluster(tmp_path)
    assert apiserver_environment(cluster, gates)["GOAWAY_CHANCE"] == "0"


@pytest.mark.parametrize(
    ("flags", "absent", "present"),
    [
        ("{authorization-config: /x}", "authorization-mode", "authorization-config"),
        ("{anonymous-auth: 'true'}", "authentication-config", "anonymous-auth"),
        ("{oidc-issuer-url: 'https://id.example'}", "authentication-config", "anonymous-auth"),
        ("{admission-control: AlwaysAdmit}", "enable-admission-plugins", "admission-control"),
    ],
)
def test_flags_that_exclude_each_other_never_meet(
    tmp_path: Path, flags: str, absent: str, present: str
) -> None:
    cluster, gates = make_cluster(tmp_path, flags=f"{{kube-apiserver: {flags}}}")
    arguments = apiserver_arguments(cluster, gates)
    assert absent not in arguments
    assert present in arguments


def test_a_lower_tls_version_brings_forward_secret_suites_only(tmp_path: Path) -> None:
    cluster, gates = make_cluster(tmp_path, flags="{kube-apiserver: {tls-min-version: VersionTLS12}}")
    suites = str(apiserver_arguments(cluster, gates)["tls-cipher-suites"]).split(",")
    assert suites
    assert all(s.startswith("TLS_ECDHE_") and ("GCM" in s or "POLY1305" in s) for s in suites)


def test_secrets_are_encrypted_first_and_the_key_is_a_reference(tmp_path: Path) -> None:
    _, gates = make_cluster(tmp_path)
    content = encryption_config(gates)
    (ref,) = (part for part in content if isinstance(part, Ref))
    assert ref == Ref("encryption/secretbox-key")
    text = "".join("c2VjcmV0" if isinstance(part, Ref) else str(part) for part in content)
    (rule,) = yaml.safe_load(text)["resources"]
    assert rule["resources"] == ["secrets"]
    assert [next(iter(provider)) for provider in rule["providers"]] == ["secretbox", "identity"]
    assert rule["providers"][0]["secretbox"]["keys"] == [{"name": "key1", "secret": "c2VjcmV0"}]
