"""``imagegen fetch``: from a mirror folder, pinned; everything that is missing at once."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from imagegen.diagnostics import Report
from imagegen.fetch import read_lock
from imagegen.fetch.cache import hash_file
from imagegen.fetch.images import parse_reference
from imagegen.fetch.sources import mirror_path
from imagegen.kubernetes.releases import Part
from imagegen.model.load import read_cluster
from imagegen.plan.build import build_plan
from imagegen.plan.items import Binary
from imagegen.plan.parts import list_images, list_parts
from imagegen.plan.plan import Plan
from imagegen.plan.profiles import load_profiles
from tests.cli.conftest import Imagegen


@pytest.fixture
def plan(quickstart: Path) -> Plan:
    report = Report()
    plan = build_plan(read_cluster(quickstart), load_profiles((), report), report)
    assert plan is not None
    return plan


@pytest.fixture
def parts(plan: Plan) -> tuple[Part, ...]:
    return list_parts(plan)


def put_image(root: Path, text: str) -> None:
    reference = parse_reference(text)
    config = json.dumps({"architecture": "amd64", "os": "linux", "about": text}).encode()
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    manifest = json.dumps(
        {"schemaVersion": 2, "config": {"digest": digest, "size": len(config)}, "layers": []}
    )
    name = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
    for path, body in (
        (f"{reference.base}/blobs/{digest}", config),
        (f"{reference.base}/manifests/{name}", manifest.encode()),
        (reference.download.url, manifest.encode()),
    ):
        place = root / mirror_path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)


@pytest.fixture
def mirror(tmp_path: Path, plan: Plan, parts: tuple[Part, ...]) -> Path:
    """A mirror whose parts hold their own name, and whose images hold nothing."""
    root = tmp_path / "mirror"
    for text in list_images(plan):
        put_image(root, text)
    for part in parts:
        path = root / mirror_path(part.url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(part.name.encode()))
        if part.checksum_url:
            with (root / mirror_path(part.checksum_url)).open("a") as stream:
                stream.write(f"{hash_file(path)}  {part.file_name}\n")
    return root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGEGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IMAGEGEN_MIRROR", raising=False)
    return tmp_path / "cache"


def test_every_binary_of_the_plan_has_its_part(plan: Plan, parts: tuple[Part, ...]) -> None:
    known = {part.name: part for part in parts}
    binaries = [item for role in plan.role_plans for item in role.items if isinstance(item, Binary)]
    assert binaries
    for item in binaries:
        assert known[item.part].version == item.version
        assert (known[item.part].kind == "raw") == (item.member == "")
        assert item.member in {"", *known[item.part].members}
    assert {item.part for item in binaries} == set(known)


def test_fetches_from_a_mirror_and_pins(
    imagegen: Imagegen, quickstart: Path, mirror: Path, plan: Plan, parts: tuple[Part, ...], cache: Path
) -> None:
    done = imagegen("fetch", quickstart, "--mirror", mirror, "--offline")
    assert done.code == 0
    manifests = {parse_reference(text).download.url for text in list_images(plan)}
    assert len(done.out.splitlines()) == len(parts) + len(manifests)
    assert f"{len(parts) + len(manifests)} from the mirror" in done.err
    lock = read_lock(quickstart.parent / "imagegen.lock")
    assert set(lock.entries) == {part.url for part in parts} | manifests
    assert all(hash_file(cache / "sha256" / entry.sha256) == entry.sha256 for entry in lock.entries.values())


def test_warm_cache_needs_no_mirror(
    imagegen: Imagegen, quickstart: Path, mirror: Path, plan: Plan, cache: Path
) -> None:
    imagegen("fetch", quickstart, "--mirror", mirror, "--offline")
    done = imagegen("fetch", quickstart, "--offline", "--format", "json")
    assert done.code == 0
    found = json.loads(done.out)
    assert {entry["origin"] for entry in found["parts"] + found["images"]} == {"cache"}
    assert {entry["reference"] for entry in found["images"]} == set(list_images(plan))


def test_mirror_by_environment(
    imagegen: Imagegen, quickstart: Path, mirror: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEGEN_MIRROR", str(mirror))
    assert imagegen("fetch", quickstart, "--offline").code == 0


def test_lists_every_missing_part(
    imagegen: Imagegen, quickstart: Path, plan: Plan, parts: tuple[Part, ...], cache: Path
) -> None:
    done = imagegen("fetch", quickstart, "--offline")
    assert done.code == 1
    assert done.out == ""
    urls = [part.url for part in parts] + [parse_reference(text).download.url for text in list_images(plan)]
    assert f"{len(urls)} of {len(urls)} parts could not be fetched" in done.err
    assert all(url in done.err for url in urls)
    assert "= help:" in done.err
    assert not (quickstart.parent / "imagegen.lock").exists()


def test_changed_part_stops_with_both_sums(
    imagegen: Imagegen, quickstart: Path, mirror: Path, parts: tuple[Part, ...], cache: Path, tmp_path: Path
) -> None:
    imagegen("fetch", quickstart, "--mirror", mirror, "--offline")
    part = next(part for part in parts if part.name == "kubelet")
    path = mirror / mirror_path(part.url)
    old = hash_file(path)
    path.write_bytes(b"changed")
    assert part.checksum_url is not None
    (mirror / mirror_path(part.checksum_url)).write_text(hash_file(path))
    done = imagegen("fetch", quickstart, "--mirror", mirror, "--offline", "--cache", tmp_path / "other")
    assert done.code == 1
    assert old in done.err
    assert hash_file(path) in done.err
    assert "1 of" in done.err


def test_wrong_words(imagegen: Imagegen, quickstart: Path, cache: Path, tmp_path: Path) -> None:
    assert imagegen("fetch", quickstart, "--mirror", tmp_path / "nowhere").code == 2
    assert imagegen("fetch", tmp_path / "none.yaml").code == 2
    (quickstart.parent / "imagegen.lock").write_text("{")
    done = imagegen("fetch", quickstart, "--offline")
    assert done.code == 2
    assert "IMG606" in done.err
