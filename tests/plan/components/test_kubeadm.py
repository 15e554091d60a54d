"""The layout kubeadm: its files in every minor that has a beta of them, and who brings what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from imagegen.kubernetes import kubeadm
from imagegen.kubernetes.releases import newest_patch
from imagegen.model.compatibility import KUBEADM_FIRST
from imagegen.pki.inventory import list_node_certificates
from imagegen.plan.components.kubeadm import UNIT
from imagegen.plan.items import Binary, ContainerImage, File, Phase, Port, User
from imagegen.plan.items import Unit as UnitItem
from imagegen.plan.plan import Plan
from tests.goldens import check_golden
from tests.kubernetes.clusters import MINORS
from tests.plan.layouts import STACKED, list_items, plan_layout, read_file

READABLE = tuple(minor for minor in MINORS if newest_patch(minor).minor >= KUBEADM_FIRST)


def read_documents(plan: Plan, node: str) -> dict[str, dict[str, Any]]:
    return {doc["kind"]: doc for doc in yaml.safe_load_all(read_file(plan, node, kubeadm.CONFIG))}


@pytest.mark.parametrize("minor", READABLE)
def test_every_role_renders(tmp_path: Path, minor: str) -> None:
    plan = plan_layout(tmp_path, minor, "kubeadm")
    init = read_documents(plan, "master-0")
    assert list(init) == [
        "InitConfiguration",
        "ClusterConfiguration",
        "KubeletConfiguration",
        "KubeProxyConfiguration",
    ]
    cluster = init["ClusterConfiguration"]
    assert cluster["kubernetesVersion"] == f"v{newest_patch(minor)}"
    assert cluster["etcd"]["external"]["endpoints"] == ["https://10.240.0.10:2379"]
    assert init["KubeletConfiguration"]["staticPodPath"] == "/etc/kubernetes/manifests"
    for node in ("master-1", "both-0", "worker-0"):
        (join,) = read_documents(plan, node).values()
        assert join["kind"] == "JoinConfiguration"
        assert join["apiVersion"] == cluster["apiVersion"]
        assert ("controlPlane" in join) == (node != "worker-0")
        assert (join["nodeRegistration"].get("taints") == []) == (node == "both-0")
        token = join["discovery"]["bootstrapToken"]
        assert token["token"] == join["discovery"]["tlsBootstrapToken"] == f"<nodes/{node}/bootstrap-token>"
        assert token["caCertHashes"] == ["sha256:<pki/ca.crt>"]
    for node in ("etcd-0", "lb-0"):
        assert ("unit", UNIT) not in {item.identity for item in list_items(plan, node)}


@pytest.mark.parametrize("minor", ["1.20", "1.30", MINORS[-1]])
def test_the_files_of_a_cluster(tmp_path: Path, minor: str) -> None:
    plan = plan_layout(tmp_path, minor, "kubeadm")
    nodes = ("master-0", "both-0", "worker-0")
    text = "".join(f"==== {node}\n{read_file(plan, node, kubeadm.CONFIG)}" for node in nodes)
    check_golden(f"plan/kubeadm-{minor}.txt", text)


@pytest.mark.parametrize(
    ("minor", "api"),
    [("1.13", "v1beta1"), ("1.15", "v1beta2"), ("1.21", "v1beta2"), ("1.22", "v1beta3"), ("1.31", "v1beta4")],
)
def test_the_api_is_the_newest_that_the_version_reads(tmp_path: Path, minor: str, api: str) -> None:
    documents = read_documents(plan_layout(tmp_path, minor, "kubeadm"), "master-0")
    assert documents["ClusterConfiguration"]["apiVersion"] == f"kubeadm.k8s.io/{api}"
    extra = documents["ClusterConfiguration"]["apiServer"]["extraArgs"]
    assert isinstance(extra, list) == (api == "v1beta4")


def test_kubeadm_brings_what_we_do_not(tmp_path: Path) -> None:
    plan = plan_layout(tmp_path, "1.36", "kubeadm")
    found = {item.identity for item in list_items(plan, "master-0")}
    assert not found & {
        ("unit", "kube-proxy.service"),
        ("unit", "kube-apiserver.service"),
        ("path", "/etc/kubernetes/addons/20-coredns.yaml"),
        ("path", "/etc/kubernetes/first-boot/50-cluster-info.yaml"),
        ("path", "/etc/kubernetes/bootstrap.kubeconfig"),
        ("path", "/etc/kubernetes/kubelet.yaml"),
    }
    assert {("unit", "kubelet.service"), ("unit", "csr-approver.service"), ("unit", UNIT)} < found
    assert ("path", "/etc/kubernetes/addons/10-flannel.yaml") in found
    programs = {item.part for item in list_items(plan, "worker-0") if isinstance(item, Binary)}
    assert {"kubeadm", "kubelet", "containerd"} < programs
    assert "kube-proxy" not in programs
    images = {i.reference for i in list_items(plan, "worker-0") if isinstance(i, ContainerImage)}
    assert any("kube-proxy" in image for image in images)
    ports = {item.first for item in list_items(plan, "worker-0") if isinstance(item, Port)}
    assert {10250, 10256} < ports


def test_the_authorities_are_ours_and_root_reads_them(tmp_path: Path) -> None:
    """A join finds what it needs, so nothing is uploaded; no daemon has a user of its own."""
    plan = plan_layout(tmp_path, "1.36", "kubeadm")
    files = {i.path: i for i in list_items(plan, "master-1") if isinstance(i, File)}
    for name in ("ca.key", "sa.key", "sa.pub", "front-proxy-ca.key", "apiserver.key", "apiserver.crt"):
        assert files[f"/etc/kubernetes/pki/{name}"].owner == "root"
        assert files[f"/etc/kubernetes/pki/{name}"].phase is Phase.BOOT
    assert {i.name for i in list_items(plan, "master-1") if isinstance(i, User)} == {"csr-approver"}
    leaves = list_node_certificates(plan.cluster, plan.cluster.node("both-0"))
    names = {leaf.name.rpartition("/")[2] for leaf in leaves}
    assert "kubelet" not in names
    assert "controller-manager" not in names
    on_worker = [i.path for i in list_items(plan, "worker-0") if isinstance(i, File)]
    assert not [path for path in on_worker if path.endswith(".key")]


def test_every_token_may_read_what_a_join_reads(tmp_path: Path) -> None:
    plan = plan_layout(tmp_path, "1.36", "kubeadm")
    units = {i.name: i.content or "" for i in list_items(plan, "master-0") if isinstance(i, UnitItem)}
    assert f"--token-group {kubeadm.TOKEN_GROUP}" in units["imagegen-first-boot.service"]
    tokens = read_file(plan, "master-0", "/etc/imagegen/bootstrap-tokens").splitlines()[1:]
    assert [line.split()[0] for line in tokens] == ["master-0", "master-1", "both-0", "worker-0"]
    authentication = yaml.safe_load(read_file(plan, "master-0", "/etc/kubernetes/authentication.yaml"))
    assert {"path": kubeadm.CLUSTER_INFO} in authentication["anonymous"]["conditions"]


def test_the_kubelet_takes_the_flags_of_kubeadm(tmp_path: Path) -> None:
    plan = plan_layout(tmp_path, "1.36", "kubeadm")
    units = {i.name: i.content or "" for i in list_items(plan, "worker-0") if isinstance(i, UnitItem)}
    assert "\n  $KUBELET_KUBEADM_ARGS\n" in units["kubelet.service"]
    assert "EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env" in units["kubelet.service"]
    assert "ConditionPathExists=/var/lib/kubelet/config.yaml" in units["kubelet.service"]


@pytest.mark.parametrize("minor", READABLE)
def test_etcd_on_the_masters_is_external_on_the_same_machine(tmp_path: Path, minor: str) -> None:
    """Its members are known beforehand, so it is our unit, and kubeadm makes no etcd of its own."""
    plan = plan_layout(tmp_path, minor, "kubeadm", nodes=STACKED)
    etcd = read_documents(plan, "master-0")["ClusterConfiguration"]["etcd"]
    assert list(etcd) == ["external"]
    assert etcd["external"]["endpoints"] == [f"https://10.240.0.{last}:2379" for last in (11, 12, 13)]
    for node in ("master-0", "master-1", "master-2"):
        found = {item.identity for item in list_items(plan, node)}
        assert {("unit", "etcd.service"), ("unit", UNIT), ("path", "/etc/etcd/etcd.yaml")} < found
        client = etcd["external"]
        assert {("path", client[name]) for name in ("caFile", "certFile", "keyFile")} < found
    joining = read_documents(plan, "master-1")["JoinConfiguration"]
    assert joining["controlPlane"]["localAPIEndpoint"]["advertiseAddress"] == "10.240.0.12"
    assert ("unit", "etcd.service") not in {item.identity for item in list_items(plan, "worker-0")}
