"""What lies in the free blocks of an ext2/3/4 file system: the bytes of files that were deleted."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from imagegen.run import Runner, Tool, require_tools

TOOLS = (
    Tool(
        name="dumpe2fs",
        package="e2fsprogs",
        purpose="find what deleted files left behind",
        version_arguments=("-V",),
    ),
)
_TIMEOUT_SECONDS = 600.0
_FREE = re.compile(r"^  Free blocks: (.+)$", re.M)
_BLOCK_SIZE = re.compile(r"^Block size: +(\d+)$", re.M)
_PIECE = 1 << 20


class Stretch(io.RawIOBase):
    """``size`` bytes from ``start`` of a file, as a file of their own."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with the stretch
        self._start, self._size, self._place = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, (0, self._place, self._size)[whence] + offset)
        return self._place

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        self._file.seek(self._start + self._place)
        piece = self._file.read(max(0, min(len(buffer), self._size - self._place))) or b""
        buffer[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_stretch(path: Path, start: int, size: int) -> IO[bytes]:
    """``size`` bytes from ``start`` of ``path``, read when they are asked for."""
    return cast("IO[bytes]", io.BufferedReader(Stretch(path, start, size)))


def list_leftovers(runner: Runner, raw: Path, offset: int) -> Iterator[tuple[int, int]]:
    """Start and size in bytes, within ``raw``, of everything but zeros in free blocks of the ext file system
    at ``offset``. Raises MissingToolError, CommandError when dumpe2fs cannot read it.
    """
    require_tools(TOOLS)
    told = runner.run(["dumpe2fs", f"{raw}?offset={offset}"], timeout=_TIMEOUT_SECONDS).stdout
    found = _BLOCK_SIZE.search(told)
    size = int(found[1]) if found else 4096
    with open(raw, "rb", buffering=0) as handle:
        for first, last in _join_ranges(told):
            yield from _list_filled(handle, offset + first * size, offset + (last + 1) * size, size)


def _join_ranges(told: str) -> Iterator[tuple[int, int]]:
    """First and last of the free blocks; what goes on in the next group is one range."""
    start = end = -2
    for line in _FREE.finditer(told):
        for word in line[1].split(","):
            first, _, last = word.strip().partition("-")
            if not first:
                continue
            if int(first) != end + 1:
                if end >= 0:
                    yield start, end
                start = int(first)
            end = int(last or first)
    if end >= 0:
        yield start, end


def _list_filled(handle: IO[bytes], start: int, end: int, block: int) -> Iterator[tuple[int, int]]:
    """Runs of blocks from ``start`` to ``end`` that are not all zeros."""
    place, run = start, None
    while place < end:
        data = start + (_skip_hole(handle, place, end) - start) // block * block
        if data > place and run is not None:
            yield run, place - run
            run = None
        handle.seek(data)
        piece = handle.read(min(_PIECE, end - data))
        for at in range(0, len(piece), block):
            is_filled = bool(piece[at : at + block].strip(b"\0"))
            if is_filled and run is None:
                run = data + at
            elif not is_filled and run is not None:
                yield run, data + at - run
                run = None
        place = data + len(piece) if piece else end
    if run is not None:
        yield run, end - run


def _skip_hole(handle: IO[bytes], place: int, end: int) -> int:
    """Where the next bytes are that take room on this machine's disk; ``place`` where that is not known."""
    try:
        return min(end, os.lseek(handle.fileno(), place, os.SEEK_DATA))
    except OSError as error:
        return end if error.errno == errno.ENXIO else place
