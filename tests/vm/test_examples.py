"""Two examples whose parts no other cluster of these tests has: names from a load balancer and metrics of the
kubelets, and flannel's subnets in etcd below Docker.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from imagegen.lab.cluster import LabCluster
from tests.vm.labs import boot_example, run_imagegen, wait_until

pytestmark = [pytest.mark.vm, pytest.mark.long]

WORKERS = ("worker-0", "worker-1")
LOAD_BALANCER = "10.240.0.40"


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    with boot_example(tmp_path_factory.mktemp("lb-dns"), "lb-dns") as lab:
        yield lab


@pytest.fixture(scope="module")
def docked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    with boot_example(tmp_path_factory.mktemp("flannel-etcd"), "flannel-etcd", "1.20.2") as lab:
        yield lab


def read(lab: LabCluster, *words: str) -> Any:
    return json.loads(lab.kubectl(*words).stdout)


def test_the_load_balancer_answers_for_every_node(balanced: LabCluster) -> None:
    fixed = {node.name: str(node.address) for node in balanced.nodes if node.address is not None}
    assert set(fixed) >= {"lb-0", "master-0"}
    for worker in WORKERS:
        servers = balanced.ssh(worker, "resolvectl dns 2>/dev/null || cat /etc/resolv.conf").stdout
        assert LOAD_BALANCER in servers
        for name, address in fixed.items():
            assert balanced.ssh(worker, f"getent ahostsv4 {name}").stdout.split()[0] == address


def test_workers_with_dhcp_have_serving_certificates(balanced: LabCluster) -> None:
    for worker in WORKERS:
        address = balanced.address_of(worker)
        assert address not in {str(node.address) for node in balanced.nodes}
        wait_until(
            f"a serving certificate for {worker}",
            partial(has_serving_certificate, balanced, worker),
            patience=300.0,
        )


def has_serving_certificate(lab: LabCluster, node: str) -> bool:
    requests = lab.api.list_requests()
    return any(one.issued for one in requests if one.node == node and one.kind == "serving")


def test_metrics_server_knows_every_worker(balanced: LabCluster) -> None:
    def list_known() -> set[str]:
        shown = balanced.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes", check=False)
        items = json.loads(shown.stdout)["items"] if shown.returncode == 0 else []
        return {item["metadata"]["name"] for item in items if item["usage"]["memory"] != "0"}

    wait_until("metrics of both workers", lambda: list_known() == set(WORKERS), patience=420.0, pause=5.0)


def test_every_node_behind_the_load_balancer_is_as_planned(balanced: LabCluster) -> None:
    assert_passes(balanced)


def test_docker_takes_its_subnet_from_flannel(docked: LabCluster) -> None:
    ranges = set()
    for worker in WORKERS:
        bridge = docked.ssh(worker, "ip -4 -o addr show docker0").stdout
        subnet = docked.ssh(worker, "cat /run/flannel/subnet.env").stdout
        address = next(word for word in bridge.split() if word.startswith("172.30."))
        assert f"FLANNEL_SUBNET={address}" in subnet
        ranges.add(address)
    assert len(ranges) == len(WORKERS)
    nodes = read(docked, "get", "nodes", "-o", "json")["items"]
    runtimes = {node["status"]["nodeInfo"]["containerRuntimeVersion"].partition(":")[0] for node in nodes}
    assert runtimes == {"docker"}


def test_every_node_with_docker_is_as_planned(docked: LabCluster) -> None:
    assert_passes(docked)


def assert_passes(lab: LabCluster) -> None:
    """``imagegen test``: files, units, ports and the rest on every node, then the smoke test."""
    report = json.loads(run_imagegen("test", lab.cluster.file, "--format", "json", check=False))
    failed = [
        f"{one['place']}: {one['check']}: {one['problem']}" for one in report["checks"] if one["problem"]
    ]
    assert not failed, "\n".join(failed)
    assert len(report["checks"]) > 100
