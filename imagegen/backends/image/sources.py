"""What an image is filled with besides packages: verified executables and container images.

A source is named by the SHA-256 of its download, so that a layer made from other bytes of the same version is
another layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagegen.backends.image.layers import LayerCache, hash_inputs
from imagegen.fetch import FetchResult, Lock
from imagegen.fetch.archive import extract_members
from imagegen.fetch.images import parse_reference
from imagegen.kubernetes.releases import Part
from imagegen.plan.items import Binary, ContainerImage
from imagegen.plan.parts import make_download

Source = Binary | ContainerImage

#: the part of the catalogue behind a Binary, by name and version
Parts = Mapping[tuple[str, str], Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """The SHA-256 of every source's download; empty for one that no lock file pins yet."""

    binaries: Mapping[tuple[str, str], str]
    images: Mapping[str, str]

    def of(self, source: Source) -> str:
        if isinstance(source, Binary):
            return self.binaries.get((source.part, source.version), "")
        return self.images.get(source.reference, "")


def read_pinned(parts: Parts, images: Iterable[str], lock: Lock) -> Digests:
    """The digests that a lock file knows, without asking anybody."""
    return Digests(
        binaries={key: lock.sha256(part.url) or "" for key, part in parts.items()},
        images={text: lock.sha256(parse_reference(text).download.url) or "" for text in images},
    )


def list_part_keys(sources: Iterable[Source]) -> tuple[tuple[str, str], ...]:
    """Name and version of every part of the catalogue that some source comes from, each once."""
    keys = ((source.part, source.version) for source in sources if isinstance(source, Binary))
    return tuple(dict.fromkeys(keys))


def unpack_sources(
    sources: Iterable[Source], parts: Parts, result: FetchResult, cache: LayerCache
) -> dict[Source, Path]:
    """The file of every source on this machine; archives are unpacked once into the cache.

    Raises ImagegenError when an archive lacks a member.
    """
    files: dict[Source, Path] = {}
    members: dict[tuple[str, str], list[Binary]] = {}
    for source in sources:
        if isinstance(source, ContainerImage):
            files[source] = result.images[source.reference].path
        elif source.member:
            members.setdefault((source.part, source.version), []).append(source)
        else:
            files[source] = result.of(make_download(parts[source.part, source.version])).path
    for key, wanted in members.items():
        fetched = result.of(make_download(parts[key]))
        names = sorted({binary.member for binary in wanted})
        folder = _unpack(fetched.path, fetched.sha256, names, key[0], cache)
        files |= {binary: folder / _flat_name(binary.member) for binary in wanted}
    return files


def _unpack(archive: Path, digest: str, members: list[str], name: str, cache: LayerCache) -> Path:
    def build(folder: Path) -> None:
        extract_members(archive, {member: folder / _flat_name(member) for member in members}, name=name)

    return cache.get_or_build("part", hash_inputs({"sha256": digest, "members": members}), build)


def _flat_name(member: str) -> str:
    return member.replace("/", "_")
