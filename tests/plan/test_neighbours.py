"""From one minor to the next: every changed line comes from a row of the version tables.

A plan of the new minor is made twice, once as the tables see it and once as if no row had changed. The latter
may differ from the older plan by versions of parts alone (``releases.yaml``); the rest is what rows change,
and the rows that the component asked for are named beside it in ``golden/plan/neighbours-*.txt``.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from imagegen.kubernetes.gates import GateRow, Gates, load_gates
from imagegen.kubernetes.releases import Releases, load_releases, newest_patch
from imagegen.model.cluster import Cluster, Layout, Node, Role
from imagegen.model.compatibility import KUBEADM_FIRST
from imagegen.plan import build
from imagegen.plan.component import Component, Context
from imagegen.plan.dump import dump_item
from imagegen.plan.items import Fragment
from tests.goldens import check_golden
from tests.kubernetes.clusters import MINORS, make_cluster
from tests.plan.layouts import list_items, plan_cluster

NODES = (
    "{name: etcd-0, roles: [etcd], address: 10.240.0.10}",
    "{name: master-0, roles: [master], address: 10.240.0.11}",
    "{name: worker-0, roles: [worker], address: 10.240.0.21}",
    "{name: lb-0, roles: [lb], address: 10.240.0.31}",
)
#: (node, kind, key) → (component, text)
Texts = dict[tuple[str, str, str], tuple[str, str]]
#: programs of a part that are there from one of its versions on (``since`` in releases.yaml)
SINCE = ("vrf", "dummy", "tap", "etcdutl")


@dataclass
class Asking:
    """Who asks for which rows while a plan is made."""

    component: str = ""
    rows: dict[str, dict[tuple[str, str], GateRow]] = field(default_factory=dict)

    def note(self, row: GateRow | None) -> None:
        if row is not None:
            self.rows.setdefault(self.component, {})[row.component, row.item] = row


@dataclass
class Watched:
    """A component that says when it works."""

    module: Component
    asking: Asking

    @property
    def __name__(self) -> str:
        return self.module.__name__

    def plan_role(self, ctx: Context, roles: tuple[Role, ...]) -> Fragment:
        self.asking.component = f"component {self.module.__name__.rpartition('.')[2]}"
        return self.module.plan_role(ctx, roles)

    def plan_node(self, ctx: Context, node: Node) -> Fragment:
        self.asking.component = f"component {self.module.__name__.rpartition('.')[2]}"
        return self.module.plan_node(ctx, node)


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Asking:
    """Records every row that a component asks for."""
    asking = Asking()
    row, find = Gates.row, Gates.find

    def asked_row(self: Gates, component: str, item: str) -> GateRow:
        asking.note(found := row(self, component, item))
        return found

    def asked_find(self: Gates, component: str, item: str) -> GateRow | None:
        asking.note(found := find(self, component, item))
        return found

    monkeypatch.setattr(Gates, "row", asked_row)
    monkeypatch.setattr(Gates, "find", asked_find)
    monkeypatch.setattr(build, "COMPONENTS", [Watched(module, asking) for module in build.COMPONENTS])
    return asking


def list_texts(cluster: Cluster) -> Texts:
    plan = plan_cluster(cluster)
    return {
        (node.name, *item.identity): (
            item.origin.where,
            json.dumps(dump_item(item), indent=1).replace("\\n", "\n"),
        )
        for node in cluster.nodes
        for item in list_items(plan, node.name)
    }


def hide_versions(text: str, releases: Releases) -> str:
    """``text`` with a mark for the version of every part and the place of every image."""
    for name in (
        "pause",
        "coredns",
        "flannel",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    ):
        text = text.replace(releases.image(name), f"<image of {name}>")
    # kubeadm wants the place of CoreDNS in two pieces
    text = re.sub(r"imageRepository: \S+\n +imageTag: \S+", "<image of coredns>", text)
    versions = {**releases.versions, "kubernetes": str(releases.kubernetes)}
    for name, version in sorted(versions.items(), key=lambda pair: (-len(pair[1]), pair)):
        text = re.sub(rf"(?<![\d.]){re.escape(version)}(?![\d.])", f"<version of {name}>", text)
    return text


def differ(row: GateRow, old: Gates, new: Gates) -> bool:
    """Whether two versions see the row differently."""
    before, after = old.version_of(row.component), new.version_of(row.component)
    changed = row.changed is not None and before < row.changed <= after
    return changed or row.state_in(before) is not row.state_in(after)


def make(folder: Path, minor: str, layout: Layout) -> Cluster:
    folder.mkdir(exist_ok=True)
    return make_cluster(folder, minor, layout=layout, nodes=NODES, network="proxy: iptables")[0]


def compare(before: Texts, after: Texts) -> Iterator[tuple[tuple[str, str, str], str]]:
    """What is not the same, with the component that makes it."""
    for key in sorted(before.keys() | after.keys()):
        first, second = before.get(key), after.get(key)
        if (first and first[1]) != (second and second[1]):
            yield key, (second or first or ("", ""))[0]


def hide_all(texts: Texts, minor: str) -> Texts:
    releases = load_releases(newest_patch(minor))
    return {
        (node, kind, hide_versions(key, releases)): (origin, hide_versions(text, releases))
        for (node, kind, key), (origin, text) in texts.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("layout", list(Layout))
def test_every_change_comes_from_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asking: Asking, layout: Layout
) -> None:
    minors = [m for m in MINORS if layout is not Layout.KUBEADM or newest_patch(m).minor >= KUBEADM_FIRST]
    out = []
    for old, new in itertools.pairwise(minors):
        gates = [load_gates(newest_patch(minor)) for minor in (old, new)]
        before, after = make(tmp_path / old, old, layout), make(tmp_path / new, new, layout)
        after = replace(after, runtime=before.runtime)
        asking.rows.clear()
        older, newer = list_texts(before), list_texts(after)
        with monkeypatch.context() as patch:
            patch.setattr(build, "load_gates", lambda _version, as_of=gates[0]: as_of)
            unchanged = list_texts(after)
        by_versions = compare(hide_all(older, old), hide_all(unchanged, new))
        assert [key for key, _ in by_versions if key[2].rpartition("/")[2] not in SINCE] == [], (old, new)
        out.append(f"== {old} to {new}\n{explain(compare(unchanged, newer), asking, *gates)}")
    check_golden(f"plan/neighbours-{layout}.txt", "".join(out))


def test_a_change_without_a_row_is_seen() -> None:
    gates = load_gates(newest_patch("1.23")), load_gates(newest_patch("1.24"))
    asking = Asking(component="component kubelet")
    change = (("worker-0", "unit", "kubelet.service"), "component kubelet")
    asking.note(gates[0].row("kubelet", "--config"))
    with pytest.raises(AssertionError, match="no row explains component kubelet"):
        explain(iter([change]), asking, *gates)
    asking.note(gates[0].row("kubelet", "--network-plugin"))
    assert "because of kubelet --network-plugin" in explain(iter([change]), asking, *gates)
    releases = load_releases(newest_patch("1.23"))
    assert hide_versions(f"v{releases.kubernetes} --new", releases) == "v<version of kubernetes> --new"


def explain(
    changes: Iterator[tuple[tuple[str, str, str], str]], asking: Asking, old: Gates, new: Gates
) -> str:
    """Each changed item below the rows that its component asked for; none may be without."""
    out: dict[str, dict[str, list[str]]] = {}
    for (node, kind, key), component in changes:
        out.setdefault(component, {}).setdefault(f"{kind} {key}", []).append(node)
    lines = []
    for component, items in sorted(out.items()):
        rows = [row for row in asking.rows.get(component, {}).values() if differ(row, old, new)]
        assert rows, f"no row explains {component}: {', '.join(items)}"
        lines.append(component)
        lines += [f"  because of {row.component} {row.item}" for row in sorted(rows, key=lambda r: r.item)]
        lines += [f"  changes {item} on {', '.join(nodes)}" for item, nodes in items.items()]
    return "".join(f"{line}\n" for line in lines)
