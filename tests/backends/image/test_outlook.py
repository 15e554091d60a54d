"""What a dry run says: which layers are cached, why the others are made, sizes of files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from imagegen.backends.image.changes import explain_layers, keep_inputs
from imagegen.backends.image.imageplan import ImagePlan, plan_image
from imagegen.backends.image.layers import LayerCache
from imagegen.backends.image.outlook import look_ahead, outline, render_outlook
from imagegen.backends.image.sources import Digests
from imagegen.backends.output import OutputFolder
from imagegen.diagnostics import Report
from imagegen.model.cluster import Cluster, DiskFormat
from imagegen.model.load import load_cluster
from imagegen.plan.build import build_plan
from imagegen.plan.items import File
from imagegen.plan.plan import RolePlan
from imagegen.plan.profiles import load_profiles
from imagegen.resources import find_resource

PINNED = Digests(binaries={("runc", "1.0"): "0" * 64}, images={})


@pytest.fixture(scope="module")
def worker() -> tuple[Cluster, RolePlan]:
    report = Report()
    cluster = load_cluster(find_resource("examples", "quickstart", "cluster.yaml"), report)
    assert cluster is not None
    plan = build_plan(cluster, load_profiles((), report), report)
    assert plan is not None, report.render_text()
    return cluster, next(role_plan for role_plan in plan.role_plans if role_plan.name == "worker")


def _plan(
    worker: tuple[Cluster, RolePlan], *packages: str, epoch: int = 1_767_225_600, digests: Digests = PINNED
) -> ImagePlan:
    cluster, role_plan = worker
    return plan_image(
        cluster, role_plan, ["systemd", *packages], (DiskFormat.QCOW2,), digests=digests, epoch=epoch
    )


def test_what_was_never_built_here(worker: tuple[Cluster, RolePlan], tmp_path: Path) -> None:
    reasons = explain_layers(tmp_path, _plan(worker))
    assert reasons == dict.fromkeys(("base", "system", "role"), "not built here before")


def test_what_was_removed_since(worker: tuple[Cluster, RolePlan], tmp_path: Path) -> None:
    keep_inputs(tmp_path, [_plan(worker)])
    assert set(explain_layers(tmp_path, _plan(worker)).values()) == {"no longer in the cache"}


def test_a_package_of_the_base_changes_all_that_is_above(
    worker: tuple[Cluster, RolePlan], tmp_path: Path
) -> None:
    keep_inputs(tmp_path, [_plan(worker)])
    assert explain_layers(tmp_path, _plan(worker, "vim")) == {
        "base": "new: package vim",
        "system": "changed: the base system",
        "role": "changed: the packages below",
    }


def test_many_changes_are_counted(worker: tuple[Cluster, RolePlan], tmp_path: Path) -> None:
    keep_inputs(tmp_path, [_plan(worker, "a", "b", "c", "d", "e")])
    changed = explain_layers(tmp_path, _plan(worker))["base"]
    assert changed == "gone: package a, gone: package b, gone: package c, 2 more"


def test_a_changed_file_a_new_unit_and_another_program_are_named(
    worker: tuple[Cluster, RolePlan], tmp_path: Path
) -> None:
    cluster, role_plan = worker
    keep_inputs(tmp_path, [_plan(worker)])
    motd = next(item for item in role_plan.items if isinstance(item, File))
    items = tuple(
        dataclasses.replace(item, content=("changed",)) if item is motd else item for item in role_plan.items
    )
    other = _plan((cluster, dataclasses.replace(role_plan, items=items)))
    assert explain_layers(tmp_path, other)["role"] == f"changed: {motd.path}"
    part = next(key for key in _list_binaries(role_plan))
    repinned = _plan(worker, digests=Digests(binaries={part[1:]: "1" * 64}, images={}))
    assert f"changed: {part[0]}" in explain_layers(tmp_path, repinned)["role"]


def _list_binaries(role_plan: RolePlan) -> list[tuple[str, str, str]]:
    from imagegen.plan.items import Binary

    return [(item.path, item.part, item.version) for item in role_plan.items if isinstance(item, Binary)]


def test_a_note_that_is_damaged_or_cannot_be_written_stops_nothing(
    worker: tuple[Cluster, RolePlan], tmp_path: Path
) -> None:
    keep_inputs(tmp_path, [_plan(worker)])
    (note,) = tmp_path.iterdir()
    note.write_text("{")
    assert explain_layers(tmp_path, _plan(worker))["base"] == "not built here before"
    (tmp_path / "file").write_text("")
    keep_inputs(tmp_path / "file", [_plan(worker)])


def test_the_note_holds_digests_and_no_content(worker: tuple[Cluster, RolePlan], tmp_path: Path) -> None:
    keep_inputs(tmp_path, [_plan(worker)])
    (note,) = tmp_path.iterdir()
    bodies = [part for item in worker[1].items if isinstance(item, File) for part in item.content]
    long = [part for part in bodies if isinstance(part, str) and len(part) > 60]
    assert long
    assert not any(body[:60] in note.read_text() for body in long)


def test_files_with_the_sizes_that_are_known(worker: tuple[Cluster, RolePlan], tmp_path: Path) -> None:
    image, cache = _plan(worker), LayerCache(root=tmp_path / "cache")
    cache.get_or_build("base", image.base_key, lambda folder: None)
    path = "images/quickstart-worker.qcow2"
    text = render_outlook(look_ahead([image], cache, tmp_path / "out"))
    assert f"  base   {image.base_key}  cached\n" in text
    assert f"  role   {image.role_key}  to build (not built here before)\n" in text
    assert f"  qcow2  {path}  to write\n" in text
    with OutputFolder(tmp_path / "out", cluster="quickstart") as folder:
        folder.write(path, bytes(3 << 19), inputs="of an earlier build")
        folder.commit(lambda path: False)
    ahead = look_ahead([image], cache, tmp_path / "out")
    assert f"  qcow2  {path}  to write (last time 1.5 MiB)\n" in render_outlook(ahead)
    (row,) = outline(ahead)
    assert row["files"] == [{"path": path, "unchanged": False, "size": 3 << 19}]
