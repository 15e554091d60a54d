"""The folder of a mirror: files under the host name of their official URL, each with its checksum file."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagegen.emit import emit_json
from imagegen.fetch.cache import hash_file
from imagegen.fetch.checksums import ChecksumError, parse_checksum
from imagegen.fetch.images import parse_reference
from imagegen.fetch.sources import mirror_path
from imagegen.kubernetes.releases import Part

_ORIGINS = "ORIGINS.json"


@dataclass(frozen=True, slots=True)
class Mirror:
    root: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One run at a time. The folder itself is locked, so a dead process holds nothing."""
        self.root.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def path(self, url: str) -> Path:
        return self.root / mirror_path(url)

    def has(self, part: Part) -> bool:
        """Whether the part is there and is what its checksum file says."""
        path = self.path(part.url)
        if not path.is_file():
            return False
        if part.checksum_url is None:
            return True
        try:
            text = self.path(part.checksum_url).read_text("utf-8")
            return parse_checksum(text, part.file_name) == hash_file(path)
        except (OSError, ChecksumError):
            return False

    def has_manifest(self, reference: str) -> bool:
        """Whether an image is there under its tag, whatever it was made from."""
        return self.path(parse_reference(reference).download.url).is_file()

    def add(self, part: Part, source: Path, origin: str) -> None:
        """Put ``source`` in the part's place, then its checksum, then where it came from."""
        target = self.path(part.url)
        replace_file(target, source)
        sha256 = hash_file(target)
        if part.checksum_url:
            self._add_checksum(part.checksum_url, part.file_name, sha256)
        facts = {"part": part.name, "version": part.version, "sha256": sha256, "made_from": origin}
        self.note_origin(part.url, facts)

    def _add_checksum(self, url: str, file_name: str, sha256: str) -> None:
        path = self.path(url)
        # A file named after one download holds that sum alone; others list every file of the release.
        rows: dict[str, str] = {}
        if path.is_file() and not path.name.startswith(file_name):
            rows = {name: digest for digest, _, name in (line.partition("  ") for line in path.open())}
            rows = {name.strip(): digest for name, digest in rows.items()}
        rows[file_name] = sha256
        replace_text(path, "".join(f"{digest}  {name}\n" for name, digest in sorted(rows.items())))

    def note_origin(self, key: str, facts: Mapping[str, str]) -> None:
        """Write down what a part (by its URL) or an image (by its reference) was made from."""
        origins = {**self._read_origins(), key: dict(facts)}
        replace_text(self.root / _ORIGINS, emit_json(origins))

    def origin_of(self, key: str) -> str | None:
        """What a part or an image was made from; None when nobody wrote it down."""
        return self._read_origins().get(key, {}).get("made_from")

    def _read_origins(self) -> dict[str, dict[str, str]]:
        path = self.root / _ORIGINS
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def size(self) -> int:
        """Bytes of all files."""
        return sum(p.stat().st_size for p in self.root.rglob("*") if p.is_file())


def replace_file(target: Path, source: Path) -> None:
    """Copy ``source`` to its final name only when the copy is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with source.open("rb") as reader, partial.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        partial.chmod(source.stat().st_mode & 0o755)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def replace_text(target: Path, text: str) -> None:
    """Write a small file, complete or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(target)


def write_archive(target: Path, members: Iterable[tuple[str, Path]]) -> None:
    """A ``.tar.gz`` of executables; the same input gives the same bytes, whoever makes it and when."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, path in members:
            body = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(body), 0o755, 0
            archive.addfile(entry, io.BytesIO(body))


def make_stage(work: Path, part: Part) -> Path:
    """The folder where a part is put together."""
    stage = work / "stage" / f"{part.name}-{part.version}"
    stage.mkdir(parents=True, exist_ok=True)
    return stage


def pack_part(part: Part, stage: Path, members: Sequence[tuple[str, Path]]) -> Path:
    """The part as its release site offers it: the executable, or an archive in the catalogue's order."""
    if part.kind == "raw":
        return members[0][1]
    archive = stage / part.file_name
    order = {member: position for position, member in enumerate(part.members)}
    write_archive(archive, sorted(members, key=lambda entry: order[entry[0]]))
    return archive
