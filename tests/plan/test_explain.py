"""Why is this here, and the tree for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagegen.errors import UsageError
from imagegen.kubernetes.releases import load_releases, newest_patch
from imagegen.model.version import Version
from imagegen.plan.explain import explain_code, explain_flag, explain_path
from imagegen.plan.items import File
from imagegen.plan.outline import iter_plan_text
from imagegen.resources import find_resource
from tests.plan.plans import make_plan, write_cluster


def test_a_file_of_a_component(tmp_path: Path) -> None:
    (found,) = explain_path(make_plan(write_cluster(tmp_path)), "/etc/imagegen/firewall.nft")[:1]
    facts = dict(found.facts)
    assert found.title == "file /etc/imagegen/firewall.nft"
    assert facts["from"] == "component firewall"
    assert facts["why"] == "only the ports of the port table answer"
    assert facts["when"].startswith("bake")


def test_a_sysctl_of_a_profile_names_its_line(tmp_path: Path) -> None:
    (found,) = explain_path(make_plan(write_cluster(tmp_path)), "net.ipv4.ip_forward")
    facts = dict(found.facts)
    assert facts["from"].startswith("imagegen's profiles/worker.yaml:")
    assert facts["on"] == "2 nodes: worker-0, worker-1"


def test_a_secret_is_named_and_not_shown(tmp_path: Path) -> None:
    (found,) = explain_path(make_plan(write_cluster(tmp_path)), "/etc/kubernetes/pki/apiserver.key")
    facts = dict(found.facts)
    assert facts["holds"] == "nodes/master-0/apiserver.key (secret)"
    assert facts["on"] == "1 node: master-0"
    assert facts["when"].startswith("boot")


@pytest.mark.parametrize("name", ["kubelet.service", "kubelet", "/etc/systemd/system/kubelet.service"])
def test_a_unit_has_three_names(tmp_path: Path, name: str) -> None:
    titles = {found.title for found in explain_path(make_plan(write_cluster(tmp_path)), name)}
    assert "unit kubelet.service" in titles


def test_a_port_is_found_inside_its_range(tmp_path: Path) -> None:
    titles = [found.title for found in explain_path(make_plan(write_cluster(tmp_path)), "30080")]
    assert titles == ["port 30000-32767/tcp", "port 30000-32767/udp"]


def test_different_bodies_of_one_path_are_told_apart(tmp_path: Path) -> None:
    found = explain_path(make_plan(write_cluster(tmp_path)), "/etc/hosts")
    assert len(found) == 4
    assert explain_path(make_plan(write_cluster(tmp_path)), "/etc/nothing") == ()


def test_codes_of_the_plan_are_documented() -> None:
    found = explain_code("img201")
    assert found is not None
    assert "replace: true" in found.render_text()
    assert explain_code("IMG299") is None


def test_a_flag_says_since_when_and_what_replaces_it() -> None:
    for name in ("--kubelet-https", "kubelet-https", "--kubelet-https=true"):
        (found,) = explain_flag(name)
        assert found.title == "kube-apiserver --kubelet-https (flag)"
        assert dict(found.facts)["removed in"] == "1.22"
    (found,) = explain_flag("insecure-port", component="kube-apiserver", version=Version(1, 36, 4))
    assert dict(found.facts)["in 1.36.4"] == "removed"
    assert explain_flag("no-such-flag") == ()


def test_a_flag_without_a_story_is_known_too() -> None:
    found = {explanation.title: dict(explanation.facts) for explanation in explain_flag("--profiling")}
    assert set(found) >= {"kube-apiserver --profiling (flag)", "kube-scheduler --profiling (flag)"}
    (only,) = explain_flag("profiling", component="kube-apiserver", version=Version(1, 36, 4))
    assert dict(only.facts)["in 1.36.4"] == "available"


def test_where_a_flag_is_passed_and_a_field_is_set(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    (flag,) = explain_path(plan, "--service-cluster-ip-range")[:1]
    assert flag.title == "unit kube-apiserver.service"
    assert dict(flag.facts)["says"] == "--service-cluster-ip-range=10.32.0.0/16"
    (field,) = explain_path(plan, "protectKernelDefaults")
    assert field.title == "file /etc/kubernetes/kubelet.yaml"
    assert dict(field.facts)["says"] == "protectKernelDefaults: true"
    assert explain_path(plan, "--no-such-flag") == ()


def test_text_escapes_what_a_terminal_would_obey(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "base.yaml").write_text('symlinks: [{path: /etc/a, target: "x\\u202ey"}]\n')
    plan = make_plan(write_cluster(tmp_path), [folder])
    assert "\u202e" not in "".join(iter_plan_text(plan))
    assert "\u202e" not in explain_path(plan, "/etc/a")[0].render_text()


def test_the_tree_of_all_of_one_role_and_of_one_node(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    text = "".join(iter_plan_text(plan))
    assert text.startswith("cluster quickstart: Kubernetes 1.36.4 (systemd), debian-13, golden image")
    assert "role worker (2 nodes: worker-0, worker-1)\n" in text
    assert "node worker-1 (worker, address by DHCP)\n" in text
    assert "holds nodes/master-0/apiserver.key" in text
    role = "".join(iter_plan_text(plan, role="worker"))
    assert role.startswith("role worker")
    assert "net.ipv4.ip_forward = 1" in role
    assert "node " not in role.splitlines()[0]
    node = "".join(iter_plan_text(plan, node="worker-0"))
    assert "net.ipv4.ip_forward = 1" in node
    assert "/etc/imagegen/node.env" in node
    assert max(map(len, text.splitlines())) < 240


@pytest.mark.parametrize(
    ("node", "role", "hint"),
    [
        ("worker-00", None, "did you mean worker-0?"),
        (None, "workers", "did you mean worker?"),
        ("x", None, "there are"),
    ],
)
def test_unknown_names_get_a_suggestion(
    tmp_path: Path, node: str | None, role: str | None, hint: str
) -> None:
    plan = make_plan(write_cluster(tmp_path))
    with pytest.raises(UsageError) as caught:
        "".join(iter_plan_text(plan, node=node, role=role))
    assert hint in (caught.value.hint or "")


def test_a_flag_may_name_its_component() -> None:
    (found,) = explain_flag("kubelet/--network-plugin")
    assert found.title == "kubelet --network-plugin (flag)"
    assert explain_flag("kube-proxy/--network-plugin") == ()


@pytest.mark.parametrize("layout", ["systemd", "static-pods", "kubeadm"])
def test_a_file_of_a_daemon_names_its_inputs_and_gates(tmp_path: Path, layout: str) -> None:
    """Which line of the cluster file and which rows of the version table made it as it is."""
    arguments = "{kube-apiserver: {profiling: 'true'}, kube-proxy: {conntrack-min: '5'}}"
    plan = make_plan(write_cluster(tmp_path, version=f"1.36.4, layout: {layout}, extra_args: {arguments}"))
    places = {
        "systemd": ("kube-apiserver.service", "/etc/kubernetes/kube-proxy.yaml"),
        "static-pods": ("/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/kube-proxy.yaml"),
        "kubeadm": ("/etc/kubernetes/kubeadm.yaml", "/etc/kubernetes/kubeadm.yaml"),
    }
    api, proxy = (explain_path(plan, path)[0].facts for path in places[layout])
    inputs = {value.rpartition(": ")[2] for label, value in (*api, *proxy) if label == "input"}
    assert inputs == {
        "kubernetes.extra_args.kube-apiserver.profiling",
        "kubernetes.extra_args.kube-proxy.conntrack-min",
    }
    assert all("cluster.yaml:" in value for label, value in (*api, *proxy) if label == "input")
    gates = [value for label, value in (*api, *proxy) if label == "gate"]
    assert "kube-apiserver --audit-policy-file: since 1.7" in gates
    assert "kube-proxy KubeProxyConfiguration.mode nftables: since 1.31" in gates
    assert not [gate for gate in gates if "mode ipvs" in gate or "EncryptionConfig" in gate]


@pytest.mark.parametrize(
    ("path", "gate"),
    [
        ("/etc/kubernetes/kubelet.yaml", "kubelet KubeletConfiguration.failCgroupV1: since 1.31"),
        ("/etc/etcd/etcd.yaml", "etcd --feature-gates: since 3.6"),
        ("/etc/containerd/config.toml", "containerd config version 4: since 2.3"),
        ("kube-scheduler.service", "kube-scheduler --authentication-kubeconfig: since 1.13"),
        ("kube-controller-manager", "kube-controller-manager --cluster-signing-duration: since 1.19"),
        ("/etc/kubernetes/audit-policy.yaml", "kube-apiserver audit.k8s.io/v1 Policy: since 1.12"),
        (
            "/etc/kubernetes/encryption.yaml",
            "kube-apiserver EncryptionConfiguration.resources.providers.secretbox",
        ),
        (
            "/etc/kubernetes/first-boot/10-bootstrap.yaml",
            "kube-apiserver rbac.authorization.k8s.io/v1: since 1.8",
        ),
        ("/etc/kubernetes/addons/20-coredns.yaml", "cluster PodDisruptionBudget.maxUnavailable: since 1.7"),
        ("/etc/kubernetes/addons/20-coredns.yaml", "cluster kubernetes.io/os: since 1.14"),
        ("/etc/kubernetes/addons/20-coredns.yaml", "coredns plugin ready: since 1.5"),
    ],
)
def test_gates_of_other_daemons(tmp_path: Path, path: str, gate: str) -> None:
    facts = [fact for found in explain_path(make_plan(write_cluster(tmp_path)), path) for fact in found.facts]
    assert any(label == "gate" and value.startswith(gate) for label, value in facts), facts
    assert not [value for label, value in facts if label == "gate" and "removed in 1.1" in value]


def test_gates_are_about_what_stands_in_the_file(tmp_path: Path) -> None:
    """A ConfigMap's words are no flags, and a field counts below its own parent only."""
    (found,) = explain_path(make_plan(write_cluster(tmp_path)), "/etc/kubernetes/addons/20-coredns.yaml")
    gates = [value for label, value in found.facts if label == "gate"]
    assert not [gate for gate in gates if "--" in gate or "hostPath" in gate or "v1beta1" in gate]


def test_a_part_with_versions_of_its_own_is_asked_in_its_own_version() -> None:
    (pre_vote,) = explain_flag("etcd/--pre-vote", version=Version(1, 13, 12))
    assert pre_vote.facts == (("in etcd 3.2.32", "not available"), ("since", "3.4"))
    (discovery,) = explain_flag("etcd/--discovery", version=newest_patch("1.37"))
    assert (
        dict(discovery.facts)[f"in etcd {load_releases(newest_patch('1.37')).version('etcd')}"] == "removed"
    )


def test_a_kind_may_be_named_by_its_api_alone() -> None:
    assert [found.title for found in explain_flag("audit.k8s.io/v1")] == [
        "kube-apiserver audit.k8s.io/v1 Policy (api)"
    ]


@pytest.mark.parametrize("name", ["quickstart", *(f"seed-s{number}" for number in range(5)), "seed-s2-today"])
def test_everything_of_every_example_is_explained(name: str) -> None:
    """Whatever the plan holds is found by its own name, with who asked for it, why and on which nodes."""
    plan = make_plan(Path(str(find_resource("examples", name, "cluster.yaml"))))
    role_items = [item for role_plan in plan.role_plans for item in role_plan.items]
    items = [*role_items, *(item for node_plan in plan.node_plans() for item in node_plan.items)]
    paths = {item.identity[1] for item in items if isinstance(item, File)}
    assert {"/etc/hosts", "/etc/imagegen/node.env"} <= paths
    told = set()
    for word in {item.identity[1] for item in items}:
        found = explain_path(plan, word)
        assert found, word
        for explanation in found:
            labels = [label for label, _ in explanation.facts]
            assert {"what", "why", "from", "when", "on"} <= set(labels), (word, explanation.render_text())
            told |= {word} if "gate" in labels else set()
    objects = {
        path for path in paths if path.startswith(("/etc/kubernetes/addons/", "/etc/kubernetes/manifests/"))
    }
    read = {path for path in paths if path.startswith("/etc/kubernetes/") and path.endswith("policy.yaml")}
    assert objects | read <= told


def test_a_flag_is_found_in_the_pairs_of_kubeadm(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path, version="1.36.4, layout: kubeadm"))
    (found,) = [e for e in explain_path(plan, "--audit-policy-file") if "kubeadm.yaml" in e.title]
    assert ("says", "- name: audit-policy-file value: /etc/kubernetes/audit-policy.yaml") in found.facts
