"""``python -m rundemo FOLDER``: the quickstart cluster, running on this machine, from nothing.

Finds out where the parts can come from: a mirror that is there, the official release sites, or a mirror that
is built from source; takes the newest Kubernetes that can be had, and where that is Debian's alone, a cluster
that does with what Debian has.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import urllib3

#: what the parts and images of a cluster are fetched from
SITES = ("https://dl.k8s.io", "https://github.com", "https://registry.k8s.io/v2/", "https://ghcr.io/v2/")
_PROBE_SECONDS = 4.0
_MIRROR = Path.home() / ".cache" / "imagegen" / "mirror"
_VERSION = re.compile(r"(?m)^(kubernetes:\n(?:[ #].*\n)*?  version:) (\S+)")

QUICKSTART = "quickstart"
#: the same nodes, without what Debian does not have
DEBIAN_ONLY = "debian-only"
_EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

#: where parts come from: the options of imagegen that say so
Source = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A cluster and a place to fetch its parts from."""

    version: str
    source: Source
    example: str = QUICKSTART


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    cluster = folder / "cluster.yaml"
    if not cluster.exists():
        imagegen("new", str(folder), "--example", QUICKSTART, "--quiet")
    source = find_source(cluster)
    if source is None:
        say("no parts can be had: neither from the release sites nor from source")
        return 1
    return imagegen("up", str(cluster), "--output", str(folder / "out"), *source, check=False)


def find_source(cluster: Path) -> Source | None:
    """The first place that has everything that the cluster needs."""
    last = ""
    for attempt in list_attempts(cluster):
        if attempt.example != QUICKSTART and not choose_example(cluster, attempt.example):
            continue
        set_version(cluster, attempt.version)
        problem = try_fetch(cluster, attempt.source)
        if problem is None:
            return attempt.source
        # what is missing matters only when nothing else can be had
        last = problem
    say(last)
    return None


def try_fetch(cluster: Path, source: Source) -> str | None:
    """Fetch what the cluster needs; None when everything is there, else what is missing."""
    argv = [sys.executable, "-m", "imagegen", "fetch", str(cluster), *source, "--quiet"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr


def list_attempts(cluster: Path) -> Iterator[Attempt]:
    """Versions of Kubernetes with a place to fetch them from, best first; later ones take longer to make."""
    from mirror.debian_kubernetes import VERSION as DEBIAN_VERSION
    from mirror.recipe import KUBERNETES_VERSIONS

    wanted = read_version(cluster)
    own = os.environ.get("IMAGEGEN_MIRROR")
    if own:
        yield Attempt(version=wanted, source=["--mirror", own])
        return
    built = ["--mirror", str(_MIRROR), "--offline"]
    if has_mirror(wanted):
        yield Attempt(version=wanted, source=built)
    if all(probe_sites()):
        say("the release sites are in reach")
        yield Attempt(version=wanted, source=[])
    for version in dict.fromkeys([wanted, *KUBERNETES_VERSIONS[:1], DEBIAN_VERSION]):
        if version in (*KUBERNETES_VERSIONS, DEBIAN_VERSION):
            say(f"building Kubernetes {version} and its companions from source, once: 20 minutes and more")
            build_mirror(version)
            yield Attempt(version=version, source=built)
    yield Attempt(version=DEBIAN_VERSION, source=built, example=DEBIAN_ONLY)


def choose_example(cluster: Path, name: str) -> bool:
    """Take another example for the demo's cluster, unless somebody has changed the file; whether it is that
    example now.
    """
    text = _blank_version(cluster.read_text(encoding="utf-8"))
    other = (_EXAMPLES / name / "cluster.yaml").read_text(encoding="utf-8")
    if text != _blank_version(other):
        if text != _blank_version((_EXAMPLES / QUICKSTART / "cluster.yaml").read_text(encoding="utf-8")):
            say(f"{cluster} is yours and stays; the example {name} needs less: imagegen new --example {name}")
            return False
        say(f"{cluster}: the example {name}, because parts of {QUICKSTART} cannot be had")
        cluster.write_text(other, encoding="utf-8")
    return True


def _blank_version(text: str) -> str:
    return _VERSION.sub(r"\1", text)


def has_mirror(version: str) -> bool:
    return (_MIRROR / "dl.k8s.io" / "release" / f"v{version}").is_dir()


def probe_sites() -> list[bool]:
    """Which of the release sites answer at all."""
    pool = urllib3.PoolManager(timeout=_PROBE_SECONDS, retries=False)

    def probe(url: str) -> bool:
        try:
            pool.request("HEAD", url, redirect=False)
        except urllib3.exceptions.HTTPError:
            return False
        return True

    with ThreadPoolExecutor(max_workers=len(SITES)) as threads:
        return list(threads.map(probe, SITES))


def build_mirror(version: str) -> None:
    """Fill the mirror for one version; what cannot be made is told, and found missing afterwards."""
    subprocess.run([sys.executable, "-m", "mirror", "--kubernetes", version], check=False)


def read_version(cluster: Path) -> str:
    found = _VERSION.search(cluster.read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"{cluster} names no version of Kubernetes")
    return found[2]


def set_version(cluster: Path, version: str) -> None:
    text = cluster.read_text(encoding="utf-8")
    changed = _VERSION.sub(rf"\1 {version}", text)
    if changed != text:
        say(f"{cluster}: Kubernetes {version}")
        cluster.write_text(changed, encoding="utf-8")


def imagegen(*arguments: str, check: bool = True) -> int:
    """Run a verb on our own terminal."""
    done = subprocess.run([sys.executable, "-m", "imagegen", *arguments], check=False)
    if check and done.returncode != 0:
        raise SystemExit(done.returncode)
    return done.returncode


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
