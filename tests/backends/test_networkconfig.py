"""network-config: one shape for every renderer."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address

import yaml

from imagegen.backends.networkconfig import emit_network_config
from tests.backends.nodeplans import make_cluster

CLUSTER = make_cluster()
NETWORK = dataclasses.replace(
    CLUSTER.network, nameservers=(IPv4Address("10.240.0.1"), IPv4Address("9.9.9.9"))
)


def read(name: str, **changes: object) -> dict[str, object]:
    node = dataclasses.replace(CLUSTER.node(name), **changes)  # type: ignore[arg-type]
    document = yaml.safe_load(emit_network_config(node, NETWORK))
    assert document["version"] == 2
    (device,) = document["ethernets"].values()
    assert isinstance(device, dict)
    return device


def test_a_static_node() -> None:
    assert read("worker-0") == {
        "match": {"name": "e*"},
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "link-local": [],
        "addresses": ["10.240.0.21/16"],
        "routes": [{"to": "0.0.0.0/0", "via": "10.240.0.1"}],
        "nameservers": {"addresses": ["10.240.0.1", "9.9.9.9"]},
    }


def test_a_node_by_dhcp() -> None:
    device = read("worker-1")
    assert device["dhcp4"] is True
    assert device["dhcp-identifier"] == "mac"
    assert device["accept-ra"] is device["dhcp6"] is False
    assert device["link-local"] == []
    assert {"addresses", "routes"}.isdisjoint(device)


def test_a_hardware_address_is_text_and_wins_over_the_name() -> None:
    # 52:54:00:00:00:22 without quotes would be a number to a YAML 1.1 reader
    assert read("worker-0", mac="52:54:00:00:00:22")["match"] == {"macaddress": "52:54:00:00:00:22"}
    assert read("worker-1", mac="11:22:33:44:55:59")["match"] == {"macaddress": "11:22:33:44:55:59"}


def test_nodes_share_only_the_text() -> None:
    first = emit_network_config(CLUSTER.node("worker-0"), NETWORK)
    second = emit_network_config(CLUSTER.node("master-0"), NETWORK)
    assert first.replace("10.240.0.21", "X") == second.replace("10.240.0.11", "X")
    without = emit_network_config(
        CLUSTER.node("worker-0"), dataclasses.replace(NETWORK, gateway=None, nameservers=())
    )
    assert "routes" not in without
    assert "nameservers" not in without
