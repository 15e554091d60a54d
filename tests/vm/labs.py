"""Boots clusters for tests through the command line, as a user would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagegen.lab.cluster import LabCluster, open_lab
from imagegen.model.version import parse_version

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: seconds; four machines in emulation on two cores that do nothing else need 300
PATIENCE = 1200.0

_NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "dnsmasq": "dnsmasq-base", "mmdebstrap": "mmdebstrap"}


def find_mirror() -> Path:
    """The mirror of the release sites, or a skip that says how to make one."""
    mirror = Path(os.environ.get("IMAGEGEN_MIRROR") or Path.home() / ".cache" / "imagegen" / "mirror")
    if not (mirror / "dl.k8s.io" / "release").is_dir():
        pytest.skip(f"there is no mirror of the release sites at {mirror}: run make mirror")
    return mirror


def list_versions(mirror: Path) -> list[str]:
    """The Kubernetes versions of the mirror, newest first."""
    # a version that a mirror under construction does not have whole yet is none
    programs = (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
    )
    found = [
        path.name.removeprefix("v")
        for path in (mirror / "dl.k8s.io" / "release").glob("v*")
        if all((path / "bin/linux/amd64" / f"{name}.sha256").exists() for name in programs)
    ]
    return sorted(found, key=lambda text: [int(n) for n in str(parse_version(text)).split(".")], reverse=True)


def write_newest(folder: Path, example: str) -> Path:
    """The cluster file of an example, with the newest Kubernetes that the mirror has everything for."""
    mirror = find_mirror()
    for version in list_versions(mirror):
        cluster = write_example(folder, example, version)
        where = ["--mirror", str(mirror), "--offline", "--quiet"]
        if try_imagegen("fetch", str(cluster), *where).returncode == 0:
            return cluster
    pytest.skip(f"the mirror {mirror} has no version of Kubernetes with all its companions: run make mirror")


def require_lab() -> None:
    """Skip, with the reason, where no lab can run."""
    missing = [package for tool, package in _NEEDED.items() if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("the base system is made as root here")


def try_imagegen(*arguments: str, timeout: float = 1800.0) -> subprocess.CompletedProcess[str]:
    """A command, however it ends."""
    argv = [sys.executable, "-m", "imagegen", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)


def run_imagegen(*arguments: str, timeout: float = 1800.0, check: bool = True) -> str:
    """stdout of a command; with ``check`` it must have succeeded."""
    done = try_imagegen(*arguments, timeout=timeout)
    assert not check or done.returncode == 0, f"{arguments}: {done.stderr[-6000:]}"
    return done.stdout


def write_example(folder: Path, example: str, version: str) -> Path:
    """The cluster file of an example, with another version of Kubernetes."""
    text = (EXAMPLES / example / "cluster.yaml").read_text()
    changed = re.sub(r"(?m)^(\s+version:) \S+$", rf"\1 {version}", text, count=1)
    assert f"version: {version}" in changed
    folder.mkdir(parents=True, exist_ok=True)
    cluster = folder / "cluster.yaml"
    cluster.write_text(changed)
    return cluster


@contextlib.contextmanager
def boot(cluster: Path, *options: str, patience: float = PATIENCE) -> Iterator[tuple[LabCluster, Any]]:
    """The cluster of a file, Ready, with its timeline; whatever happens, nothing of it runs afterwards.

    On failure the consoles are left in the folder that the error names.
    """
    mirror = find_mirror()
    where = ["--mirror", str(mirror), "--offline"]
    try:
        out = run_imagegen(
            "up", str(cluster), *where, "--timeout", str(patience), "--format", "json", "--quiet", *options
        )
        yield open_lab(cluster), json.loads(out)
    finally:
        run_imagegen("down", str(cluster), "--quiet", check=False)


@contextlib.contextmanager
def boot_example(folder: Path, example: str, version: str = "") -> Iterator[LabCluster]:
    """An example as machines, Ready, and how long that took on stdout; no version means the newest one."""
    require_lab()
    if version and version not in list_versions(find_mirror()):
        pytest.skip(f"no Kubernetes {version} in the mirror; make mirror builds it")
    cluster = write_example(folder, example, version) if version else write_newest(folder, example)
    with boot(cluster) as (lab, timeline):
        version = str(lab.cluster.kubernetes.version)
        print(f"\n{example} {version}: Ready after {timeline['ready_seconds']} s with {timeline['runs_on']}")
        yield lab


def wait_until(what: str, question: Any, *, patience: float = 120.0, pause: float = 1.0) -> Any:
    """Ask until the answer is true, and return it; fails with ``what`` was waited for."""
    deadline = time.monotonic() + patience
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(pause)
