"""Pod networks: what each choice puts on workers, and that bridge is routable before anything boots."""

from __future__ import annotations

import json
import os
import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from imagegen.model.cluster import Role
from imagegen.plan.components import cni
from imagegen.plan.items import Binary, File, Item, Phase, Port
from imagegen.plan.plan import Plan
from imagegen.resources import find_resource
from tests.plan.plans import QUICKSTART, make_plan, read_cluster, try_plan, write_cluster

STATIC = (*QUICKSTART[:3], "{name: worker-1, roles: [worker], address: 10.240.1.7}")
BRIDGE = "cni: bridge, pods: 10.0.0.0/9, services: 172.20.0.0/16, node_cidr_mask_size: 25"


def worker_items(plan: Plan) -> dict[str, Item]:
    return {item.identity[1]: item for item in plan.role_plan((Role.WORKER,)).items}


def body(items: dict[str, Item], path: str) -> Any:
    item = items[path]
    assert isinstance(item, File)
    (text,) = item.content
    assert isinstance(text, str)
    return json.loads(text)


@pytest.mark.parametrize(
    ("network", "plugins"),
    [
        ("cni: loopback", {"loopback"}),
        ("cni: flannel", {"loopback", "bridge", "host-local", "portmap", "flannel"}),
    ],
)
def test_workers_have_the_plugins_that_their_configuration_names(
    tmp_path: Path, network: str, plugins: set[str]
) -> None:
    items = worker_items(make_plan(write_cluster(tmp_path, network=network)))
    found = {path.rpartition("/")[2] for path in items if path.startswith(cni.PLUGINS + "/")}
    assert found == plugins
    (path,) = [path for path in items if path.endswith(".conflist")]
    assert {plugin["type"] for plugin in body(items, path)["plugins"]} <= plugins


def test_plugins_come_out_of_their_archives(tmp_path: Path) -> None:
    items = worker_items(make_plan(write_cluster(tmp_path)))
    members = {
        item.path: (item.part, item.member)
        for item in items.values()
        if isinstance(item, Binary) and item.path.startswith(cni.PLUGINS)
    }
    assert members["/opt/cni/bin/bridge"] == ("cni-plugins", "./bridge")
    assert members["/opt/cni/bin/flannel"] == ("flannel-cni-plugin", "./flannel-amd64")


def test_flannel_opens_its_port_to_nodes_only(tmp_path: Path) -> None:
    items = worker_items(make_plan(write_cluster(tmp_path)))
    (port,) = [item for item in items.values() if isinstance(item, Port) and item.first == 8472]
    assert (port.protocol, port.sources) == ("udp", ("10.240.0.0/16",))


def test_masters_without_the_worker_role_have_no_pod_network(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    assert not any("cni" in item.identity[1] for item in plan.role_plan((Role.MASTER,)).items)


def test_bridge_gives_each_worker_the_range_of_its_address(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path, STATIC, network=BRIDGE))
    ranges = {}
    for name in ("worker-0", "worker-1"):
        items = {item.identity[1]: item for item in plan.node_plan(name).items}
        conflist = body(items, "/etc/cni/net.d/10-bridge.conflist")
        ((pods,),) = conflist["plugins"][0]["ipam"]["ranges"]
        ranges[name] = pods["subnet"]
    assert ranges == {"worker-0": "10.0.10.128/25", "worker-1": "10.0.131.128/25"}


def test_ranges_stay_when_nodes_come_and_go(tmp_path: Path) -> None:
    cluster = read_cluster(write_cluster(tmp_path, STATIC, network=BRIDGE))
    everybody = {
        cni.pod_range(cluster.network, address): address
        for address in IPv4Network("10.240.0.0/16").hosts()
        if int(address) % 97 == 0
    }
    assert len(everybody) == 676
    assert all(pods.subnet_of(cluster.network.pods) for pods in everybody)


def test_routes_lead_to_every_worker_and_masters_have_them_too(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path, STATIC, network=BRIDGE))
    for roles in ((Role.WORKER,), (Role.MASTER,)):
        (item,) = [i for i in plan.role_plan(roles).items if i.identity == ("path", cni.ROUTES)]
        assert isinstance(item, File)
        assert item.phase is Phase.BOOT
        assert str(item.content[0]).splitlines()[1:] == [
            "10.0.10.128/25 10.240.0.21",
            "10.0.131.128/25 10.240.1.7",
        ]


def test_bridge_refuses_workers_without_an_address(tmp_path: Path) -> None:
    plan, report = try_plan(write_cluster(tmp_path, QUICKSTART, network=BRIDGE))
    assert plan is None
    (finding,) = [f for f in report.sorted() if f.code == "IMG420"]
    assert "worker-1" in finding.message
    assert finding.span is not None
    assert finding.span.line == 13


def test_bridge_refuses_a_pod_range_without_room(tmp_path: Path) -> None:
    plan, report = try_plan(write_cluster(tmp_path, STATIC, network="cni: bridge, pods: 10.200.0.0/16"))
    assert plan is None
    (finding,) = [f for f in report.sorted() if f.code == "IMG421"]
    assert "wants number 263" in finding.message
    assert finding.span is not None


def test_bridge_refuses_more_workers_than_routes_are_good_for(tmp_path: Path) -> None:
    workers = [
        f"{{name: w{i}, roles: [worker], address: 10.240.{2 + i // 250}.{1 + i % 250}}}"
        for i in range(cni.MAX_BRIDGE_NODES + 1)
    ]
    plan, report = try_plan(write_cluster(tmp_path, [*QUICKSTART[:2], *workers], network=BRIDGE))
    assert plan is None
    assert [f.code for f in report.sorted() if f.code.startswith("IMG42")] == ["IMG422"]


@pytest.mark.process
def test_routes_are_set_and_our_own_is_left_out(tmp_path: Path) -> None:
    """The real ``ip`` in a network of its own; a second run changes nothing."""
    (tmp_path / "routes").write_text(
        "# comment\n\n10.200.21.0/24 10.240.0.21\n10.200.22.0/24 10.240.0.22\n10.200.23.0/24 10.240.0.23\n"
    )
    script = "\n".join(
        [
            "set -e",
            "ip link add eth0 type veth peer name eth1",
            "ip addr add 10.240.0.21/24 dev eth0",
            "ip link set eth0 up",
            'sh "$1" "$2"',
            'sh "$1" "$2"',
            "ip route show proto static",
        ]
    )
    root = ["--map-root-user"] if os.geteuid() else []
    arguments = [str(find_resource("cloud-init", "pod-routes")), str(tmp_path / "routes")]
    done = subprocess.run(
        ["unshare", *root, "--net", "sh", "-c", script, "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "NODE_ADDRESS": "10.240.0.21"},
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["10.200.22.0/24", "via", "10.240.0.22"],
        ["10.200.23.0/24", "via", "10.240.0.23"],
    ]


@pytest.mark.process
def test_a_wrong_line_of_routes_fails(tmp_path: Path) -> None:
    (tmp_path / "routes").write_text("10.200.21.0/24\n")
    done = subprocess.run(
        ["sh", str(find_resource("cloud-init", "pod-routes")), str(tmp_path / "routes")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "wanted POD-RANGE NODE-ADDRESS" in done.stderr
