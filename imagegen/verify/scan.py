"""Looks for secrets and identities in images, folders and files, through every wrapping.

A finding says where and what kind, never the secret itself. What packages legitimately ship is listed with
reasons in ``allowed.yaml``.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import io
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import yaml

from imagegen.progress import SILENT, Progress
from imagegen.run import Runner
from imagegen.verify.archives import (
    DAMAGED,
    UNMARKED,
    Budget,
    LimitError,
    decompress,
    list_members,
    name_archive,
    name_compression,
)
from imagegen.verify.detectors import Match, find_secrets, is_text
from imagegen.verify.entries import Entry, Trouble
from imagegen.verify.images import list_entries
from imagegen.verify.ownseed import FOLDERS, REASON, is_seed_file
from imagegen.verify.places import find_by_place
from imagegen.verify.wrappings import list_views

_WINDOW = 16 << 20
#: longer than any key, so that one on the border of two windows is seen whole in one of them
_OVERLAP = 128 << 10
_MAX_DEPTH = 10
_ALLOWED = Path(__file__).with_name("allowed.yaml")
_PROGRESS_EVERY = 500
#: views of a stretch; where a secret was found plainly, decoding it once more tells nothing new
_ENCODINGS = frozenset({"base32", "base64", "hexadecimal"})
_NOISE = re.compile(rb"\\[nrt]|[^A-Za-z0-9]")


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Finding:
    """``where`` is a line or byte of the innermost layer; ``wrapped`` are the layers, outermost first."""

    path: str
    where: str
    kind: str
    wrapped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """A finding that a package ships legitimately; ``path`` is a shell pattern for the whole path."""

    path: str
    kind: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        # in which partition, image or archive a file lies does not matter
        path = re.sub(r"\Apartition \d+:", "", finding.path.rpartition("!")[2])
        return self.kind in ("*", finding.kind) and fnmatch.fnmatchcase(path, self.path)


@dataclass(slots=True, kw_only=True)
class ScanResult:
    """One image's outcome. ``unread`` is what could not be looked at, so that nothing is known about it."""

    image: str
    files: int = 0
    size_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    allowed: list[tuple[Finding, str]] = field(default_factory=list)
    unread: list[Trouble] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not self.findings and not self.unread


@functools.cache
def read_allowed() -> tuple[Allowed, ...]:
    """The list that ships with imagegen."""
    rows = yaml.safe_load(_ALLOWED.read_text(encoding="utf-8"))
    return tuple(Allowed(**row) for row in rows)


def scan_image(
    runner: Runner,
    image: Path,
    *,
    allowed: Iterable[Allowed] | None = None,
    has_seed: bool = False,
    progress: Progress = SILENT,
) -> ScanResult:
    """Look at every file of an image in any format, of a folder, or at the file itself.

    With ``has_seed``, secrets are expected in the seed of the image's own node, and a seed that is not there
    is a finding.

    Memory stays below about 200 MB, disk use below the size of the image's content. Raises ImagegenError when
    the image cannot be opened, MissingToolError when that takes a program that is not there.
    """
    rules = tuple(read_allowed() if allowed is None else allowed)
    result = ScanResult(image=str(image))
    budget, found_seed = Budget(), False
    with progress.step(f"scanning {image.name}") as step, tempfile.TemporaryDirectory() as name:
        for entry in list_entries(runner, image, Path(name)):
            if isinstance(entry, Trouble):
                result.unread.append(entry)
                continue
            findings = _scan_entry(entry, budget, result.unread)
            if has_seed and is_seed_file(entry.path):
                found_seed = True
                result.allowed += [(finding, REASON) for finding in findings]
            else:
                _sort_in(result, findings, rules)
            result.files += 1
            result.size_bytes += entry.size
            if result.files % _PROGRESS_EVERY == 0:
                step.advance(entry.path, _PROGRESS_EVERY)
        step.note = f"{result.files:,} files, {result.size_bytes >> 20:,} MiB"
    if has_seed and not found_seed:
        where = f"{' or '.join(FOLDERS)}"
        result.findings.append(Finding(path=where, where="whole folder", kind="no seed of the image's node"))
    result.findings.sort(key=lambda found: (found.path, _number(found.where), found.kind))
    return result


def _sort_in(result: ScanResult, findings: Iterable[Finding], rules: tuple[Allowed, ...]) -> None:
    for finding in findings:
        rule = next((rule for rule in rules if rule.covers(finding)), None)
        if rule is None:
            result.findings.append(finding)
        else:
            result.allowed.append((finding, rule.reason))


def _scan_entry(entry: Entry, budget: Budget, unread: list[Trouble]) -> list[Finding]:
    search = _Search(budget=budget, unread=unread)
    try:
        with entry.open() as stream:
            search.scan_stream(entry.path, stream, entry.size, (), 0)
    except OSError as error:
        unread.append(Trouble(entry.path, error.strerror or str(error)))
    except LimitError as error:
        unread.append(Trouble(entry.path, str(error)))
    return sorted(set(search.findings))


@dataclass(slots=True, kw_only=True)
class _Search:
    """One file of an image, with everything that is wrapped in it."""

    budget: Budget
    unread: list[Trouble]
    findings: list[Finding] = field(default_factory=list)
    #: digests of places and bytes that were looked at: two ways of reading often lead to the same bytes
    _seen: set[bytes] = field(default_factory=set)

    def scan_stream(
        self, path: str, stream: IO[bytes], size: int, wrapped: tuple[str, ...], depth: int
    ) -> None:
        head = stream.read(512)
        compression, archive = name_compression(head), name_archive(head)
        if depth > _MAX_DEPTH and (compression or archive):
            self.unread.append(Trouble(path, f"wrapped more than {_MAX_DEPTH} times"))
            return
        try:
            if compression:
                with decompress(stream, size, self.budget) as plain:
                    length = plain.seek(0, 2)
                    plain.seek(0)
                    if length:
                        self.scan_stream(path, plain, length, (*wrapped, compression), depth + 1)
                        if compression not in UNMARKED:
                            return
            elif archive and self._scan_members(path, stream, archive, wrapped, depth):
                return
        except LimitError as error:
            self.unread.append(Trouble(path, str(error)))
        stream.seek(0)
        self._scan_plain(path, stream, wrapped, depth)

    def _scan_members(
        self, path: str, stream: IO[bytes], archive: str, wrapped: tuple[str, ...], depth: int
    ) -> bool:
        """Whether the archive could be read to its end; if not, its bytes are worth a look, too."""
        try:
            for member in list_members(archive, stream, self.budget):
                size = member.stream.seek(0, 2)
                member.stream.seek(0)
                inner = f"{path}!/{member.name.lstrip('/')}"
                self.scan_stream(inner, member.stream, size, (*wrapped, archive), depth + 1)
        except DAMAGED:
            return False
        return True

    def _scan_plain(self, path: str, stream: IO[bytes], wrapped: tuple[str, ...], depth: int) -> None:
        offset, kept = 0, b""
        while piece := stream.read(_WINDOW):
            data = kept + piece
            if offset == 0:
                self._look_at_place(path, data, wrapped)
            self._scan_bytes(path, data, offset - len(kept), wrapped, depth)
            offset += len(piece)
            kept = data[-_OVERLAP:]
        if offset == 0:
            self._look_at_place(path, b"", wrapped)

    def _look_at_place(self, path: str, data: bytes, wrapped: tuple[str, ...]) -> None:
        for kind, line in find_by_place(path, data):
            where = f"line {line}" if line else "whole file"
            self.findings.append(Finding(path=path, where=where, kind=kind, wrapped=wrapped))

    def _scan_bytes(self, path: str, data: bytes, offset: int, wrapped: tuple[str, ...], depth: int) -> None:
        matches = find_secrets(data)
        for match in matches:
            if self._is_new(path, match.kind.encode() + _NOISE.sub(b"", data[match.start : match.end])):
                where = _say_where(data, match, offset)
                self.findings.append(Finding(path=path, where=where, kind=match.kind, wrapped=wrapped))
        if depth >= _MAX_DEPTH:
            return
        for view in list_views(data):
            is_whole = view.start == 0 and view.end == len(data) and view.name not in _ENCODINGS
            if not is_whole and any(m.start < view.end and view.start < m.end for m in matches):
                continue
            if not self._is_new(path, view.data):
                continue
            self.budget.take(len(view.data))
            inner = (*wrapped, view.name)
            if name_compression(view.data[:16]) or name_archive(view.data[:512]):
                self.scan_stream(path, io.BytesIO(view.data), len(view.data), inner, depth + 1)
            else:
                self._scan_bytes(path, view.data, 0, inner, depth + 1)

    def _is_new(self, path: str, data: bytes) -> bool:
        digest = hashlib.blake2b(path.encode(errors="replace") + b"\0" + data, digest_size=16).digest()
        if digest in self._seen:
            return False
        self._seen.add(digest)
        return True


def _number(where: str) -> int:
    digits = where.rpartition(" ")[2]
    return int(digits) if digits.isdecimal() else 0


def _say_where(data: bytes, match: Match, offset: int) -> str:
    if offset == 0 and is_text(data):
        number = data.count(b"\n", 0, match.start) + 1
        return f"line {number}"
    return f"byte {offset + match.start}"
