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
    assert list(rundemo.list_attempts(cluster)) == [
        rundemo.Attempt(version=wanted, source=["--mirror", "/media/mirror"])
    ]
    assert built == []


def test_a_mirror_that_is_there_comes_first_and_builds_nothing(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    wanted = rundemo.read_version(cluster)
    (tmp_path / "mirror" / "dl.k8s.io" / "release" / f"v{wanted}").mkdir(parents=True)
    monkeypatch.setattr(rundemo, "probe_sites", lambda: pytest.fail("nobody needs to be asked"))
    source = ["--mirror", str(tmp_path / "mirror"), "--offline"]
    assert next(rundemo.list_attempts(cluster)) == rundemo.Attempt(version=wanted, source=source)
    assert built == []


def test_release_sites_in_reach_come_before_building(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    _reach(monkeypatch, True)
    wanted = rundemo.read_version(cluster)
    assert next(rundemo.list_attempts(cluster)) == rundemo.Attempt(version=wanted, source=[])
    assert built == []


def test_without_sites_current_versions_are_built_and_debians_last(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    _reach(monkeypatch, False)
    attempts = list(rundemo.list_attempts(cluster))
    versions = [attempt.version for attempt in attempts[:-1]]
    assert versions == built
    assert versions[-1] == DEBIAN_VERSION
    assert (attempts[-1].version, attempts[-1].example) == (DEBIAN_VERSION, "debian-only")
    assert KUBERNETES_VERSIONS[0] in versions


def test_the_first_source_with_everything_is_taken(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    _reach(monkeypatch, False)
    asked = []

    def try_fetch(*_: object) -> str | None:
        asked.append(rundemo.read_version(cluster))
        return None if asked[-1] == DEBIAN_VERSION else "much is missing"

    monkeypatch.setattr(rundemo, "try_fetch", try_fetch)
    assert rundemo.find_source(cluster) == ["--mirror", str(rundemo._MIRROR), "--offline"]
    assert rundemo.read_version(cluster) == DEBIAN_VERSION
    assert asked == built


def _answer(monkeypatch: pytest.MonkeyPatch, cluster: Path) -> None:
    """The mirror has what Debian has, and no more."""

    def try_fetch(*_: object) -> str | None:
        text = cluster.read_text()
        wanted = ("cluster_dns: none", "tools: []", "cni: bridge")
        return None if all(word in text for word in wanted) else "coredns is missing"

    monkeypatch.setattr(rundemo, "try_fetch", try_fetch)


def test_with_debian_alone_the_demo_does_with_what_debian_has(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    _reach(monkeypatch, False)
    _answer(monkeypatch, cluster)
    assert rundemo.find_source(cluster) == ["--mirror", str(rundemo._MIRROR), "--offline"]
    assert cluster.read_bytes() == find_resource("examples", "debian-only", "cluster.yaml").read_bytes()


def test_a_cluster_file_that_somebody_changed_is_not_replaced(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _reach(monkeypatch, False)
    _answer(monkeypatch, cluster)
    version = rundemo.read_version(cluster)
    changed = cluster.read_text().replace("name: quickstart", "name: mine")
    cluster.write_text(changed)
    assert rundemo.find_source(cluster) is None
    assert cluster.read_text() == changed.replace(version, DEBIAN_VERSION)
    said = capsys.readouterr().err
    assert "is yours and stays" in said
    assert said.endswith("coredns is missing\n")
