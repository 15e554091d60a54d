"""What changes on which node, from plans and from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagegen.errors import UsageError
from imagegen.plan.diff import PlanDiff, body_text, diff_plans, plan_document, read_plan_document
from imagegen.plan.dump import render_plan_json
from tests.plan.plans import QUICKSTART, make_plan, write_cluster


def diff(tmp_path: Path, *, nodes: tuple[str, ...] = QUICKSTART, **new: str) -> PlanDiff:
    old = plan_document(make_plan(write_cluster(tmp_path)))
    return diff_plans(old, plan_document(make_plan(write_cluster(tmp_path, nodes, **new))))


def test_nothing_changes(tmp_path: Path) -> None:
    result = diff(tmp_path)
    assert result.is_empty
    assert result.render_text() == "nothing changes\n"
    assert result.as_dict() == {"cluster": [], "changes": []}


def test_a_file_and_a_plan_are_the_same_document(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    (tmp_path / "plan.json").write_text(render_plan_json(plan))
    assert diff_plans(read_plan_document(tmp_path), plan_document(plan)).is_empty
    assert diff_plans(plan_document(plan), read_plan_document(tmp_path / "plan.json")).is_empty


def test_a_new_version_changes_binaries_on_the_roles_that_have_them(tmp_path: Path) -> None:
    result = diff(tmp_path, version="1.36.3")
    assert result.cluster == ("kubernetes: 1.36.4 → 1.36.3",)
    changed = {(subject.name, item.item): item for subject in result.subjects for item in subject.items}
    kubelet = next(
        item for (role, name), item in changed.items() if role == "worker" and name.endswith("/kubelet")
    )
    assert kubelet.change == "changed"
    assert "version: 1.36.4 → 1.36.3" in kubelet.details
    workers = next(s for s in result.subjects if s.kind == "role" and s.name == "worker")
    assert workers.nodes == ("worker-0", "worker-1")


def test_a_changed_setting_shows_as_a_unified_diff_once_for_the_role(tmp_path: Path) -> None:
    result = diff(tmp_path, network="ntp_servers: [10.240.0.1]")
    chrony = [
        (subject.name, item)
        for subject in result.subjects
        for item in subject.items
        if item.item == "file /etc/chrony/chrony.conf"
    ]
    assert [name for name, _ in chrony] == ["etcd", "master", "worker"]
    assert "+server 10.240.0.1 iburst" in chrony[0][1].body
    assert any(line.startswith("-pool ") for line in chrony[0][1].body)
    text = result.render_text()
    assert "~ role worker (worker-0, worker-1)\n" in text
    assert "  ~ bake file /etc/chrony/chrony.conf\n" in text


def test_nodes_come_go_and_move(tmp_path: Path) -> None:
    nodes = (*QUICKSTART[:2], "{name: worker-0, roles: [worker], address: 10.240.0.22}",
             "{name: worker-2, roles: [worker], address: 10.240.0.23}")  # fmt: skip
    result = diff(tmp_path, nodes=nodes)
    by_name = {subject.nodes: subject for subject in result.subjects if subject.kind == "node"}
    assert by_name["worker-1",].change == "removed"
    assert by_name["worker-2",].change == "added"
    assert by_name["worker-2",].details == ("roles worker", "address: none → 10.240.0.23")
    moved = by_name["worker-0",]
    assert moved.details == ("address: 10.240.0.21 → 10.240.0.22",)
    assert any("-NODE_ADDRESS=10.240.0.21" in item.body for item in moved.items)


def test_nodes_that_change_equally_are_one_entry(tmp_path: Path) -> None:
    nodes = (*QUICKSTART[:1], "{name: master-0, roles: [master], address: 10.240.0.12}", *QUICKSTART[2:])
    old = plan_document(make_plan(write_cluster(tmp_path)))
    new = plan_document(make_plan(write_cluster(tmp_path, nodes, network="domain: example.local")))
    result = diff_plans(old, new)
    entries = [subject.nodes for subject in result.subjects if subject.kind == "node"]
    assert len(entries) == len(set(entries))
    assert len({name for names in entries for name in names}) == sum(map(len, entries))


def test_roles_come_and_go(tmp_path: Path) -> None:
    nodes = ("{name: all, roles: [etcd, master, worker], address: 10.240.0.10}",)
    result = diff(tmp_path, nodes=nodes)
    roles = {subject.name: subject.change for subject in result.subjects if subject.kind == "role"}
    assert roles == {
        "etcd": "removed",
        "master": "removed",
        "worker": "removed",
        "etcd+master+worker": "added",
    }


def test_secrets_are_named_only() -> None:
    assert body_text(["key: ", {"ref": "pki/ca.key"}, {"base64": "/w=="}]) == "key: <pki/ca.key></w==>"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "[" * 100_000, '{"format": "imagegen-plan/0"}', '{"format": "imagegen-plan/1"}', "\0"],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UsageError, match="is not a plan"):
        read_plan_document(tmp_path)


def test_a_plan_with_broken_items_is_refused(tmp_path: Path) -> None:
    data = json.loads(render_plan_json(make_plan(write_cluster(tmp_path))))
    data["roles"][0]["items"][0] = {"kind": "file"}
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="is not a plan"):
        read_plan_document(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_plan_document(tmp_path)
