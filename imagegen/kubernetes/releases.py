"""Which release of every part goes with which Kubernetes minor, and its place on the official release sites.

Reads the table ``releases.yaml`` beside this module; downloads nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from imagegen.errors import UsageError
from imagegen.model.version import Version, parse_version

_TABLE = Path(__file__).with_name("releases.yaml")

#: parts that carry the version of Kubernetes itself
KUBERNETES_PARTS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "kubeadm",
)

#: images that come out of one release
_ONE_RELEASE = {"calico-node": "calico", "calico-cni": "calico"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One downloadable file of a release: an executable (``raw``) or an archive with executables in it.

    ``members`` are paths inside the archive as ``tar`` lists them, empty for ``raw``. ``checksum_url`` holds
    the SHA-256 of the file, alone or in a list of many files; None when the release site offers none.
    """

    name: str
    version: str
    arch: str
    url: str
    checksum_url: str | None
    kind: Literal["raw", "tar.gz"]
    members: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """The last part of the URL: the name under which checksum lists know the file."""
        return self.url.rsplit("/", 1)[1]

    def member(self, executable: str) -> str:
        """The path inside the archive of the executable of that base name; raises KeyError."""
        for member in self.members:
            if member.rsplit("/", 1)[-1] == executable:
                return member
        raise KeyError(f"{self.name} {self.version} has no {executable}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """The releases that belong to one Kubernetes version; ``versions`` maps a part or image to its own."""

    kubernetes: Version
    versions: Mapping[str, str]

    def version(self, name: str) -> str:
        """The version of a part or image, such as ``etcd``; raises KeyError."""
        if name in KUBERNETES_PARTS:
            return str(self.kubernetes)
        return self.versions[_ONE_RELEASE.get(name, name)]

    def part(self, name: str, arch: str = "amd64") -> Part:
        """The catalogue entry of one part; raises KeyError for an unknown name."""
        entry = _read_table()["parts"][name]
        version = self.version(name)

        def fill(text: str) -> str:
            return text.format(name=name, version=version, arch=arch)

        url = fill(entry["url"])
        return Part(
            name=name,
            version=version,
            arch=arch,
            url=url,
            checksum_url=fill(entry["checksum"]) if "checksum" in entry else None,
            kind="tar.gz" if url.endswith((".tgz", ".tar.gz")) else "raw",
            members=tuple(
                fill(member)
                for member in entry.get("members", ())
                if _is_in(version, entry.get("since", {}), member.rsplit("/", 1)[-1])
            ),
        )

    def image(self, name: str) -> str:
        """The fully qualified reference of a container image, such as ``pause``; raises KeyError."""
        places = _read_table()["images"][name]
        version = self.version(name)
        if isinstance(places, str):
            return places.format(name=name, version=version)
        place = next(p for p in places if "below" not in p or _number(version) < _number(p["below"]))
        reference: str = place["reference"]
        return reference.format(name=name, version=version)


def _is_in(version: str, since: Mapping[str, str], member: str) -> bool:
    return member not in since or _number(version) >= _number(since[member])


def _number(version: str) -> tuple[int, ...]:
    """``1.9.1-flannel3`` and ``3.10`` as something that compares."""
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def load_releases(version: Version) -> Releases:
    """The companions of a Kubernetes version; raises UsageError when its minor is not in the table."""
    row = _read_table()["minors"].get(version.minor_text)
    if row is None:
        known = known_minors()
        raise UsageError(
            f"wanted a Kubernetes minor from {known[0]} to {known[-1]}, got {version}",
            hint=f"choose for example {newest_patch(known[-1])}",
        )
    return Releases(kubernetes=version, versions={k: v for k, v in row.items() if k != "newest"})


def known_minors() -> tuple[str, ...]:
    """Every minor of the table, oldest first, such as ``1.30``."""
    return tuple(_read_table()["minors"])


def newest_patch(minor: str) -> Version:
    """The newest patch release known for a minor such as ``1.36``; raises KeyError."""
    return parse_version(_read_table()["minors"][minor]["newest"])


def known_parts() -> tuple[str, ...]:
    """The names of all parts of the catalogue."""
    return tuple(_read_table()["parts"])


@functools.cache
def _read_table() -> Any:
    return yaml.load(_TABLE.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
