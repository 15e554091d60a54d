"""Where the demo takes its parts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import rundemo
from mirror.debian_kubernetes import VERSION as DEBIAN_VERSION
from mirror.recipe import KUBERNETES_VERSIONS

from imagegen.resources import find_resource


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(find_resource("examples", "quickstart", "cluster.yaml").read_bytes())
    monkeypatch.setattr(rundemo, "_MIRROR", tmp_path / "mirror")
    monkeypatch.delenv("IMAGEGEN_MIRROR", raising=False)
    return path


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions for which a mirror was to be built."""
    out: list[str] = []
    monkeypatch.setattr(rundemo, "build_mirror", out.append)
    return out


def _reach(monkeypatch: pytest.MonkeyPatch, reachable: bool) -> None:
    monkeypatch.setattr(rundemo, "probe_sites", lambda: [reachable] * 4)


def test_the_version_of_the_example_is_found_and_only_it_is_changed(cluster: Path) -> None:
    before = cluster.read_text()
    wanted = rundemo.read_version(cluster)
    rundemo.set_version(cluster, "1.20.2")
    assert rundemo.read_version(cluster) == "1.20.2"
    assert cluster.read_text() == before.replace(f"version: {wanted}", "version: 1.20.2")


def test_a_mirror_of_ones_own_is_the_only_source(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    monkeypatch.setenv("IMAGEGEN_MIRROR", "/media/mirror")
    wanted = rundemo.read_version(cluster)
    assert list(rundemo.list_sources(cluster)) == [(wanted, ["--mirror", "/media/mirror"])]
    assert built == []


def test_a_mirror_that_is_there_comes_first_and_builds_nothing(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    wanted = rundemo.read_version(cluster)
    (tmp_path / "mirror" / "dl.k8s.io" / "release" / f"v{wanted}").mkdir(parents=True)
    monkeypatch.setattr(rundemo, "probe_sites", lambda: pytest.fail("nobody needs to be asked"))
    assert next(rundemo.list_sources(cluster)) == (
        wanted,
        ["--mirror", str(tmp_path / "mirror"), "--offline"],
    )
    assert built == []


def test_release_sites_in_reach_come_before_building(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    _reach(monkeypatch, True)
    assert next(rundemo.list_sources(cluster)) == (rundemo.read_version(cluster), [])
    assert built == []


def test_without_sites_current_versions_are_built_and_debians_last(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    _reach(monkeypatch, False)
    versions = [version for version, _ in rundemo.list_sources(cluster)]
    assert versions == built
    assert versions[-1] == DEBIAN_VERSION
    assert KUBERNETES_VERSIONS[0] in versions


def test_the_first_source_with_everything_is_taken(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    _reach(monkeypatch, False)
    asked = []

    def imagegen(*words: str, **_: object) -> int:
        asked.append(rundemo.read_version(cluster))
        return 0 if asked[-1] == DEBIAN_VERSION else 1

    monkeypatch.setattr(rundemo, "imagegen", imagegen)
    assert rundemo.find_source(cluster) == ["--mirror", str(rundemo._MIRROR), "--offline"]
    assert rundemo.read_version(cluster) == DEBIAN_VERSION
    assert asked == built
