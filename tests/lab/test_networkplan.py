"""The lab's network as data."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagegen.errors import UsageError
from imagegen.lab.gate import build_dnsmasq_argv, emit_links
from imagegen.lab.networkplan import plan_network
from tests.lab.clusters import HEAD, SMALL, load_text


def test_the_bridge_is_the_gateway_and_answers_where_clouds_do(tmp_path: Path) -> None:
    plan = plan_network(load_text(tmp_path))
    assert plan.addresses == ("10.240.0.1/24", "169.254.169.254/32")
    assert plan.gateway == "10.240.0.1"


def test_a_dhcp_node_gets_an_address_that_is_free(tmp_path: Path) -> None:
    plan = plan_network(load_text(tmp_path, SMALL.replace("10.240.0.21", "10.240.0.100")))
    (lease,) = plan.leases
    assert (lease.mac, lease.address, lease.name) == ("52:54:00:00:00:22", "10.240.0.101", "worker-1")
    assert plan.address_of["worker-1"] == "10.240.0.101"


def test_every_node_has_a_card_and_a_tap_of_its_own(tmp_path: Path) -> None:
    plan = plan_network(load_text(tmp_path))
    assert len(set(plan.mac_of.values())) == len(set(plan.tap_of.values())) == 4
    assert all(len(tap) < 16 for tap in plan.taps)


def test_name_servers_and_time_servers_of_the_cluster_file_are_played(tmp_path: Path) -> None:
    network = "nameservers: [9.9.9.9], ntp_servers: [10.240.0.5, time.example]"
    plan = plan_network(load_text(tmp_path, SMALL.replace("nameservers: [10.240.0.1]", network)))
    assert plan.addresses == ("10.240.0.1/24", "10.240.0.5/24", "9.9.9.9/32", "169.254.169.254/32")
    assert dict(plan.names)["time.example"] == "10.240.0.1"


def test_an_endpoint_that_no_node_has_is_relayed_to_the_masters(tmp_path: Path) -> None:
    text = SMALL + "control_plane: {endpoint: '10.240.0.9:8443'}\n"
    plan = plan_network(load_text(tmp_path, text))
    assert "10.240.0.9/24" in plan.addresses
    outer, inner = plan.relays
    assert (inner.address, inner.port, inner.targets) == ("10.240.0.9", 8443, (("10.240.0.11", 6443),))
    assert outer.targets == (("10.240.0.11", 6443),)


def test_an_endpoint_by_name_is_known_to_the_name_server(tmp_path: Path) -> None:
    plan = plan_network(load_text(tmp_path, SMALL + "control_plane: {endpoint: 'api.example:6443'}\n"))
    assert dict(plan.names)["api.example"] == "10.240.0.11"


def test_without_a_gateway_a_free_address_is_taken(tmp_path: Path) -> None:
    text = HEAD + (
        "network: {nodes: 10.9.0.0/29}\n"
        "nodes: [{name: one, roles: [etcd, master, worker], address: 10.9.0.4}]\n"
    )
    plan = plan_network(load_text(tmp_path, text))
    assert plan.gateway != "10.9.0.4"
    assert plan.gateway.startswith("10.9.0.")


def test_a_range_that_is_full_is_refused(tmp_path: Path) -> None:
    text = HEAD + (
        "network: {nodes: 10.9.0.0/30}\n"
        "nodes:\n"
        "  - {name: a, roles: [etcd, master], address: 10.9.0.1}\n"
        "  - {name: b, roles: [worker], address: 10.9.0.2}\n"
    )
    with pytest.raises(UsageError, match="no address left for the lab's gateway"):
        plan_network(load_text(tmp_path, text))


def test_links_are_one_bridge_with_all_taps(tmp_path: Path) -> None:
    lines = emit_links(plan_network(load_text(tmp_path)).as_dict()).splitlines()
    assert lines[1].startswith("link add br0 type bridge")
    assert lines.count("link set tap3 master br0 up") == 1


def test_names_outside_the_lab_are_denied_and_unknown_cards_get_nothing(tmp_path: Path) -> None:
    argv = build_dnsmasq_argv(plan_network(load_text(tmp_path)).as_dict())
    assert "--local=/#/" in argv
    assert "--no-resolv" in argv
    assert "--dhcp-range=10.240.0.100,static,255.255.255.0,1h" in argv
    assert "--dhcp-host=52:54:00:00:00:22,10.240.0.100,worker-1" in argv
