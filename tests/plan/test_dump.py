"""Canonical JSON and digests: what they cover, what they leave out, and that no secret is in them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from imagegen.plan.dump import digest_node_plan, digest_role_plan, dump_content, dump_item, render_plan_json
from imagegen.plan.items import File, Origin, Phase, Ref, Unit, UnitState
from tests.plan.plans import QUICKSTART, make_plan, write_cluster

ORIGIN = Origin("component test", reason="r")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ((), ""),
        (("a", "b"), "ab"),
        ((Ref("pki/ca.key"),), [{"ref": "pki/ca.key"}]),
        (("a", Ref("pki/ca.crt", public=True, encoding="base64")),
         ["a", {"ref": "pki/ca.crt", "encoding": "base64", "public": True}]),
        ((b"\xff",), [{"base64": "/w=="}]),
    ],
)  # fmt: skip
def test_bodies(content: tuple[str | bytes | Ref, ...], expected: object) -> None:
    assert dump_content(content) == expected


def test_an_item_is_its_fields_without_origin_and_defaults() -> None:
    item = File(phase=Phase.BAKE, origin=ORIGIN, path="/etc/a", content=("x",), mode="0600")
    assert dump_item(item) == {
        "kind": "file", "phase": "bake", "path": "/etc/a", "content": "x", "mode": "0600",
    }  # fmt: skip
    unit = Unit(phase=Phase.BAKE, origin=ORIGIN, name="a.service", content=None, state=UnitState.MASKED)
    assert dump_item(unit) == {
        "kind": "unit", "phase": "bake", "name": "a.service", "content": None, "state": "masked",
    }  # fmt: skip


def test_different_items_give_different_data() -> None:
    item = File(phase=Phase.BAKE, origin=ORIGIN, path="/etc/a", content=("x",))
    seen = [json.dumps(dump_item(item), sort_keys=True)]
    changes: list[dict[str, object]] = [
        {"phase": Phase.BOOT}, {"path": "/etc/b"}, {"content": ("y",)}, {"mode": "0600"}, {"owner": "a"},
        {"group": "a"}, {"content": (b"x",)}, {"content": (Ref("x"),)},
    ]  # fmt: skip
    seen += [
        json.dumps(dump_item(dataclasses.replace(item, **change)), sort_keys=True)  # type: ignore[arg-type]
        for change in changes
    ]
    assert len(set(seen)) == len(seen)
    same = dataclasses.replace(item, origin=Origin("elsewhere", 4))
    assert json.dumps(dump_item(same), sort_keys=True) == seen[0]


def test_plan_json_is_json_with_every_role_and_node(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    text = render_plan_json(plan)
    data = json.loads(text)
    canonical = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert text.replace("\n", "") == canonical
    assert data["format"] == "imagegen-plan/1"
    assert [role["name"] for role in data["roles"]] == ["etcd", "master", "worker"]
    assert [node["name"] for node in data["nodes"]] == ["etcd-0", "master-0", "worker-0", "worker-1"]
    assert data["nodes"][3]["mac"] == "52:54:00:00:00:22"
    for role, role_plan in zip(data["roles"], plan.role_plans, strict=True):
        assert role["digest"] == digest_role_plan(role_plan)
        assert len(role["items"]) == len(role_plan.items)
    for node, node_plan in zip(data["nodes"], plan.node_plans(), strict=True):
        assert node["digest"] == digest_node_plan(node_plan)


def test_digests_follow_what_is_on_the_machine_and_nothing_else(tmp_path: Path) -> None:
    one = make_plan(write_cluster(tmp_path))
    more = make_plan(
        write_cluster(tmp_path, [*QUICKSTART, "{name: w-9, roles: [worker], address: 10.240.0.99}"])
    )
    for name in ("etcd-0", "worker-0"):
        assert digest_node_plan(one.node_plan(name)) == digest_node_plan(more.node_plan(name))
    other = make_plan(write_cluster(tmp_path, network="proxy: iptables"))
    assert digest_node_plan(one.node_plan("worker-0")) != digest_node_plan(other.node_plan("worker-0"))
    assert digest_node_plan(one.node_plan("etcd-0")) == digest_node_plan(other.node_plan("etcd-0"))
    assert digest_node_plan(one.node_plan("worker-0")) != digest_node_plan(one.node_plan("worker-1"))
