"""The layout static-pods: what the kubelet of a master finds, in every minor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import load_releases, newest_patch
from imagegen.kubernetes.static_pods import COMPONENTS, manifest_path
from imagegen.model.cluster import Role
from imagegen.pki.inventory import list_node_certificates
from imagegen.plan.component import Context
from imagegen.plan.components import static_pods
from imagegen.plan.items import Binary, ContainerImage, Directory, File, Phase, Unit, User
from imagegen.plan.plan import Plan
from tests.goldens import check_golden
from tests.kubernetes.clusters import MINORS, make_cluster
from tests.plan.layouts import NODES, list_items, plan_layout, read_file

#: the validator has no schemas of older versions
JUDGED = [minor for minor in MINORS if int(minor.split(".")[1]) >= 25]
#: before containerd, and before most fields of a pod
OLDEST = ("1.6", "1.7", "1.8", "1.9")
DAEMON_UNITS = {f"{component}.service" for component in COMPONENTS}


def read_pods(plan: Plan, node: str = "master-0") -> dict[str, dict[str, Any]]:
    return {name: yaml.safe_load(read_file(plan, node, manifest_path(name))) for name in COMPONENTS}


def identities(plan: Plan, node: str) -> set[tuple[str, str]]:
    return {item.identity for item in list_items(plan, node)}


@pytest.mark.parametrize("minor", MINORS)
def test_every_role_renders(tmp_path: Path, minor: str) -> None:
    plan = plan_layout(tmp_path, minor, "static-pods")
    pods = read_pods(plan)
    for node in ("master-0", "both-0"):
        found = identities(plan, node)
        assert {("path", manifest_path(name)) for name in COMPONENTS} < found
        assert ("unit", "kubelet.service") in found
        assert not found & {("unit", name) for name in DAEMON_UNITS}
        images = {i.reference for i in list_items(plan, node) if isinstance(i, ContainerImage)}
        assert {pod["spec"]["containers"][0]["image"] for pod in pods.values()} <= images
        assert ("unit", "imagegen-import-images.service") in found
    assert not identities(plan, "worker-0") & {("path", manifest_path(name)) for name in COMPONENTS}
    assert ("unit", "etcd.service") in identities(plan, "etcd-0")
    for name, pod in pods.items():
        (container,) = pod["spec"]["containers"]
        assert container["command"][0] == name
        assert "${" not in " ".join(container["command"])
        assert str(newest_patch(minor)) in container["image"]


@pytest.mark.parametrize("minor", OLDEST)
def test_the_oldest_minors_have_pods_of_their_time(tmp_path: Path, minor: str) -> None:
    cluster, gates = make_cluster(tmp_path, minor, layout="static-pods", nodes=NODES)
    ctx = Context(cluster=cluster, gates=gates, releases=load_releases(cluster.kubernetes.version))
    items = (
        *static_pods.plan_role(ctx, (Role.MASTER,)).items,
        *static_pods.plan_node(ctx, cluster.node("master-0")).items,
    )
    files = [i for i in items if isinstance(i, File) and i.path.endswith(".yaml")]
    pods = [yaml.safe_load("".join(map(str, i.content))) for i in files]
    assert {pod["metadata"]["name"] for pod in pods} == set(COMPONENTS)
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert "-amd64:v" in container["image"]
        assert "scheduler.alpha.kubernetes.io/critical-pod" in pod["metadata"]["annotations"]
        assert "startupProbe" not in container
        assert "seccompProfile" not in pod["spec"]["securityContext"]


@pytest.mark.judge
@pytest.mark.parametrize("minor", JUDGED)
def test_every_pod_is_valid(tmp_path: Path, minor: str) -> None:
    for pod in read_pods(plan_layout(tmp_path, minor, "static-pods")).values():
        kubernetes_validate.validate(pod, f"{minor}.0", strict=True)


@pytest.mark.parametrize("minor", ["1.20", "1.30", MINORS[-1]])
def test_the_pods_of_a_master(tmp_path: Path, minor: str) -> None:
    plan = plan_layout(tmp_path, minor, "static-pods")
    text = "".join(f"==== {name}\n{read_file(plan, 'master-0', manifest_path(name))}" for name in COMPONENTS)
    check_golden(f"plan/static-pods-{minor}.txt", text)


def test_what_differs_between_nodes_is_in_the_seed(tmp_path: Path) -> None:
    plan = plan_layout(tmp_path, "1.36", "static-pods")
    phases = {i.path: i.phase for i in list_items(plan, "master-0") if isinstance(i, File)}
    assert phases[manifest_path("kube-apiserver")] is Phase.BOOT
    assert phases[manifest_path("kube-scheduler")] is Phase.BAKE
    command = read_pods(plan, "master-1")["kube-apiserver"]["spec"]["containers"][0]["command"]
    assert "--advertise-address=10.240.0.12" in command
    assert "--etcd-servers=https://10.240.0.10:2379" in command


@pytest.mark.parametrize("minor", MINORS)
def test_containers_can_read_their_files_and_no_others(tmp_path: Path, minor: str) -> None:
    """Every file that a command names is below a mount, and belongs to the user of the container."""
    plan = plan_layout(tmp_path, minor, "static-pods")
    items = list_items(plan, "master-0")
    files = {i.path: i for i in items if isinstance(i, File | Directory)}
    users = {i.uid: i.name for i in items if isinstance(i, User) and i.uid is not None}
    for pod in read_pods(plan).values():
        (container,) = pod["spec"]["containers"]
        mounts = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
        volumes = {v["name"]: v["hostPath"]["path"] for v in pod["spec"]["volumes"]}
        assert {m["name"]: m["mountPath"] for m in container["volumeMounts"]} == volumes
        owner = users[pod["spec"]["securityContext"]["runAsUser"]]
        named = [word.partition("=")[2] for word in container["command"] if "=/" in word]
        assert named
        for path in named:
            assert any(path.startswith(f"{mount}/") for mount in mounts), path
            if path in files and files[path].mode == "0600":
                assert files[path].owner == owner, path
        assert all(is_read_only for mount, is_read_only in mounts.items() if mount != "/var/log/kubernetes")


@pytest.mark.parametrize(
    ("minor", "probe"),
    [("1.15", "tcpSocket"), ("1.20", "tcpSocket"), ("1.31", "tcpSocket"), ("1.32", "httpGet")],
)
def test_the_kubelet_asks_what_it_may_ask_without_a_credential(
    tmp_path: Path, minor: str, probe: str
) -> None:
    pod = read_pods(plan_layout(tmp_path, minor, "static-pods"))["kube-apiserver"]
    container = pod["spec"]["containers"][0]
    assert probe in container["livenessProbe"]
    has_startup = load_gates(newest_patch(minor)).has("cluster", "Pod.startupProbe")
    assert ("startupProbe" in container) == has_startup
    # minutes, because the API server waits for etcd and small machines are slow
    start = container.get("startupProbe", {"failureThreshold": 0, "periodSeconds": 0})
    patience = start["failureThreshold"] * start["periodSeconds"]
    assert patience + container["livenessProbe"].get("initialDelaySeconds", 0) >= 120


@pytest.mark.parametrize(
    ("minor", "taints", "labels"),
    [
        ("1.6", ["master"], ["master"]),
        ("1.19", ["master"], ["master"]),
        ("1.20", ["master"], ["master", "control-plane"]),
        ("1.23", ["master"], ["master", "control-plane"]),
        ("1.24", ["master", "control-plane"], ["control-plane"]),
        ("1.25", ["control-plane"], ["control-plane"]),
        (MINORS[-1], ["control-plane"], ["control-plane"]),
    ],
)
def test_labels_and_taints_are_those_of_the_version(
    tmp_path: Path, minor: str, taints: list[str], labels: list[str]
) -> None:
    """As kubeadm gives them in that version (cmd/kubeadm/app/phases/markcontrolplane)."""
    plan = plan_layout(tmp_path, minor, "static-pods")
    assert read_taints(plan, "master-0") == [f"node-role.kubernetes.io/{key}" for key in taints]
    assert read_taints(plan, "both-0") == []
    for node in ("master-0", "both-0"):
        words = read_units(plan, node)["imagegen-first-boot.service"].split()
        given = [word for word in words if word.startswith("node-role.kubernetes.io/")]
        assert given == [f"node-role.kubernetes.io/{key}" for key in labels]


def read_units(plan: Plan, node: str) -> dict[str, str]:
    return {i.name: i.content or "" for i in list_items(plan, node) if isinstance(i, Unit)}


def read_taints(plan: Plan, node: str) -> list[str]:
    """What the kubelet registers the node with, by flag or by file."""
    flags = [w for w in read_units(plan, node)["kubelet.service"].split() if "--register-with-taints" in w]
    if flags:
        pairs = flags[0].strip('"').partition("=")[2].split(",")
        assert all(pair.endswith("=:NoSchedule") for pair in pairs)
        return [pair.removesuffix("=:NoSchedule") for pair in pairs]
    try:
        body = yaml.safe_load(read_file(plan, node, "/etc/kubernetes/kubelet.yaml"))
    except KeyError:
        return []
    assert all(taint["effect"] == "NoSchedule" for taint in body.get("registerWithTaints", []))
    return [taint["key"] for taint in body.get("registerWithTaints", [])]


def test_a_master_needs_no_token_and_shares_no_key(tmp_path: Path) -> None:
    plan = plan_layout(tmp_path, "1.36", "static-pods")
    found = identities(plan, "master-0")
    assert ("path", "/etc/kubernetes/bootstrap.kubeconfig") not in found
    assert ("unit", "imagegen-await-api.service") not in found
    text = read_file(plan, "master-0", "/etc/kubernetes/kubelet.kubeconfig")
    assert "server: https://127.0.0.1:6443" in text
    assert "<nodes/master-0/kubelet.key>" in text
    subjects = {str(c.subject) for c in list_node_certificates(plan.cluster, plan.cluster.node("master-0"))}
    assert "CN=system:node:master-0, O=system:nodes" in subjects
    tokens = read_file(plan, "master-0", "/etc/imagegen/bootstrap-tokens")
    assert [line.split()[0] for line in tokens.splitlines()[1:]] == ["worker-0"]
    policy = read_file(plan, "master-0", "/etc/imagegen/csr-policy")
    assert {"node master-0 10.240.0.11", "node worker-0 10.240.0.21"} < set(policy.splitlines())
    assert "reserve 10.240.0.11" not in policy


def test_the_programs_of_the_control_plane_are_in_images_only(tmp_path: Path) -> None:
    plan = plan_layout(tmp_path, "1.36", "static-pods")
    programs = {i.part for i in list_items(plan, "master-0") if isinstance(i, Binary)}
    assert not programs & set(COMPONENTS)
    assert {"kubelet", "kubectl", "containerd", "kube-proxy"} < programs


def test_a_master_that_runs_pods_has_the_kernel_settings_of_one(tmp_path: Path) -> None:
    plan = plan_layout(tmp_path, "1.36", "static-pods")
    assert ("sysctl", "net.bridge.bridge-nf-call-iptables") in identities(plan, "master-0")
