"""The executables of an image, taken out of the verified downloads of ``imagegen.fetch``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from imagegen.backends.image.layers import LayerCache, hash_inputs
from imagegen.fetch.archive import extract_members
from imagegen.plan.items import Binary


def unpack_binaries(
    binaries: Iterable[Binary], archives: Mapping[tuple[str, str], tuple[Path, str]], cache: LayerCache
) -> Callable[[Binary], Path]:
    """Unpack every archive once into the cache; the answer finds the file of each Binary.

    ``archives`` gives the verified download and its SHA-256 by name and version of the part. Raises
    ImagegenError when an archive lacks a member.
    """
    files: dict[Binary, Path] = {}
    members: dict[tuple[str, str], list[Binary]] = {}
    for binary in binaries:
        path, _ = archives[binary.part, binary.version]
        if binary.member:
            members.setdefault((binary.part, binary.version), []).append(binary)
        else:
            files[binary] = path
    for part, wanted in members.items():
        path, digest = archives[part]
        folder = _unpack(path, digest, sorted({binary.member for binary in wanted}), part[0], cache)
        files |= {binary: folder / _flat_name(binary.member) for binary in wanted}
    return files.__getitem__


def _unpack(archive: Path, digest: str, members: list[str], name: str, cache: LayerCache) -> Path:
    def build(folder: Path) -> None:
        extract_members(archive, {member: folder / _flat_name(member) for member in members}, name=name)

    return cache.get_or_build("part", hash_inputs({"sha256": digest, "members": members}), build)


def _flat_name(member: str) -> str:
    return member.replace("/", "_")
