"""``upgrade-check`` names every flag of the hand-built systems: what becomes of it, or that it stays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from imagegen.kubernetes.flags import find_flag
from imagegen.kubernetes.releases import known_minors, newest_patch
from imagegen.kubernetes.upgrade import Effect, list_untouched, plan_upgrade
from imagegen.model.cluster import Cluster, Runtime
from tests.kubernetes.clusters import make_cluster
from tests.seeds.documents import NAMES, list_flags, read_document

NEWEST = newest_patch(known_minors()[-1])
DAEMONS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")

#: what became of flags that are renamed, inert or gone: seed, component, item, effect, minor
FATES = (
    ("s4", "kube-apiserver", "--admission-control", Effect.DEPRECATED, "1.10"),
    ("s4", "kube-apiserver", "--insecure-bind-address", Effect.CHANGED, "1.20"),
    ("s4", "kube-apiserver", "--insecure-bind-address", Effect.REMOVED, "1.24"),
    ("s4", "kube-apiserver", "rbac.authorization.k8s.io/v1alpha1", Effect.REMOVED, "1.23"),
    ("s4", "kube-apiserver", "--kubelet-https", Effect.DEPRECATED, "1.19"),
    ("s4", "kube-apiserver", "--kubelet-https", Effect.REMOVED, "1.22"),
    ("s4", "kube-apiserver", "--experimental-bootstrap-token-auth", Effect.REMOVED, "1.9"),
    ("s4", "kube-apiserver", "--service-account-key-file", Effect.CHANGED, "1.20"),
    ("s4", "kube-apiserver", "--enable-swagger-ui", Effect.CHANGED, "1.14"),
    ("s4", "kube-apiserver", "--enable-swagger-ui", Effect.REMOVED, "1.24"),
    ("s4", "kube-apiserver", "--apiserver-count", Effect.CHANGED, "1.11"),
    ("s4", "kube-apiserver", "--apiserver-count", Effect.DEPRECATED, "1.24"),
    ("s4", "kube-apiserver", "audit log without a policy file", Effect.CHANGED, "1.8"),
    ("s4", "kube-controller-manager", "--address", Effect.REMOVED, "1.24"),
    ("s4", "kube-controller-manager", "--master", Effect.CHANGED, "1.20"),
    ("s4", "kube-scheduler", "--address", Effect.REMOVED, "1.24"),
    ("s4", "kube-scheduler", "--master", Effect.CHANGED, "1.20"),
    ("s1", "kubelet", "--pod-infra-container-image", Effect.REMOVED, "1.35"),
    ("s1", "kubelet", "--experimental-bootstrap-kubeconfig", Effect.DEPRECATED, "1.7"),
    ("s1", "kubelet", "--experimental-bootstrap-kubeconfig", Effect.REMOVED, "1.23"),
    ("s1", "kubelet", "--require-kubeconfig", Effect.REMOVED, "1.10"),
    ("s1", "kubelet", "--allow-privileged", Effect.REMOVED, "1.15"),
    ("s1", "kubelet", "--logtostderr", Effect.REMOVED, "1.26"),
    ("s1", "kube-proxy", "--logtostderr", Effect.REMOVED, "1.26"),
    ("s1", "kubelet", "--hairpin-mode", Effect.DEPRECATED, "1.10"),
    ("s1", "kubelet", "--serialize-image-pulls", Effect.DEPRECATED, "1.10"),
    ("s1", "kubelet", "--cluster-dns", Effect.DEPRECATED, "1.10"),
    ("s1", "cluster", "dockershim", Effect.REMOVED, "1.24"),
    ("s0", "kubelet", "--network-plugin", Effect.REMOVED, "1.24"),
    ("s0", "kubelet", "--cni-conf-dir", Effect.REMOVED, "1.24"),
    ("s0", "kubelet", "--cni-bin-dir", Effect.REMOVED, "1.24"),
    ("s0", "kube-apiserver", "DenyEscalatingExec", Effect.REMOVED, "1.21"),
    ("s0", "kube-apiserver", "--experimental-encryption-provider-config", Effect.DEPRECATED, "1.13"),
    ("s0", "kube-apiserver", "--experimental-encryption-provider-config", Effect.REMOVED, "1.24"),
    ("s0", "kube-apiserver", "v1 EncryptionConfig", Effect.DEPRECATED, "1.13"),
    ("s0", "kube-apiserver", "EncryptionConfiguration strict decode", Effect.CHANGED, "1.31"),
    ("s0", "kube-apiserver", "audit.k8s.io/v1beta1 Policy", Effect.REMOVED, "1.24"),
    ("s0", "kube-controller-manager", "--experimental-cluster-signing-duration", Effect.DEPRECATED, "1.19"),
    ("s0", "kube-controller-manager", "--experimental-cluster-signing-duration", Effect.REMOVED, "1.25"),
    (
        "s0",
        "kube-controller-manager",
        "csrapproving approves kubelet serving (selfnodeserver)",
        Effect.REMOVED,
        "1.11",
    ),
    ("s0", "cluster", "hyperkube image/binary", Effect.REMOVED, "1.19"),
    ("s3", "kubeadm", "v1alpha1 MasterConfiguration", Effect.REMOVED, "1.12"),
)
#: still valid on the newest minor: seed, component, item
STAYING = (
    ("s4", "kube-apiserver", "--token-auth-file"),
    ("s0", "kubelet", "RotateKubeletServerCertificate"),
)


def make_seed(folder: Path, name: str) -> Cluster:
    """A cluster of the seed's minor whose cluster file names every flag of the seed."""
    flags: dict[str, dict[str, str]] = {}
    for (component, flag), value in list_flags(name).items():
        if component in DAEMONS:
            flags.setdefault(component, {})[flag] = value
    minor = ".".join(str(read_document(name)["facts"]["kubernetes"]).split(".")[:2])
    cluster, _ = make_cluster(folder, minor, flags=json.dumps(flags))
    return replace(cluster, runtime=Runtime.DOCKER)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cluster]:
    return {name: make_seed(tmp_path_factory.mktemp(name), name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_flag_of_a_seed_is_named(seeds: dict[str, Cluster], name: str) -> None:
    steps = plan_upgrade(seeds[name], NEWEST)
    told = {
        (change.path, change.item) for step in steps for change in step.changes if change.concerns_the_user
    }
    stays = set(list_untouched(seeds[name], steps))
    for component, flag in list_flags(name):
        if component not in DAEMONS:
            continue
        path = f"kubernetes.extra_args.{component}.{flag}"
        is_told = (path, f"--{flag}") in told
        assert is_told != ((component, f"--{flag}") in stays), flag
        found = find_flag(component, flag)
        if not is_told:
            assert found is not None, flag
            assert found.last is None, flag


@pytest.mark.parametrize("fate", FATES, ids=lambda fate: f"{fate[0]}-{fate[1]}-{fate[2]}-{fate[4]}")
def test_what_becomes_of_it(seeds: dict[str, Cluster], fate: tuple[str, str, str, Effect, str]) -> None:
    name, component, item, effect, minor = fate
    changes = [change for step in plan_upgrade(seeds[name], NEWEST) for change in step.changes]
    (change,) = [
        c for c in changes if (c.component, c.item, c.effect, c.minor) == (component, item, effect, minor)
    ]
    if (component, item.removeprefix("--")) in list_flags(name):
        assert change.path == f"kubernetes.extra_args.{component}.{item.removeprefix('--')}"


@pytest.mark.parametrize("stay", STAYING, ids=lambda stay: f"{stay[0]}-{stay[2]}")
def test_what_stays(seeds: dict[str, Cluster], stay: tuple[str, str, str]) -> None:
    name, component, item = stay
    assert (component, item) in list_untouched(seeds[name], plan_upgrade(seeds[name], NEWEST))
