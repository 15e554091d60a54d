"""What each choice of the cluster file changes on machines: the difference to the choice beside it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagegen.backends.material import check_ref
from imagegen.diagnostics import Report
from imagegen.model.load import load_cluster
from imagegen.plan.items import Content, File, Item, Ref, Unit
from imagegen.plan.plan import Plan
from tests.goldens import check_golden
from tests.plan.plans import QUICKSTART, try_plan, write_cluster

BALANCER = "{name: lb-0, roles: [lb], address: 10.240.0.5}"
#: name → version, network, further lines, nodes, and the same of what it is compared with
CHOICES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "proxy-ipvs": ({"network": "proxy: ipvs"}, {}),
    "proxy-iptables": ({"network": "proxy: iptables"}, {}),
    "flannel-etcd": ({"network": "cni: flannel-etcd"}, {}),
    "calico": ({"network": "cni: calico"}, {"network": "cni: loopback"}),
    "docker": ({"version": "1.20.2", "more": "runtime: docker\n"}, {"version": "1.20.2"}),
    "docker-flannel-etcd": (
        {"version": "1.20.2", "network": "cni: flannel-etcd", "more": "runtime: docker\n"},
        {"version": "1.20.2", "network": "cni: flannel-etcd"},
    ),
    "node-dns": (
        {"network": "node_dns: lb", "nodes": "\n".join((*QUICKSTART, BALANCER))},
        {"nodes": "\n".join((*QUICKSTART, BALANCER))},
    ),
    "metrics-server": ({"more": "addons: [metrics-server]\n"}, {}),
    "sample": ({"more": "addons: [sample]\n"}, {}),
    "single-certificate": ({"more": "pki: {certificates: single}\n"}, {}),
    "token-file": ({"more": "bootstrap: {method: token-file}\n"}, {}),
}


def describe_plan(plan: Plan) -> Iterator[str]:
    """One line an item and its text below it: for every set of roles, then for its first node."""
    for role_plan in plan.role_plans:
        yield from _describe(role_plan.name, role_plan.items)
        node = next(node for node in plan.cluster.nodes if node.roles == role_plan.roles)
        yield from _describe(node.name, plan.node_plan(node.name).items)


def _describe(where: str, items: tuple[Item, ...]) -> Iterator[str]:
    for item in items:
        kind, key = item.identity
        yield f"{where}: {item.phase.value} {kind} {key}{_describe_fields(item)}\n"
        text = item.content if isinstance(item, Unit) else None
        if isinstance(item, File) and not item.path.startswith("/usr/local/lib/imagegen/"):
            text = show_content(item.content)
        yield from (f"{where}: {key}: {line}\n" for line in (text or "").splitlines())


def _describe_fields(item: Item) -> str:
    names = ("value", "state", "mode", "owner", "purpose", "version", "target")
    found = {name: getattr(item, name) for name in names if hasattr(item, name)}
    return "".join(f" {name}={value}" for name, value in found.items())


def show_content(content: Content) -> str:
    """The text of a file with references by name."""
    return "".join(f"<{part.name}>" if isinstance(part, Ref) else str(part) for part in content)


def make_text(folder: Path, choice: dict[str, str]) -> list[str]:
    folder.mkdir()
    fields = {"version": "1.36.4", "network": "", "more": ""} | choice
    nodes = fields.pop("nodes", "\n".join(QUICKSTART)).split("\n")
    plan, report = try_plan(write_cluster(folder, nodes, **fields))
    assert plan is not None, report.render_text()
    for node in plan.cluster.nodes:
        # what a seed would refuse
        for item in (*plan.role_plan(node.roles).items, *plan.node_plan(node.name).items):
            for part in item.content if isinstance(item, File) else ():
                if isinstance(part, Ref):
                    check_ref(node, item.path, part)
    return list(describe_plan(plan))


@pytest.mark.parametrize("name", CHOICES)
def test_what_the_choice_changes(tmp_path: Path, name: str) -> None:
    choice, beside = CHOICES[name]
    lines = difflib.unified_diff(
        make_text(tmp_path / "beside", beside), make_text(tmp_path / "choice", choice), "without", "with", n=0
    )
    check_golden(f"choices/{name}.diff", "".join("@@\n" if line.startswith("@@") else line for line in lines))


def _change(tmp_path: Path, choice: dict[str, str]) -> tuple[set[str], set[str]]:
    """What the choice takes away, and what it adds."""
    before, after = set(make_text(tmp_path / "beside", {})), set(make_text(tmp_path / "choice", choice))
    return before - after, after - before


def test_without_cluster_dns_nothing_of_coredns_is_left(tmp_path: Path) -> None:
    gone, new = _change(tmp_path, {"network": "cluster_dns: none"})
    assert new == set()
    assert all("coredns" in line or "kubelet.yaml" in line for line in gone)
    assert any(line.startswith("worker: bake image registry.k8s.io/coredns/") for line in gone)
    assert {line for line in gone if "kubelet.yaml" in line} == {
        "worker: /etc/kubernetes/kubelet.yaml: clusterDNS:\n",
        "worker: /etc/kubernetes/kubelet.yaml: - '10.32.0.10'\n",
    }


def test_without_tools_nobody_needs_crictl(tmp_path: Path) -> None:
    gone, new = _change(tmp_path, {"more": "image: {tools: []}\n"})
    assert new == set()
    assert gone
    assert all("crictl" in line for line in gone)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"network": "cluster_dns: none", "more": "addons: [sample]\n"}, "is made of CoreDNS"),
        ({"network": "cluster_dns: none", "version": "1.36.4, layout: kubeadm"}, "kubeadm installs CoreDNS"),
        ({"more": "image: {tools: []}\n", "version": "1.36.4, layout: kubeadm"}, "through crictl"),
    ],
)
def test_what_needs_it_is_refused_without(tmp_path: Path, choice: dict[str, str], words: str) -> None:
    report = Report()
    load_cluster(write_cluster(tmp_path, QUICKSTART, **choice), report)
    assert report.has_errors
    assert words in report.render_text()
