"""What changes on which node between two plans, or two ``plan.json``. Secrets by name only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any, Literal

from imagegen.diagnostics import printable
from imagegen.errors import UsageError
from imagegen.plan.dump import FORMAT, ItemData, describe_cluster, dump_item
from imagegen.plan.plan import Plan

Change = Literal["added", "removed", "changed"]
_MARK: Mapping[Change, str] = {"added": "+", "removed": "-", "changed": "~"}
_KEYS = ("path", "name", "key", "reference", "first")
_PATH_KINDS = frozenset({"file", "directory", "symlink", "binary"})
_MANY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """One node of a plan document: its set of roles, its facts and its own items by identity."""

    roles: str
    facts: Mapping[str, object]
    items: Mapping[str, ItemData]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDocument:
    """A plan as data, from a Plan or from a ``plan.json``."""

    cluster: Mapping[str, object]
    roles: Mapping[str, Mapping[str, ItemData]]
    nodes: Mapping[str, NodeEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemChange:
    """One item. ``details`` are the fields that differ, ``body`` a unified diff of its text."""

    change: Change
    item: str
    phase: str
    details: tuple[str, ...] = ()
    body: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectChange:
    """A set of roles, or nodes that change in the same way; ``nodes`` are the machines that are affected."""

    kind: Literal["role", "node"]
    change: Change
    name: str
    nodes: tuple[str, ...]
    details: tuple[str, ...] = ()
    items: tuple[ItemChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDiff:
    """Everything that differs; empty when the two plans make the same machines."""

    cluster: tuple[str, ...] = ()
    subjects: tuple[SubjectChange, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.cluster and not self.subjects

    def as_dict(self) -> dict[str, object]:
        """The machine form that ``--format json`` prints."""
        return {
            "cluster": list(self.cluster),
            "changes": [
                {
                    "kind": subject.kind,
                    "name": subject.name,
                    "change": subject.change,
                    "nodes": list(subject.nodes),
                    "details": list(subject.details),
                    "items": [
                        {
                            "change": item.change,
                            "item": item.item,
                            "phase": item.phase,
                            "details": list(item.details),
                            "body": list(item.body),
                        }
                        for item in subject.items
                    ],
                }
                for subject in self.subjects
            ],
        }

    def render_text(self) -> str:
        """For people: ``+`` added, ``-`` removed, ``~`` changed. Says so when nothing changes."""
        return "".join(self._iter_text())

    def _iter_text(self) -> Iterator[str]:
        if self.is_empty:
            yield "nothing changes\n"
        for fact in self.cluster:
            yield f"~ cluster {printable(fact)}\n"
        for subject in self.subjects:
            names = ", ".join(subject.nodes[:_MANY]) + (" …" if len(subject.nodes) > _MANY else "")
            label = f"role {subject.name} ({names})" if subject.kind == "role" else f"node {names}"
            yield f"{_MARK[subject.change]} {label}\n"
            yield from (f"    {printable(detail)}\n" for detail in subject.details)
            for item in subject.items:
                details = f": {', '.join(item.details)}" if item.details else ""
                yield f"  {_MARK[item.change]} {item.phase} {printable(item.item)}{printable(details)}\n"
                yield from (f"      {printable(line)}\n" for line in item.body)


def read_plan_document(path: Path) -> PlanDocument:
    """The plan in a ``plan.json``, or in the ``plan.json`` of an output folder; raises UsageError."""
    file = path / "plan.json" if path.is_dir() else path
    try:
        with file.open(encoding="utf-8") as stream:
            data = json.load(stream)
        if data["format"] != FORMAT:
            raise ValueError(f"wanted format {FORMAT}, got {data['format']!r}")
        return PlanDocument(
            cluster=dict(data["cluster"]),
            roles={role["name"]: _index_items(role["items"]) for role in data["roles"]},
            nodes={node["name"]: _read_node(node) for node in data["nodes"]},
        )
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read: {(error.strerror or str(error)).lower()}",
            hint="name a cluster file, a plan.json or an output folder",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{file} is not a plan of this version of imagegen: {error}",
            hint="write it again with `imagegen render` or `imagegen plan --format json`",
        ) from None


def _read_node(node: Mapping[str, Any]) -> NodeEntry:
    facts = {"address": node["address"], "mac": node["mac"]}
    return NodeEntry(roles=node["roles"], facts=facts, items=_index_items(node["items"]))


def plan_document(plan: Plan) -> PlanDocument:
    """A Plan in the same form; holds the items of every node, so it is for the diff only."""
    nodes = {}
    for node_plan in plan.node_plans():
        node = node_plan.node
        facts = {"address": str(node.address) if node.address else None, "mac": node.mac}
        nodes[node.name] = NodeEntry(
            roles=node_plan.role_plan.name, facts=facts, items=_index_items(map(dump_item, node_plan.items))
        )
    return PlanDocument(
        cluster=describe_cluster(plan.cluster),
        roles={role.name: _index_items(map(dump_item, role.items)) for role in plan.role_plans},
        nodes=nodes,
    )


def _index_items(items: Iterable[ItemData]) -> dict[str, ItemData]:
    return {name_data(item): item for item in items}


def name_data(item: ItemData) -> str:
    """Kind and key of dumped data; paths share one kind, because a file may become a directory."""
    kind = str(item["kind"])
    if kind == "port":
        first, last = item["first"], item["last"]
        return f"port {first if first == last else f'{first}-{last}'}/{item['protocol']}"
    key = next((item[key] for key in _KEYS if key in item), None)
    if key is None:
        raise ValueError(f"an item of kind {kind} has no name")
    return f"{'path' if kind in _PATH_KINDS else 'user' if kind == 'login' else kind} {key}"


def diff_plans(old: PlanDocument, new: PlanDocument) -> PlanDiff:
    """What changes from ``old`` to ``new``: roles, then nodes; nodes that change equally are one entry."""
    facts = tuple(_diff_facts(old.cluster, new.cluster))
    subjects = [*_diff_roles(old, new), *_diff_nodes(old, new)]
    return PlanDiff(cluster=facts, subjects=tuple(subjects))


def _diff_facts(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield f"{key}: {_show(old.get(key))} → {_show(new.get(key))}"


def _diff_roles(old: PlanDocument, new: PlanDocument) -> Iterator[SubjectChange]:
    for name in sorted({*old.roles, *new.roles}):
        side = new if name in new.roles else old
        nodes = tuple(node for node, entry in side.nodes.items() if entry.roles == name)
        if name not in old.roles or name not in new.roles:
            change: Change = "added" if name in new.roles else "removed"
            count = f"{len(side.roles[name])} items"
            yield SubjectChange(kind="role", change=change, name=name, nodes=nodes, details=(count,))
        elif items := tuple(_diff_items(old.roles[name], new.roles[name])):
            yield SubjectChange(kind="role", change="changed", name=name, nodes=nodes, items=items)


def _diff_nodes(old: PlanDocument, new: PlanDocument) -> Iterator[SubjectChange]:
    groups: dict[tuple[Change, tuple[str, ...], tuple[ItemChange, ...]], list[str]] = {}
    for name in dict.fromkeys([*old.nodes, *new.nodes]):
        before, after = old.nodes.get(name), new.nodes.get(name)
        if before is None or after is None:
            present = after or before
            assert present is not None
            details = (f"roles {present.roles}", *_diff_facts({}, present.facts)) if after else ()
            groups.setdefault(("added" if after else "removed", details, ()), []).append(name)
            continue
        if before.items == after.items and before.facts == after.facts and before.roles == after.roles:
            continue
        details = tuple(
            _diff_facts({**before.facts, "roles": before.roles}, {**after.facts, "roles": after.roles})
        )
        key: tuple[Change, tuple[str, ...], tuple[ItemChange, ...]] = (
            "changed",
            details,
            tuple(_diff_items(before.items, after.items)),
        )
        groups.setdefault(key, []).append(name)
    for (change, details, items), names in groups.items():
        yield SubjectChange(
            kind="node", change=change, name=names[0], nodes=tuple(names), details=details, items=items
        )


def _diff_items(old: Mapping[str, ItemData], new: Mapping[str, ItemData]) -> Iterator[ItemChange]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        present = after or before
        assert present is not None
        shown = f"{present['kind']} {name.partition(' ')[2]}"
        if before is None or after is None:
            yield ItemChange(change="added" if after else "removed", item=shown, phase=str(present["phase"]))
            continue
        details = tuple(_diff_facts(_without_body(before), _without_body(after)))
        body = tuple(_diff_bodies(before.get("content"), after.get("content")))
        yield ItemChange(change="changed", item=shown, phase=str(after["phase"]), details=details, body=body)


def _without_body(item: ItemData) -> dict[str, object]:
    return {key: value for key, value in item.items() if key != "content"}


def _diff_bodies(old: object, new: object) -> Iterator[str]:
    if old == new:
        return
    lines = unified_diff(
        body_text(old).split("\n"), body_text(new).split("\n"), "before", "after", n=2, lineterm=""
    )
    for count, line in enumerate(lines):
        if count >= 2:
            yield line


def body_text(content: object) -> str:
    """A dumped body as text: secrets by name, bytes by their number."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    assert isinstance(content, list)
    parts: list[str] = []
    for part in content:
        if isinstance(part, str):
            parts.append(part)
        elif "ref" in part:
            parts.append(f"<{part['ref']}>")
        else:
            parts.append(f"<{part['base64']}>")
    return "".join(parts)


def _show(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
