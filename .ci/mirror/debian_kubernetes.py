"""Kubernetes 1.20.2 and its companions out of Debian 12: a whole mirror for a machine without Go modules.

Kubernetes is built from Debian's source package, which holds all it needs; the others are Debian's own
binaries, which are linked against the C library and so run on Debian 12 and newer only.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from imagegen.kubernetes.releases import Part
from imagegen.run import Runner
from mirror.debian import DebianArchive
from mirror.gomodules import Unavailable
from mirror.layout import make_stage, pack_part, replace_text

VERSION = "1.20.2"
#: part → packages with its members, which lie under their own names in ``folder``
BINARIES = {
    "etcd": (("etcd-server", "etcd-client"), "usr/bin"),
    "containerd": (("containerd",), "usr/bin"),
    "runc": (("runc",), "usr/sbin"),
    "cni-plugins": (("containernetworking-plugins",), "usr/lib/cni"),
}
_REFLECT2 = "github.com/modern-go/reflect2"


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianMaker:
    """Makes parts from Debian's packages. ``jobs`` compilations run at a time; ``cache`` is Go's."""

    runner: Runner
    debian: DebianArchive
    work: Path
    cache: Path
    jobs: int = 2

    def make(self, part: Part) -> tuple[Path, str]:
        stage = make_stage(self.work, part)
        if part.name in BINARIES:
            packages, folder = BINARIES[part.name]
            root = self.debian.unpack(*packages)
            offered = {package: find_upstream_version(root, package) for package in packages}
            if set(offered.values()) != {part.version}:
                raise Unavailable(
                    f"wanted {part.name} {part.version}, Debian {self.debian.suite} has {offered}"
                )
            wanted = part.members or (part.name,)
            found = [(member, root / folder / member.rpartition("/")[2]) for member in wanted]
            present = [(member, path) for member, path in found if path.is_file()]
            if not present:
                raise Unavailable(f"{' and '.join(packages)} hold no {part.name}")
            return pack_part(part, stage, present), f"Debian {self.debian.suite}: {', '.join(packages)}"
        tree = self._prepare_source()
        target = stage / part.name
        self._build(tree, part.name, target)
        return target, f"Debian {self.debian.suite}: source package kubernetes"

    def find_pause(self) -> Path:
        """The one C file of the pause program; raises Unavailable."""
        return self.debian.unpack_source("kubernetes") / "build/pause/linux/pause.c"

    def _prepare_source(self) -> Path:
        """The source with its generated files, and with a reflect2 that newer compilers can build."""
        for program in ("go", "make"):
            if shutil.which(program) is None:
                raise Unavailable(f"{program} is not installed (apt-get install golang-go make)")
        tree = self.debian.unpack_source("kubernetes")
        stamp = tree / ".imagegen-generated"
        if stamp.exists():
            return tree
        # reflect2 1.0.1 breaks with Go 1.18 and newer: the API server then panics now and then.
        vendored = tree / "vendor" / _REFLECT2
        newer = (
            self.debian.unpack("golang-github-modern-go-reflect2-dev") / "usr/share/gocode/src" / _REFLECT2
        )
        shutil.rmtree(vendored)
        shutil.copytree(newer, vendored)
        tools = self.debian.unpack("rsync", "libpopt0", "libxxhash0")
        version_file = tree / ".imagegen-version"
        replace_text(version_file, _VERSION_FILE)
        self.runner.run(
            ["nice", "-n", "10", "make", "generated_files", f"-j{self.jobs}"],
            cwd=tree,
            env={
                "PATH": f"{tools / 'usr/bin'}:{os.environ.get('PATH', os.defpath)}",
                "LD_LIBRARY_PATH": str(tools / "usr/lib/x86_64-linux-gnu"),
                "KUBE_GIT_VERSION_FILE": str(version_file),
                "SOURCE_DATE_EPOCH": "0",
                "CGO_ENABLED": "0",
                "GOCACHE": str(self.cache),
            },
        )
        stamp.touch()
        return tree

    def _build(self, tree: Path, name: str, target: Path) -> None:
        # It has its vendored modules under GOPATH, where hack/ has linked the tree.
        package = "k8s.io/kubernetes"
        places = (
            f"{package}/vendor/k8s.io/component-base/version",
            f"{package}/vendor/k8s.io/client-go/pkg/version",
        )
        flags = ["-s", "-w"]
        for place in places:
            flags += [f"-X {place}.{key}={value}" for key, value in _VERSION_FACTS.items()]
        self.runner.run(
            [
                *("nice", "-n", "10", "go", "build", "-p", str(self.jobs), "-trimpath"),
                *("-ldflags", " ".join(flags), "-o", str(target), f"{package}/cmd/{name}"),
            ],
            cwd=tree,
            env={
                "GO111MODULE": "off",
                "GOCACHE": str(self.cache),
                "GOPATH": str(tree / "_output/local/go"),
                "GOFLAGS": "-buildvcs=false",
                "GOTOOLCHAIN": "local",
                "CGO_ENABLED": "0",
            },
        )


def find_upstream_version(root: Path, package: str) -> str:
    """The upstream version of a package that was unpacked in ``root``, such as ``1.6.20``.

    Debian marks a changed source (``~ds1``, ``+ds``) and its own revision (``-1+b2``), which are left out.
    """
    for path in root.glob(f"{package}_*.deb"):
        version = path.name.split("_")[1].replace("%3a", ":").rpartition(":")[2]
        return re.split(r"[-~+]", version)[0]
    raise Unavailable(f"{package} was not downloaded")


_VERSION_FACTS = {
    "gitVersion": f"v{VERSION}",
    "gitMajor": "1",
    "gitMinor": "20",
    "gitTreeState": "archive",
    "buildDate": "1970-01-01T00:00:00Z",
}
_VERSION_FILE = f"""KUBE_GIT_COMMIT='archive'
KUBE_GIT_TREE_STATE='archive'
KUBE_GIT_VERSION='v{VERSION}'
KUBE_GIT_MAJOR='1'
KUBE_GIT_MINOR='20'
"""
