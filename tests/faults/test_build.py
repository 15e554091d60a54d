"""What can go wrong while images are built: kills, full disks, two runs at once, missing tools."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.builds import (
    CLUSTER,
    IMAGE,
    Site,
    find_processes,
    finish,
    mount_small_disk,
    outline,
    require_builds,
    warm_up,
)

pytestmark = [pytest.mark.process, pytest.mark.long]

KILLS = 20


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site whose cache holds the base layer, and an image that was built undisturbed; not to be changed."""
    require_builds()
    site = Site(folder=tmp_path_factory.mktemp("warm"))
    warm_up(site)
    start = time.monotonic()
    status, _, err = site.run()
    assert status == 0, err
    site.env["TEST_SECONDS"] = str(time.monotonic() - start)
    return site


@pytest.fixture
def site(warm: Site, tmp_path: Path) -> Site:
    """A site of a test's own: the base layer is there, nothing else."""
    other = Site(folder=tmp_path)
    other.layers.mkdir(parents=True)
    _share_layers(warm, other, "base")
    return other


def _share_layers(source: Site, target: Site, kind: str) -> None:
    for layer in source.layers.glob(f"{kind}-*[0-9a-f]"):
        shutil.copytree(layer, target.layers / layer.name, copy_function=os.link)


def _check_nothing_unfinished(site: Site) -> None:
    """What has a final name is whole: images as the manifest says, layers with everything that is in one."""
    images = site.out / "images"
    present = sorted(images.iterdir()) if images.is_dir() else []
    if present:
        manifest = json.loads((site.out / "manifest.json").read_text())
        sums = {row["path"]: row["sha256"] for row in manifest["artifacts"]}
        for path in present:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[str(path.relative_to(site.out))]
    evidence = {"dpkg-status", "package-sums"}
    wanted = {
        "base": {"base.tar", "lists.tar"},
        "system": {"base.tar", *evidence},
        "role": {"disk.raw", "vmlinuz", "initrd.img", *evidence},
    }
    for layer in site.layers.iterdir():
        if layer.is_dir() and layer.suffix != ".partial":
            names = {path.name for path in layer.iterdir()}
            assert wanted.get(layer.name.partition("-")[0], set()) <= names, layer


def test_killed_at_twenty_points(warm: Site, site: Site) -> None:
    """Nothing unfinished ever has a final name; the last run gives the undisturbed run's bytes.

    Every other run starts with the root file system made, so that the short steps after it are hit, too.
    """
    longest, points, killed = float(warm.env["TEST_SECONDS"]), random.Random(20), 0
    for number in range(KILLS):
        late = number % 2 == 1
        for path in [*site.layers.glob("role-*"), *site.folder.glob("out")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if late:
            _share_layers(warm, site, "role")
        process = site.start()
        try:
            process.wait(points.uniform(0.2, longest * (0.25 if late else 0.8)))
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        process.communicate()
        _check_nothing_unfinished(site)
    assert killed > KILLS // 2, "most runs ended before they were killed: this test shows little"
    status, _, err = site.run()
    assert status == 0, err
    assert site.read_image() == warm.read_image()
    assert site.list_leftovers() == []


def test_the_next_run_ends_what_a_killed_one_left_running(site: Site) -> None:
    process = site.start()
    _wait_for_staging(site, process)
    process.kill()
    process.communicate()
    assert any(site.temporary.iterdir()), "nothing to clean up: this test shows nothing"
    status, _, err = site.run()
    assert status == 0, err
    assert site.list_leftovers() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(site: Site, number: signal.Signals, code: int) -> None:
    process = site.start("--format", "raw", "--format", "ova")
    _wait_for_staging(site, process)
    process.send_signal(number)
    sent = time.monotonic()
    status, _, err = finish(process)
    assert (status, "Traceback" in err) == (code, False), err
    assert time.monotonic() - sent < 5
    assert "not given their final names" in err
    assert not site.out.exists()
    assert [path for path in site.list_leftovers() if path.startswith("process")] == []


def test_interrupted_while_a_format_is_written(warm: Site, tmp_path: Path) -> None:
    """The layers that were made are kept, and the message says so."""
    site = Site(folder=tmp_path)
    shutil.copytree(warm.layers, site.layers, copy_function=os.link)
    shutil.rmtree(next(site.layers.glob("role-*[0-9a-f]")))
    process = site.start("--format", "ova")
    deadline = time.monotonic() + 120
    while not list(site.out.glob(".imagegen-partial/*/*.vmdk")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    status, _, err = finish(process)
    assert status == 130, err
    assert time.monotonic() - sent < 5
    assert "kept for the next run" in err
    assert "disk base" in err
    assert site.list_leftovers() == []
    assert list(site.layers.glob("role-*[0-9a-f]"))


def _wait_for_staging(site: Site, process: subprocess.Popen[str]) -> None:
    """Until mmdebstrap is in the middle of a root file system, which only its own processes may see."""
    deadline = time.monotonic() + 120
    inside = "imagegen-build-*/tmp/mmdebstrap*/usr/bin"
    while not any(
        list(Path(f"/proc/{pid}/root{site.temporary}").glob(inside)) for pid in find_processes(site.folder)
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_builds_of_one_cluster(warm: Site, site: Site) -> None:
    both = [site.start() for _ in range(2)]
    ended = [finish(process) for process in both]
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert site.read_image() == warm.read_image()
    assert sum("unchanged" in out for _, out, _ in ended) == 1, "the second one builds nothing again"
    assert site.list_leftovers() == []


def test_two_clusters_share_the_cache(warm: Site, site: Site) -> None:
    """Side by side, each with its own result; a prune of one takes nothing that the other uses."""
    other = Site(folder=site.folder / "other", env={"XDG_CACHE_HOME": str(site.folder / "cache")})
    other.folder.mkdir()
    both = [
        site.start("--cache-limit", "0MiB"),
        other.start("--cache-limit", "0MiB", cluster=CLUSTER.replace("name: small", "name: large")),
    ]
    ended = [finish(process) for process in both]
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert site.read_image() == warm.read_image()
    assert (other.out / "images/large-base.qcow2").stat().st_size == len(site.read_image())


@pytest.mark.parametrize("place", ["out", "cache", "tmp"])
def test_a_disk_that_is_too_small(warm: Site, site: Site, place: str) -> None:
    """Told before the work, with the place, what is needed and what is free."""
    with mount_small_disk(site.folder / "disk", "size=64m") as disk:
        env = {"cache": {"XDG_CACHE_HOME": str(disk)}, "tmp": {"TMPDIR": str(disk)}}.get(place, {})
        out = "disk/out" if place == "out" else "out"
        if place == "out":
            (disk / "out").mkdir()
            (disk / "out/mine").write_text("mine")
        start = time.monotonic()
        status, _, err = site.run(env=env, out=out)
        assert status == 1, err
        assert f"no space left in {'disk' if place == 'out' else disk}" in err
        assert "bytes are needed for" in err
        assert "are free" in err
        assert time.monotonic() - start < 30
        if place == "out":
            assert [path.name for path in (disk / "out").iterdir()] == ["mine"]


@pytest.fixture
def built(warm: Site, tmp_path: Path) -> Iterator[Site]:
    """A site of its own that shares the warm cache: builds take what is there."""
    site = Site(folder=tmp_path, env={"XDG_CACHE_HOME": str(warm.folder / "cache")})
    yield site
    assert site.list_leftovers() == []


def test_a_disk_that_fills_up_while_a_format_is_written(built: Site) -> None:
    """The image of the run before stays, to the byte."""
    with mount_small_disk(built.folder / "disk", "size=1500m") as disk:
        assert built.run(out="disk/out")[0] == 0
        before = {path.name: path.read_bytes() for path in (disk / "out").rglob("*") if path.is_file()}
        filler = disk / "filler"
        process = built.start("--format", "raw", "--format", "vmdk", out="disk/out")
        deadline = time.monotonic() + 60
        while not list(disk.glob("out/.imagegen-partial/*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        with open(filler, "wb", buffering=0) as handle, contextlib.suppress(OSError):
            while True:
                handle.write(bytes(1 << 20))
        status, _, err = finish(process)
        assert status == 1, err
        # in the middle of a format, which is removed before anybody counts, or when it gets its final name
        told = re.search(r"no space left (?:in|for) disk/out: .*?([0-9,]+) bytes.*?([0-9,]+) are free", err)
        assert told, err
        needed, free = (int(digits.replace(",", "")) for digits in told.groups())
        assert free < needed
        filler.unlink()
        after = {path.name: path.read_bytes() for path in (disk / "out").rglob("*") if path.is_file()}
        assert after == before


def test_output_that_cannot_be_one(built: Site) -> None:
    """Refused before any work; symbolic links lead nowhere."""
    (built.folder / "file").write_text("x")
    (built.folder / "target").mkdir()
    (built.folder / "link").symlink_to(built.folder / "target")
    for out, words in (("file", "not a folder"), ("link", "symbolic link"), ("no/parent", "does not exist")):
        status, _, err = built.run(out=out)
        assert (status, words in err) == (2, True), err
    assert list((built.folder / "target").iterdir()) == []


def test_output_on_a_read_only_disk(built: Site) -> None:
    with mount_small_disk(built.folder / "disk", "size=4m,ro"):
        status, _, err = built.run(out="disk/out")
        assert (status, "read-only" in err) == (2, True), err


def test_a_file_of_somebody_else_is_in_the_way(built: Site) -> None:
    (built.out / "images").mkdir(parents=True)
    (built.out / IMAGE).write_text("mine")
    status, _, err = built.run()
    assert (status, "was not made by imagegen" in err) == (2, True), err
    assert (built.out / IMAGE).read_text() == "mine"
    assert built.run("--force")[0] == 0
    assert (built.out / IMAGE).stat().st_size > 1 << 20


def test_a_folder_below_the_output_that_leads_out(built: Site) -> None:
    (built.folder / "target").mkdir()
    built.out.mkdir()
    (built.out / "images").symlink_to(built.folder / "target")
    status, _, err = built.run()
    assert (status, "symbolic link" in err) == (2, True), err
    assert list((built.folder / "target").iterdir()) == []


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    """All at once, before any work."""
    site = Site(folder=tmp_path)
    status, _, err = site.run(env={"PATH": "/nonexistent"})
    assert status == 3, err
    for name, package in (("mmdebstrap", "mmdebstrap"), ("qemu-img", "qemu-utils"), ("mcopy", "mtools")):
        assert f"{name} is not installed" in err
        assert package in err.partition("apt-get install")[2]
    assert not site.out.exists()
    assert not site.layers.exists()


def test_neither_root_nor_namespaces(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user without subordinate ids")
    os.chmod(tmp_path, 0o755)
    code = "from imagegen.backends.image.rootfs import choose_mode; choose_mode()"
    for python in ("/usr/bin/python3", "/usr/bin/python3.13", "/usr/bin/python3.12", "/usr/bin/python3.11"):
        done = subprocess.run(
            [python, "-c", f"import sys; sys.path[:0] = {_module_paths()!r}\n{code}"],
            user=54321, group=54321, extra_groups=[], capture_output=True, text=True, cwd="/",
        )  # fmt: skip
        if "MissingToolError" in done.stderr or done.returncode == 0:
            break
    else:
        pytest.skip("no Python that another user can start")
    assert "neither root nor a range of subordinate user ids for 54321" in done.stderr, done.stderr


def _module_paths() -> list[str]:
    import pydantic

    return [str(Path(__file__).parents[2]), str(Path(pydantic.__file__).parents[1])]


def test_offline_and_cold_names_every_missing_part(tmp_path: Path) -> None:
    require_builds()
    site = Site(folder=tmp_path)
    cluster = CLUSTER.replace("bare, roles: [base]", "one, roles: [etcd, master, worker]")
    status, _, err = site.run(cluster=cluster)
    assert status == 1, err
    for part in ("kube-apiserver", "kubelet", "etcd", "containerd", "runc", "cni-plugins"):
        assert f"IMG601]: {part} " in err, part
    assert err.count("error: ") == 1


def test_a_changed_file_builds_only_what_depends_on_it(warm: Site, tmp_path: Path) -> None:
    """The base stays; the role's layers have other names."""
    site = Site(folder=tmp_path, env={"XDG_CACHE_HOME": str(warm.folder / "cache")})
    before = {layer["kind"]: layer for layer in outline(site)}
    assert all(layer["cached"] for layer in before.values())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/base.yaml").write_text("files:\n  - {path: /etc/motd, content: hello}\n")
    status, out, err = site.run("--dry-run", "--summary", "json", "--profiles", "mine")
    assert status == 0, err
    after = {layer["kind"]: layer for layer in json.loads(out)["images"][0]["layers"]}
    assert after["base"] == before["base"]
    assert not after["role"]["cached"]


def test_nothing_changed_does_nothing(warm: Site) -> None:
    state = {path: path.stat().st_mtime_ns for path in warm.out.rglob("*") if path.is_file()}
    status, out, err = warm.run("--summary", "json")
    assert status == 0, err
    assert [row["seconds"] for row in json.loads(out)["images"]] == [None]
    assert {path: path.stat().st_mtime_ns for path in warm.out.rglob("*") if path.is_file()} == state
