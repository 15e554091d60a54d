"""Kubeconfigs: references instead of secrets, text that YAML reads back as it was meant."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from imagegen.content import Content, Ref
from imagegen.model.cluster import Endpoint
from imagegen.pki import kubeconfigs
from imagegen.pki.resolve import resolve_content
from tests.pki.clusters import all_in_one, quickstart


class Fixed:
    """A store whose entries all have the same bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, _name: str) -> bytes:
        return self.data


def list_refs(body: Content) -> list[Ref]:
    return [part for part in body if isinstance(part, Ref)]


def test_certificate_kubeconfig_names_its_three_entries() -> None:
    cluster = quickstart()
    refs = list_refs(kubeconfigs.scheduler_kubeconfig(cluster, cluster.node("master-0")))
    assert [(ref.name, ref.public, ref.encoding) for ref in refs] == [
        ("pki/ca.crt", True, "base64"),
        ("nodes/master-0/scheduler.crt", True, "base64"),
        ("nodes/master-0/scheduler.key", False, "base64"),
    ]


def test_worker_kubeconfigs_hold_no_key() -> None:
    cluster = quickstart()
    assert [ref.name for ref in list_refs(kubeconfigs.kube_proxy_worker_kubeconfig(cluster))] == [
        "pki/ca.crt"
    ]
    refs = list_refs(kubeconfigs.bootstrap_kubeconfig(cluster, cluster.node("worker-0")))
    assert [ref.name for ref in refs] == ["pki/ca.crt", "nodes/worker-0/bootstrap-token"]


def test_local_components_dial_loopback_and_people_the_endpoint() -> None:
    cluster = replace(all_in_one(), endpoint=Endpoint(host="api.example.com", port=8443))
    node = cluster.nodes[0]
    local = {
        kubeconfigs.controller_manager_kubeconfig,
        kubeconfigs.scheduler_kubeconfig,
        kubeconfigs.csr_approver_kubeconfig,
        kubeconfigs.first_boot_kubeconfig,
    }
    for make in local:
        assert read_server(make(cluster, node)) == "https://127.0.0.1:6443"
    for body in (
        kubeconfigs.admin_kubeconfig(cluster),
        kubeconfigs.super_admin_kubeconfig(cluster),
        kubeconfigs.kube_proxy_kubeconfig(cluster, node),
        kubeconfigs.kube_proxy_worker_kubeconfig(cluster),
        kubeconfigs.bootstrap_kubeconfig(cluster, node),
    ):
        assert read_server(body) == "https://api.example.com:8443"


def read_server(body: Content) -> str:
    config = yaml.safe_load(resolve_content(body, Fixed(b"x")))
    server: str = config["clusters"][0]["cluster"]["server"]
    return server


@pytest.mark.parametrize(
    "token", ["123456.1234567890123456", "12345e.0000000000000001", "aaaaaa.bbbbbbbbbbbbbbbb"]
)
def test_token_stays_a_string(token: str) -> None:
    """Bare, some tokens are numbers in YAML."""
    cluster = quickstart()
    body = kubeconfigs.bootstrap_kubeconfig(cluster, cluster.node("worker-0"))
    config = yaml.safe_load(resolve_content(body, Fixed(token.encode())))
    assert config["users"][0]["user"]["token"] == token


@pytest.mark.parametrize("name", ["on", "1e3", "0x1f", "null", "12", "a-b"])
def test_cluster_names_stay_strings(name: str) -> None:
    cluster = replace(quickstart(), name=name)
    config = yaml.safe_load(resolve_content(kubeconfigs.admin_kubeconfig(cluster), Fixed(b"x")))
    assert config["clusters"][0]["name"] == name
    assert config["contexts"][0]["context"] == {"cluster": name, "user": f"admin@{name}"}
    assert config["current-context"] == config["users"][0]["name"] == f"admin@{name}"


def test_text_is_the_same_every_time() -> None:
    first = kubeconfigs.admin_kubeconfig(quickstart())
    kubeconfigs._template.cache_clear()
    assert kubeconfigs.admin_kubeconfig(quickstart()) == first
