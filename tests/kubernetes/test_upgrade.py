"""``upgrade-check``: nothing that the user names goes away unsaid, on no minor of the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagegen.errors import UsageError
from imagegen.kubernetes.releases import known_minors, newest_patch
from imagegen.kubernetes.upgrade import Change, Effect, list_untouched, plan_upgrade
from tests.kubernetes.clusters import make_cluster

NEWEST = newest_patch(known_minors()[-1])
#: what became of the flags and objects of the hand-built clusters: component, item, effect, minor
FATES = (
    ("kube-apiserver", "--admission-control", Effect.DEPRECATED, "1.10"),
    ("kube-apiserver", "--insecure-bind-address", Effect.CHANGED, "1.20"),
    ("kube-apiserver", "--insecure-port", Effect.REMOVED, "1.24"),
    ("kube-apiserver", "rbac.authorization.k8s.io/v1beta1", Effect.REMOVED, "1.22"),
    ("kube-apiserver", "rbac.authorization.k8s.io/v1alpha1", Effect.REMOVED, "1.23"),
    ("kube-apiserver", "--kubelet-https", Effect.REMOVED, "1.22"),
    ("kube-apiserver", "--experimental-bootstrap-token-auth", Effect.REMOVED, "1.9"),
    ("kube-apiserver", "--service-account-signing-key-file", Effect.CHANGED, "1.20"),
    ("kube-apiserver", "--enable-swagger-ui", Effect.REMOVED, "1.24"),
    ("kube-apiserver", "--apiserver-count", Effect.DEPRECATED, "1.24"),
    ("kube-apiserver", "audit log without a policy file", Effect.CHANGED, "1.8"),
    ("kube-controller-manager", "--address", Effect.REMOVED, "1.24"),
    ("kube-scheduler", "--address", Effect.REMOVED, "1.24"),
    ("kubelet", "--pod-infra-container-image", Effect.REMOVED, "1.35"),
    ("kubelet", "--experimental-bootstrap-kubeconfig", Effect.REMOVED, "1.23"),
    ("kubelet", "--require-kubeconfig", Effect.REMOVED, "1.10"),
    ("kubelet", "--allow-privileged", Effect.REMOVED, "1.15"),
    ("all", "--logtostderr", Effect.REMOVED, "1.26"),
    ("kubelet", "--network-plugin", Effect.REMOVED, "1.24"),
    ("kubelet", "--cni-bin-dir", Effect.REMOVED, "1.24"),
    ("kube-apiserver", "DenyEscalatingExec", Effect.REMOVED, "1.21"),
    ("kube-apiserver", "--experimental-encryption-provider-config", Effect.REMOVED, "1.24"),
    ("kube-apiserver", "v1 EncryptionConfig", Effect.DEPRECATED, "1.13"),
    ("kube-apiserver", "EncryptionConfiguration strict decode", Effect.CHANGED, "1.31"),
    ("kube-apiserver", "audit.k8s.io/v1beta1 Policy", Effect.REMOVED, "1.24"),
    ("kube-controller-manager", "--experimental-cluster-signing-duration", Effect.REMOVED, "1.25"),
    (
        "kube-controller-manager",
        "csrapproving approves kubelet serving (selfnodeserver)",
        Effect.REMOVED,
        "1.11",
    ),
    ("cluster", "hyperkube image/binary", Effect.REMOVED, "1.19"),
    ("cluster", "dockershim", Effect.REMOVED, "1.24"),
    ("kubeadm", "v1alpha1 MasterConfiguration", Effect.REMOVED, "1.12"),
)
FLAGS = """{kube-apiserver: {insecure-port: 0, feature-gates: "KubeletCgroupDriverFromCRI=true"},
    kubelet: {network-plugin: cni, hairpin-mode: hairpin-veth}, kube-proxy: {proxy-mode: iptables}}"""


def list_changes(folder: Path, start: str, flags: str = "") -> list[Change]:
    cluster, _ = make_cluster(folder, start, flags=flags)
    return [change for step in plan_upgrade(cluster, NEWEST) for change in step.changes]


@pytest.fixture(scope="module")
def from_the_oldest(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str, Effect, str]]:
    found = list_changes(tmp_path_factory.mktemp("upgrade"), known_minors()[0])
    return {(change.component, change.item, change.effect, change.minor) for change in found}


@pytest.mark.parametrize("fate", FATES, ids=lambda fate: f"{fate[0]}-{fate[1]}")
def test_every_flag_of_the_hand_built_clusters_is_named(
    from_the_oldest: set[tuple[str, str, Effect, str]], fate: tuple[str, str, Effect, str]
) -> None:
    assert fate in from_the_oldest


def test_no_minor_is_left_out(tmp_path: Path) -> None:
    cluster, _ = make_cluster(tmp_path, "1.20")
    steps = plan_upgrade(cluster, NEWEST)
    assert [step.version.minor_text for step in steps] == list(known_minors()[known_minors().index("1.21") :])
    assert ("etcd", "3.4.23", "3.5.35") in next(s for s in steps if s.version.minor == 22).companions


def test_only_what_the_user_names_has_a_place(tmp_path: Path) -> None:
    found = [change for change in list_changes(tmp_path, "1.20", FLAGS) if change.concerns_the_user]
    assert {(change.item, change.effect, change.minor) for change in found} >= {
        ("--insecure-port", Effect.REMOVED, "1.24"),
        ("--network-plugin", Effect.REMOVED, "1.24"),
    }
    assert all(change.path.startswith("kubernetes.extra_args.") for change in found)


def test_flags_of_etcd_go_with_its_releases(tmp_path: Path) -> None:
    """In the minor of Kubernetes that brings the release of etcd in which they go."""
    flags = (
        "{etcd: {discovery: x, enable-v2: 'true', experimental-memory-mlock: 'true', heartbeat-interval: 5}}"
    )
    cluster, _ = make_cluster(tmp_path, "1.16", flags=flags)
    steps = plan_upgrade(cluster, newest_patch("1.37"))
    found = {
        (change.item, change.effect, change.minor, change.path)
        for step in steps
        for change in step.changes
        if change.component == "etcd"
    }
    place = "kubernetes.extra_args.etcd."
    assert found == {
        ("--enable-v2", Effect.CHANGED, "1.17", f"{place}enable-v2"),
        ("--enable-v2", Effect.DEPRECATED, "1.22", f"{place}enable-v2"),
        ("--enable-v2", Effect.REMOVED, "1.34", f"{place}enable-v2"),
        ("--discovery", Effect.DEPRECATED, "1.34", f"{place}discovery"),
        ("--discovery", Effect.REMOVED, "1.37", f"{place}discovery"),
        (
            "--experimental-memory-mlock",
            Effect.DEPRECATED,
            "1.34",
            f"{place}experimental-memory-mlock",
        ),
        (
            "--experimental-memory-mlock",
            Effect.REMOVED,
            "1.37",
            f"{place}experimental-memory-mlock",
        ),
    }
    assert list_untouched(cluster, steps) == (("etcd", "--heartbeat-interval"),)


def test_an_older_version_is_no_upgrade(tmp_path: Path) -> None:
    cluster, _ = make_cluster(tmp_path, "1.36")
    with pytest.raises(UsageError, match=r"wanted a version newer than 1\.36\.\d+, got 1\.35\.0"):
        plan_upgrade(cluster, newest_patch("1.35")._replace(patch=0))


@pytest.mark.parametrize(
    ("layout", "items"),
    [
        ("systemd", set()),
        ("static-pods", {"node-role.kubernetes.io/master", "taint node-role.kubernetes.io/master"}),
        ("kubeadm", {"node-role.kubernetes.io/master", "v1beta2", "v1beta3"}),
    ],
)
def test_what_a_control_plane_of_pods_brings_is_the_users_concern(
    tmp_path: Path, layout: str, items: set[str]
) -> None:
    """Manifests of people name labels and taints; files of kubeadm lie in their repositories."""
    cluster, _ = make_cluster(tmp_path, "1.20", layout=layout)
    changes = [change for step in plan_upgrade(cluster, NEWEST) for change in step.changes]
    named = {change.item for change in changes if change.path == "kubernetes.layout"}
    assert items <= named
    assert bool(named) == bool(items)
