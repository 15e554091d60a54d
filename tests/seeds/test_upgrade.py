"""``upgrade-check`` names every flag of the hand-built systems: what becomes of it, or that it stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from imagegen.cli.main import main
from imagegen.kubernetes.flags import find_flag
from imagegen.kubernetes.releases import known_minors, newest_patch
from imagegen.kubernetes.upgrade import Effect, list_untouched, plan_upgrade
from imagegen.model.cluster import Cluster
from imagegen.resources import find_resource
from tests.plan.plans import read_cluster
from tests.seeds.documents import NAMES, list_flags, read_document

NEWEST = newest_patch(known_minors()[-1])
DAEMONS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")

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


#: flags that only got another name: seed, component, flag, what it is called now
RENAMED = (
    ("s4", "kube-apiserver", "admission-control", "--enable-admission-plugins"),
    ("s4", "kube-apiserver", "experimental-bootstrap-token-auth", "--enable-bootstrap-token-auth"),
    ("s1", "kubelet", "experimental-bootstrap-kubeconfig", "--bootstrap-kubeconfig"),
    ("s0", "kube-apiserver", "experimental-encryption-provider-config", "--encryption-provider-config"),
    ("s0", "kube-controller-manager", "experimental-cluster-signing-duration", "--cluster-signing-duration"),
)


def write_seed(folder: Path, name: str) -> Path:
    """The seed's own example, whose cluster file also names every flag that its source gives to a daemon."""
    source = find_resource("examples", f"seed-{name}", "cluster.yaml").read_text("utf-8")
    # as nodes, which keep what is quoted and what is not
    document = yaml.compose(source)
    (kubernetes,) = [value for key, value in document.value if key.value == "kubernetes"]
    flags: dict[str, dict[str, str]] = {}
    for (component, flag), value in list_flags(name).items():
        if component in DAEMONS:
            flags.setdefault(component, {})[flag] = value
    others = [(key, value) for key, value in kubernetes.value if key.value != "extra_args"]
    kubernetes.value = [
        *others,
        (yaml.ScalarNode("tag:yaml.org,2002:str", "extra_args"), yaml.compose(json.dumps(flags))),
    ]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.serialize(document))
    return path


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cluster]:
    folder = tmp_path_factory.mktemp("seeds")
    return {name: read_cluster(write_seed(folder, name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_way_begins_at_the_seeds_own_version(seeds: dict[str, Cluster], name: str) -> None:
    minor = ".".join(str(read_document(name)["facts"]["kubernetes"]).split(".")[:2])
    assert seeds[name].kubernetes.version.minor_text == minor
    first = plan_upgrade(seeds[name], NEWEST)[0].version
    assert first.minor == seeds[name].kubernetes.version.minor + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_verb_prints_every_flag_of_a_seed(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["upgrade-check", str(write_seed(tmp_path, name)), "--to", str(NEWEST)])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    stays = lines[-1].removeprefix("stays as it is: ").split(", ")
    for component, flag in list_flags(name):
        if component in DAEMONS:
            told = [line for line in lines if line.startswith(f"  {component} --{flag} ")]
            assert bool(told) != (f"{component} --{flag}" in stays), (component, flag)


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


@pytest.mark.parametrize("renamed", RENAMED, ids=lambda renamed: f"{renamed[0]}-{renamed[2]}")
def test_the_new_name_is_said_where_the_old_one_goes(
    seeds: dict[str, Cluster], renamed: tuple[str, str, str, str]
) -> None:
    name, component, flag, successor = renamed
    path = f"kubernetes.extra_args.{component}.{flag}"
    changes = [change for step in plan_upgrade(seeds[name], NEWEST) for change in step.changes]
    told = [change.instead for change in changes if change.path == path and change.item == f"--{flag}"]
    assert told
    assert all(successor in instead for instead in told)


@pytest.mark.parametrize("stay", STAYING, ids=lambda stay: f"{stay[0]}-{stay[2]}")
def test_what_stays(seeds: dict[str, Cluster], stay: tuple[str, str, str]) -> None:
    name, component, item = stay
    assert (component, item) in list_untouched(seeds[name], plan_upgrade(seeds[name], NEWEST))
