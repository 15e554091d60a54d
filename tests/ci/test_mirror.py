"""``make mirror``: its recipes cover the catalogue, and what it writes is what the product fetches."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from mirror.build import Workshop, list_parts
from mirror.debian import find_archive
from mirror.debian_kubernetes import BINARIES, find_upstream_version
from mirror.gomodules import GoBuilder, GoModule, Unavailable, read_go_error, render_scratch_module
from mirror.layout import Mirror, pack_part
from mirror.recipe import KUBERNETES_VERSIONS, find_recipe
from mirror.selection import EXAMPLE, is_from_debian, select

from imagegen.fetch import Lock
from imagegen.fetch.engine import fetch_downloads
from imagegen.kubernetes.releases import KUBERNETES_PARTS, Part, known_minors, known_parts
from imagegen.plan.parts import make_download
from imagegen.run import Runner

PARTS = list_parts(KUBERNETES_VERSIONS)


def find_part(name: str) -> Part:
    return next(part for part in PARTS if part.name == name)


def test_versions_are_the_two_newest_minors() -> None:
    assert [version.rpartition(".")[0] for version in KUBERNETES_VERSIONS] == [*reversed(known_minors()[-2:])]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.name}-{part.version}")
def test_recipe_makes_every_member(part: Part) -> None:
    recipe = find_recipe(part)
    assert recipe is not None
    made = [member for member, _ in recipe.programs] + [member for member, *_ in recipe.files]
    assert sorted(made) == sorted(part.members or ("",))
    assert all(
        program.package.startswith(program.module.path.removesuffix("/v3")) for _, program in recipe.programs
    )


def test_parts_cover_the_catalogue() -> None:
    assert {part.name for part in PARTS} == set(known_parts())
    assert len({part.url for part in PARTS}) == len(PARTS)


def test_debian_has_the_kubernetes_of_its_minor_and_what_runs_beside_it() -> None:
    parts = select("all", ["1.20.2"]).parts.values()
    assert {part.name for part in parts if is_from_debian(part)} == {*KUBERNETES_PARTS, *BINARIES}
    assert not any(
        is_from_debian(part)
        for part in select("all", ["1.36.4", "1.20.15"]).parts.values()
        if part.name in KUBERNETES_PARTS
    )


@pytest.mark.parametrize(
    "file", ["containerd_1.6.20~ds1-1+deb12u2_amd64.deb", "containerd_1%3a1.6.20+really-2_amd64.deb"]
)
def test_a_debian_version_has_an_upstream_version_in_it(tmp_path: Path, file: str) -> None:
    (tmp_path / file).touch()
    assert find_upstream_version(tmp_path, "containerd") == "1.6.20"
    with pytest.raises(Unavailable):
        find_upstream_version(tmp_path, "runc")


def test_the_demo_wants_what_its_nodes_need_and_no_more() -> None:
    demo, tests, everything = select("demo"), select("tests"), select("all")
    assert {part.name for part in demo.parts.values()} >= {
        "kubelet",
        "etcd",
        "containerd",
        "crictl",
        "kubectl",
    }
    assert "kubeadm" not in {part.name for part in demo.parts.values()}
    assert {name for name, _ in demo.images.values()} == {"pause", "coredns", "flannel"}
    assert set(demo.parts) < set(tests.parts)
    assert set(demo.images) < set(tests.images)
    assert {p.version for p in everything.parts.values() if p.name == "kubelet"} == {
        *KUBERNETES_VERSIONS,
        "1.20.2",
    }
    assert set(select("all", clusters=[EXAMPLE]).parts) == set(demo.parts)


def test_old_programs_get_modules_that_todays_compiler_takes() -> None:
    text = render_scratch_module(
        GoModule(path="example.com/a", version="v1.0.0"),
        {"Go": "1.12"},
        [GoModule(path="example.com/b", version="v1.0.2")],
    )
    assert "\texample.com/b => example.com/b v1.0.2\n" in text


def make_file(path: Path, body: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["kubelet", "etcd", "runc", "cni-plugins", "flannel"])
def test_product_fetches_what_the_mirror_holds(tmp_path: Path, name: str) -> None:
    part, mirror = find_part(name), Mirror(tmp_path / "mirror")
    members = [(member, make_file(tmp_path / "bin" / member, member.encode())) for member in part.members]
    source = pack_part(part, tmp_path, members or [("", make_file(tmp_path / "bin" / name, b"program"))])
    assert not mirror.has(part)
    mirror.add(part, source, "a test")
    assert mirror.has(part)
    result = fetch_downloads(
        [make_download(part)],
        lock=Lock(),
        mirror=str(mirror.root),
        cache_dir=tmp_path / "cache",
        offline=True,
    )
    assert result.of(make_download(part)).path.read_bytes() == source.read_bytes()
    origins = json.loads((mirror.root / "ORIGINS.json").read_text())
    assert origins[part.url]["made_from"] == "a test"


def test_damaged_part_is_made_again(tmp_path: Path) -> None:
    part, mirror = find_part("kubelet"), Mirror(tmp_path / "mirror")
    mirror.add(part, make_file(tmp_path / "kubelet", b"kubelet"), "a test")
    make_file(mirror.path(part.url), b"kubele")
    assert not mirror.has(part)


def test_list_of_checksums_keeps_the_other_files(tmp_path: Path) -> None:
    part, mirror = find_part("runc"), Mirror(tmp_path / "mirror")
    assert part.checksum_url is not None
    sums = make_file(mirror.path(part.checksum_url), f"{'0' * 64}  runc.arm64\n".encode())
    mirror.add(part, make_file(tmp_path / "runc", b"runc"), "a test")
    assert [line.split("  ")[1] for line in sums.read_text().splitlines()] == ["runc.amd64", "runc.arm64"]
    assert mirror.has(part)


def test_archive_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    part = find_part("etcd")
    bodies = []
    for run in ("a", "b"):
        members = [(m, make_file(tmp_path / run / m, m.encode())) for m in reversed(part.members)]
        members[0][1].chmod(0o700)
        stage = tmp_path / run
        bodies.append(pack_part(part, stage, members if run == "a" else members[::-1]).read_bytes())
    assert bodies[0] == bodies[1]
    with tarfile.open(tmp_path / "a" / part.file_name) as archive:
        assert archive.getnames() == list(part.members)
        assert {entry.mode for entry in archive} == {0o755}


class Broken:
    def make(self, part: Part) -> tuple[Path, str]:
        raise Unavailable("out of reach")


class Working:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls = 0

    def make(self, part: Part) -> tuple[Path, str]:
        self.calls += 1
        return self.path, "a test"


def test_what_cannot_be_had_does_not_stop_the_rest(tmp_path: Path) -> None:
    said: list[str] = []
    shop = Workshop(mirror=Mirror(tmp_path / "mirror"), say=said.append)
    working = Working(make_file(tmp_path / "x", b"x"))
    shop.add(find_part("kubelet"), Broken())
    shop.add(find_part("kubectl"), working)
    shop.add(find_part("kubectl"), working)
    assert working.calls == 1
    assert list(shop.outcome.missed.values()) == ["out of reach"]
    assert len(shop.outcome.made) == len(shop.outcome.found) == 1
    assert len(said) == 2


DESCRIBED = {
    "Go": "1.26.0",
    "Require": [
        {"Path": "k8s.io/api", "Version": "v0.0.0"},
        {"Path": "example.com/a", "Version": "v1.2.3"},
    ],
    "Replace": [
        {"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}},
        {"Old": {"Path": "example.com/b"}, "New": {"Path": "example.com/c", "Version": "v1.0.0"}},
        {"Old": {"Path": "go.etcd.io/etcd"}, "New": {"Path": "./FORBIDDEN_DEPENDENCY"}},
    ],
}


def test_debian_alone_has_what_the_example_needs() -> None:
    wanted = select("all", clusters=[EXAMPLE.parents[1] / "debian-only" / "cluster.yaml"])
    assert [part.name for part in wanted.parts.values() if not is_from_debian(part)] == []
    assert {name for name, _ in wanted.images.values()} == {"pause"}


@pytest.mark.process
@pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed")
def test_without_a_way_to_go_modules_only_the_first_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOPROXY", "off")
    builder = GoBuilder(runner=Runner(), work=tmp_path)
    with pytest.raises(Unavailable, match=r"^example\.com/a@v1\.0\.0: "):
        builder.download(GoModule(path="example.com/a", version="v1.0.0"))
    with pytest.raises(Unavailable, match=r"out of reach: .*GOPROXY=off"):
        builder.download(GoModule(path="example.com/b", version="v1.0.0"))


def test_scratch_module_resolves_staging_by_version() -> None:
    text = render_scratch_module(GoModule(path="k8s.io/kubernetes", version="v1.37.1"), DESCRIBED)
    assert "\tk8s.io/kubernetes v1.37.1\n" in text
    assert "\tk8s.io/api v0.37.1\n" in text
    assert "\tk8s.io/api => k8s.io/api v0.37.1\n" in text
    assert "\texample.com/a v1.2.3\n" in text
    assert "\texample.com/b => example.com/c v1.0.0\n" in text
    assert "FORBIDDEN" not in text


@pytest.mark.parametrize(
    ("stdout", "stderr", "reason"),
    [
        ('{"Path": "a", "Error": "a@v1: not found"}', "", "a@v1: not found"),
        ("", "go: no network\n", "go: no network"),
        ("{}", "", "go mod download failed"),
    ],
)
def test_reason_of_a_missing_module(stdout: str, stderr: str, reason: str) -> None:
    assert read_go_error(stdout, stderr) == reason


@pytest.mark.judge
@pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed")
def test_go_reads_the_scratch_module(tmp_path: Path) -> None:
    module = GoModule(path="k8s.io/kubernetes", version="v1.37.1")
    (tmp_path / "go.mod").write_text(render_scratch_module(module, DESCRIBED))
    done = subprocess.run(
        ["go", "mod", "edit", "-json", "go.mod"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    read = json.loads(done.stdout)
    assert {r["Path"]: r["Version"] for r in read["Require"]}["k8s.io/api"] == "v0.37.1"
    assert len(read["Replace"]) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", "deb [signed-by=/k] http://mirror.invalid/debian bookworm main\n"),
        ("sources.list", "# deb http://no.invalid/debian x\ndeb https://mirror.invalid/debian trixie main\n"),
        ("sources.list.d/debian.sources", "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: trixie\n"),
    ],
)
def test_finds_the_archive_of_this_machine(tmp_path: Path, name: str, text: str) -> None:
    make_file(tmp_path / "sources.list.d" / "a.list", b"deb http://other.invalid/apt x main\n")
    make_file(tmp_path / name, text.encode())
    assert find_archive(tmp_path).endswith("//mirror.invalid/debian")


def test_machine_without_debian(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no Debian archive"):
        find_archive(tmp_path)
