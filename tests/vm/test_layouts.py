"""A master and a worker in the layouts whose control plane is pods, of 1.20.2 and of the newest version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from imagegen.lab.cluster import LabCluster
from imagegen.model.version import parse_version
from tests.vm.labs import boot_example, wait_until

pytestmark = [pytest.mark.vm, pytest.mark.long]

MASTER, WORKER = "control-0", "worker-0"
DAEMONS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
#: what runs as whom: kubeadm's containers as root, ours as their own users
USERS = {"static-pods": {"640", "641", "642"}, "kubeadm": {"0"}}


@pytest.fixture(
    scope="module",
    params=[("static-pods", "1.20.2"), ("static-pods", ""), ("kubeadm", "")],
    ids=["static-pods-1.20", "static-pods", "kubeadm"],
)
def booted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LabCluster, str, str]]:
    """The cluster with its layout and version; an empty version is the newest in the mirror."""
    layout, version = request.param
    with boot_example(tmp_path_factory.mktemp(layout), layout, version) as lab:
        yield lab, layout, str(lab.cluster.kubernetes.version)


def read(lab: LabCluster, *words: str) -> Any:
    return json.loads(lab.kubectl(*words, "-o", "json").stdout)


def test_master_and_worker_are_nodes_with_the_labels_and_taints_of_the_version(
    booted: tuple[LabCluster, str, str],
) -> None:
    lab, _, version = booted
    assert {item["metadata"]["name"] for item in read(lab, "get", "nodes")["items"]} == {MASTER, WORKER}
    role = "control-plane" if parse_version(version).minor >= 24 else "master"
    wait_until(
        "the master's label",
        lambda: f"node-role.kubernetes.io/{role}" in read(lab, "get", "node", MASTER)["metadata"]["labels"],
    )

    # the controller manager takes the taint of a node that was not ready away a little after it is
    def read_taints(node: str) -> dict[str, str]:
        spec = read(lab, "get", "node", node)["spec"]
        return {taint["key"]: taint["effect"] for taint in spec.get("taints", ())}

    wait_until(
        "only the master keeps pods away",
        lambda: (
            read_taints(MASTER) == {f"node-role.kubernetes.io/{role}": "NoSchedule"}
            and not read_taints(WORKER)
        ),
    )


def test_the_daemons_are_pods_of_the_users_that_we_chose(booted: tuple[LabCluster, str, str]) -> None:
    lab, layout, version = booted
    pods = {item["metadata"]["name"]: item for item in read(lab, "-n", "kube-system", "get", "pods")["items"]}
    for daemon in DAEMONS:
        pod = pods[f"{daemon}-{MASTER}"]
        assert pod["spec"]["containers"][0]["image"].endswith(f":v{version}")
        assert pod["status"]["phase"] == "Running"
    asked = "for name in %s; do stat -c %%u /proc/$(pidof -s $name); done"
    shown = lab.ssh(MASTER, asked % " ".join(DAEMONS)).stdout
    assert set(shown.split()) == USERS[layout]


def test_every_kubelet_has_a_serving_certificate(booted: tuple[LabCluster, str, str]) -> None:
    """Logs of a pod on the worker and of the API server itself come through the kubelets."""
    lab, _, _ = booted

    def has_log(*words: str) -> bool:
        shown = lab.kubectl("-n", "kube-system", "logs", *words, "--tail=1", check=False)
        return shown.returncode == 0 and bool(shown.stdout)

    wait_until(
        "a log through the master's kubelet", lambda: has_log(f"kube-scheduler-{MASTER}"), patience=300
    )
    wait_until("a log of CoreDNS", lambda: has_log("deployment/coredns"), patience=300)


def test_logs_of_the_control_plane_are_found_without_it(booted: tuple[LabCluster, str, str]) -> None:
    lab, _, _ = booted
    shown = lab.ssh(MASTER, "sudo control-plane-logs 2").stdout
    assert [line for line in shown.splitlines() if line.startswith("==> ")]
    for daemon in DAEMONS:
        assert f"_{daemon}-" in shown or f"/{daemon}/" in shown


def test_a_restart_of_the_kubelet_leaves_the_control_plane_alone(
    booted: tuple[LabCluster, str, str],
) -> None:
    lab, _, _ = booted
    before = lab.ssh(MASTER, "pidof kube-apiserver").stdout
    lab.ssh(MASTER, "sudo systemctl restart kubelet.service")
    assert lab.ssh(MASTER, "pidof kube-apiserver").stdout == before
