"""Runs of ``imagegen build`` for the tests of faults: a small cluster, a warm cache, surroundings."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: role base needs no part of a release site
CLUSTER = """\
version: 1
name: small
kubernetes: {version: 1.36.4}
network: {nodes: 10.0.2.0/24}
image: {size: 2GiB, formats: [qcow2]}
nodes:
  - {name: bare, roles: [base], address: 10.0.2.15}
"""
IMAGE = "images/small-base.qcow2"
TOOLS = ("mmdebstrap", "qemu-img", "grub-mkimage", "mkfs.vfat", "mcopy", "sfdisk")


def require_builds() -> None:
    """Skip with a reason where no image can be built."""
    missing = [name for name in TOOLS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0 and shutil.which("newuidmap") is None:
        pytest.skip("building needs root, or newuidmap")


@dataclass(kw_only=True)
class Site:
    """A folder with a cluster file, a cache and a place for temporary files of its own."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> Path:
        return Path(self.env.get("XDG_CACHE_HOME", self.folder / "cache")) / "imagegen/layers"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, out: str = "out", cluster: str = CLUSTER
    ) -> subprocess.Popen[str]:
        """``imagegen build`` of this folder's cluster, in the background."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        (self.folder / "cluster.yaml").write_text(cluster)
        surroundings = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "TMPDIR": str(self.temporary),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "imagegen", "build", "cluster.yaml", "-o", out, "--offline", *arguments],
            cwd=self.folder,
            env=surroundings | self.env | dict(env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **options: object) -> tuple[int, str, str]:
        """The same to its end: status, stdout, stderr."""
        return finish(self.start(*arguments, **options))  # type: ignore[arg-type]

    def read_image(self) -> bytes:
        return (self.out / IMAGE).read_bytes()

    def list_leftovers(self) -> list[str]:
        """Whatever an ended run must not leave: temporary folders, unfinished layers, staging, processes."""
        found = [str(path) for path in self.temporary.iterdir()]
        found += [str(path) for path in self.layers.glob("*.partial")]
        found += [str(path) for path in self.out.glob(".imagegen*")]
        return found + [f"process {pid}" for pid in find_processes(self.temporary)]


def finish(process: subprocess.Popen[str], timeout: float = 900) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def find_processes(folder: Path) -> list[int]:
    """Processes whose command line, environment, root or current folder names ``folder``."""
    mark, found = str(folder).encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            places = [os.readlink(entry / name) for name in ("root", "cwd")]
            texts = [(entry / name).read_bytes() for name in ("cmdline", "environ")]
            if any(place.startswith(str(folder)) for place in places) or any(mark in text for text in texts):
                found.append(int(entry.name))
    return found


def outline(site: Site) -> list[dict[str, object]]:
    """The layers of the cluster's image, from the command itself."""
    status, out, err = site.run("--dry-run", "--summary", "json")
    assert status == 0, err
    layers: list[dict[str, object]] = json.loads(out)["images"][0]["layers"]
    return layers


def warm_up(site: Site) -> None:
    """Give the site the base layer of the user's own cache, which is built there when it is not."""
    base = next(layer for layer in outline(site) if layer["kind"] == "base")
    name = f"base-{base['key']}"
    shared = Site(folder=site.folder / "shared", env={"XDG_CACHE_HOME": default_cache()})
    shared.folder.mkdir()
    if not (shared.layers / name).is_dir():
        status, _, err = shared.run()
        assert status == 0, err
    site.layers.mkdir(parents=True)
    try:
        shutil.copytree(shared.layers / name, site.layers / name, copy_function=os.link)
    except OSError:
        shutil.copytree(shared.layers / name, site.layers / name, dirs_exist_ok=True)
    shutil.rmtree(shared.folder)


def default_cache() -> str:
    return os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")


@contextlib.contextmanager
def mount_small_disk(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory at ``place``; skips where mounting is not allowed."""
    place.mkdir(parents=True)
    argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
