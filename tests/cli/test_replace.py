"""``replace``: a new seed with a new identity for one node, and the steps that follow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Imagegen


@pytest.fixture
def rendered(imagegen: Imagegen, quickstart: Path) -> Path:
    assert imagegen("seed", quickstart, "-o", quickstart.parent / "out").code == 0
    return quickstart


def _read(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_worker_gets_a_new_token_and_nobody_else_a_new_seed(imagegen: Imagegen, rendered: Path) -> None:
    out = rendered.parent / "out"
    before = _read(out / "nodes")
    former = (rendered.parent / "secrets/nodes/worker-0/bootstrap-token").read_text()
    done = imagegen("replace", rendered, "worker-0", "-o", out)
    assert done.code == 0, done.err
    after = _read(out / "nodes")
    different = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name.partition("/")[0] for name in different} == {"worker-0"}
    assert {"worker-0/seed.iso", "worker-0/user-data", "worker-0/bootstrap-token.yaml"} <= different
    token = (rendered.parent / "secrets/nodes/worker-0/bootstrap-token").read_text()
    assert token != former
    secret = yaml.safe_load(after["worker-0/bootstrap-token.yaml"])
    assert f"{secret['stringData']['token-id']}.{secret['stringData']['token-secret']}" == token
    assert (out / "nodes/worker-0/bootstrap-token.yaml").stat().st_mode & 0o777 == 0o600
    assert token.encode() in after["worker-0/user-data"]
    # what is printed names no secret
    assert token.partition(".")[2] not in done.out + done.err
    assert former.partition(".")[2] not in done.out + done.err
    assert done.out.startswith("1. move its pods")
    assert f"delete secret bootstrap-token-{former.partition('.')[0]}" in done.out


def test_the_token_for_the_cluster_goes_with_the_next_seed(imagegen: Imagegen, rendered: Path) -> None:
    out = rendered.parent / "out"
    assert imagegen("replace", rendered, "worker-0", "-o", out).code == 0
    assert imagegen("seed", rendered, "-o", out).code == 0
    assert not (out / "nodes/worker-0/bootstrap-token.yaml").exists()


def test_a_master_gets_new_keys(imagegen: Imagegen, rendered: Path) -> None:
    store = rendered.parent / "secrets" / "nodes"
    before = _read(store)
    done = imagegen("replace", rendered, "master-0", "-o", rendered.parent / "out", "--format", "json")
    assert done.code == 0, done.err
    after = _read(store)
    assert all(
        (before[name] != after[name]) == name.startswith("master-0/") for name in before.keys() | after.keys()
    )
    answer = json.loads(done.out)
    assert (answer["node"], answer["steps"][-1]["command"]) == ("master-0", "")


def test_the_only_member_of_etcd_is_refused_before_anything_changes(
    imagegen: Imagegen, rendered: Path
) -> None:
    before = _read(rendered.parent)
    done = imagegen("replace", rendered, "etcd-0", "-o", rendered.parent / "out")
    assert done.code == 2
    assert "the only member of etcd" in done.err
    assert _read(rendered.parent) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["worker-9", "-o", "out"], "no such node: worker-9"),
        (["worker-0"], "-o OUT for a new seed, or --lab"),
        (["worker-0", "--lab", "-o", "out"], "-o OUT for a new seed, or --lab"),
        (["worker-0", "-o", "out"], "there is no secret store"),
    ],
)
def test_what_makes_no_sense_is_refused(
    imagegen: Imagegen, quickstart: Path, words: list[str], told: str
) -> None:
    done = imagegen("replace", quickstart, *words)
    assert done.code == 2
    assert told in done.err


def test_a_lab_that_does_not_run_is_told(imagegen: Imagegen, rendered: Path) -> None:
    done = imagegen("replace", rendered, "worker-0", "--lab")
    assert done.code == 1
    assert "imagegen up" in done.err
