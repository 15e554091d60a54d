"""Compressed files and archives, opened by content and within limits: gzip, xz, lzma, bzip2, zstd, zlib; tar,
cpio, zip, ar.

Everything here comes from somebody else, so sizes, numbers and depths are counted before they are believed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from imagegen.errors import ImagegenError

_PIECE = 1 << 20
_SPOOL = 32 << 20
_HEAD = 512

_COMPRESSED = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
#: formats without a mark of their own: what looks like one may be something else
UNMARKED = frozenset({"lzma", "zlib"})
_CPIO = (b"070701", b"070702")
_AR = b"!<arch>\n"
#: a file with one of these inside is damaged, which is no fault of ours: what could be read was read
DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


class LimitError(ImagegenError):
    """An archive wants more room, members or depth than a scan gives it."""


@dataclass(slots=True)
class Budget:
    """What is left to unwrap in one image; ``take`` raises LimitError when it is used up."""

    bytes_left: int = 8 << 30
    members_left: int = 500_000

    def take(self, size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise LimitError("more than 8 GiB unwrapped")

    def take_member(self) -> None:
        self.members_left -= 1
        if self.members_left < 0:
            raise LimitError("more than 500,000 members in archives")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive; ``stream`` is open until the next member is asked for."""

    name: str
    stream: IO[bytes]


def name_compression(head: bytes) -> str | None:
    """The format of a compressed stream, from its first 16 bytes or more; ``UNMARKED`` ones are a guess."""
    marked = next((name for magic, name in _COMPRESSED if head.startswith(magic)), None)
    if marked is not None:
        return marked
    if _is_lzma(head):
        return "lzma"
    return "zlib" if _is_zlib(head) else None


def _is_lzma(head: bytes) -> bool:
    """The header of ``.lzma`` files: properties, a dictionary of 2^n or 2^n + 2^(n-1) bytes, a size below
    256 GiB or none, the way xz tells them (liblzma, alone_decoder.c); then the coder's first byte, zero.
    """
    if len(head) < 14 or head[0] >= 9 * 5 * 5 or head[13]:
        return False
    dictionary, size = int.from_bytes(head[1:5], "little"), head[5:13]
    top = 1 << max(0, dictionary.bit_length() - 1)
    is_round = dictionary >= 4096 and dictionary in (top, top + top // 2)
    return is_round and (size == b"\xff" * 8 or 0 < int.from_bytes(size, "little") < 1 << 38)


def _is_zlib(head: bytes) -> bool:
    """RFC 1950's two bytes of a header without a dictionary, and what follows can be unpacked."""
    if (
        len(head) < 8
        or head[0] & 0x0F != 8
        or head[0] > 0x78
        or head[1] & 0x20
        or (head[0] << 8 | head[1]) % 31
    ):
        return False
    try:
        zlib.decompressobj().decompress(head)
    except zlib.error:
        return False
    return True


def name_archive(head: bytes) -> str | None:
    """``tar``, ``cpio``, ``ar``, ``zip`` or None, from the first 512 bytes."""
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(_CPIO):
        return "cpio"
    if head.startswith(_AR):
        return "ar"
    return "zip" if head.startswith(b"PK\x03\x04") else None


def decompress(stream: IO[bytes], size: int, budget: Budget) -> IO[bytes]:
    """The content of a compressed stream of ``size`` bytes, in memory or in a temporary file.

    A damaged stream gives what could be read. Raises LimitError for a bomb: more than 64 MiB and 100 times
    its size.
    """
    limit = max(64 << 20, 100 * size)
    stream.seek(0)
    kind = name_compression(stream.read(_HEAD))
    stream.seek(0)
    plain = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - the caller closes it
    try:
        reader = _open_compressed(kind or "", stream)
        written = 0
        while piece := reader.read(_PIECE):
            written += len(piece)
            budget.take(len(piece))
            if written > limit:
                raise LimitError(f"unpacks to more than {limit >> 20} MiB from {size:,} bytes")
            plain.write(piece)
    except LimitError:
        plain.close()
        raise
    except (*DAMAGED, _zstd_error()):
        pass
    plain.seek(0)
    return cast("IO[bytes]", plain)


def _open_compressed(kind: str, stream: IO[bytes]) -> IO[bytes]:
    if kind == "gzip":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream, mode="rb"))
    if kind in ("xz", "lzma"):
        return cast("IO[bytes]", lzma.LZMAFile(stream))
    if kind == "bzip2":
        return cast("IO[bytes]", bz2.BZ2File(stream))
    if kind == "zlib":
        return cast("IO[bytes]", io.BufferedReader(_Zlib(stream)))
    import zstandard

    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
        stream, read_across_frames=True, closefd=False
    )
    return cast("IO[bytes]", reader)


class _Zlib(io.RawIOBase):
    """A bare zlib stream, unpacked piece by piece."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._unpacker = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = b""
        while not piece and not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._stream.read(_PIECE)
            if not packed:
                break
            piece = self._unpacker.decompress(packed, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError


def list_members(kind: str, stream: IO[bytes], budget: Budget) -> Iterator[Member]:
    """The regular files of an archive; ``kind`` as ``name_archive`` says. Raises LimitError, and one of
    ``DAMAGED`` where the archive breaks off.
    """
    stream.seek(0)
    readers = {"tar": _list_tar, "cpio": _list_cpio, "zip": _list_zip, "ar": _list_ar}
    for member in readers[kind](stream, budget):
        budget.take_member()
        yield member


def _list_tar(stream: IO[bytes], budget: Budget) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r:", errorlevel=0) as archive:
        for info in archive:
            content = archive.extractfile(info) if info.isreg() else None
            if content is not None:
                # a sparse member may be far larger than the archive
                budget.take(info.size)
                yield Member(info.name, content)
            archive.members.clear()  # type: ignore[attr-defined]


def _list_zip(stream: IO[bytes], budget: Budget) -> Iterator[Member]:
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if info.is_dir() or info.flag_bits & 1:
                continue
            if info.file_size > max(64 << 20, 100 * info.compress_size):
                raise LimitError(f"{info.filename} unpacks to {info.file_size >> 20} MiB")
            budget.take(info.file_size)
            with archive.open(info) as content, tempfile.SpooledTemporaryFile(max_size=_SPOOL) as plain:
                # zipfile stops at the size that the directory names
                while piece := content.read(_PIECE):
                    plain.write(piece)
                plain.seek(0)
                yield Member(info.filename, cast("IO[bytes]", plain))


def _list_cpio(stream: IO[bytes], budget: Budget) -> Iterator[Member]:
    """The "newc" format of initial RAM disks (cpio(5)): several archives may follow each other, the last one
    compressed; that rest comes as a member of its own.
    """
    while True:
        start = stream.tell()
        header = stream.read(110)
        if not header.startswith(_CPIO):
            yield from _read_rest(stream, start, header, budget)
            return
        size, name_size = int(header[54:62], 16), int(header[94:102], 16)
        if name_size > 4096:
            raise ValueError("a cpio name of more than 4096 bytes")
        name = stream.read(name_size).rstrip(b"\0").decode(errors="replace")
        stream.seek(-(110 + name_size) % 4, 1)
        if name != "TRAILER!!!" and (int(header[14:22], 16) & 0o170000) == 0o100000:
            yield from _read_member(name, stream, size, budget)
            stream.seek(-size % 4, 1)
        else:
            stream.seek(size + -size % 4, 1)
        if name == "TRAILER!!!":
            _skip_padding(stream)


def _list_ar(stream: IO[bytes], budget: Budget) -> Iterator[Member]:
    """Debian's packages and static libraries (deb(5), ar(5))."""
    stream.seek(len(_AR))
    while len(header := stream.read(60)) == 60:
        if header[58:] != b"`\n":
            raise ValueError("an ar header that does not end as one")
        size = int(header[48:58])
        name = header[:16].decode(errors="replace").rstrip().rstrip("/")
        yield from _read_member(name, stream, size, budget)
        stream.seek(size % 2, 1)


def _read_member(name: str, stream: IO[bytes], size: int, budget: Budget) -> Iterator[Member]:
    budget.take(size)
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL) as plain:
        left = size
        while left and (piece := stream.read(min(left, _PIECE))):
            plain.write(piece)
            left -= len(piece)
        plain.seek(0)
        yield Member(name, cast("IO[bytes]", plain))


def _skip_padding(stream: IO[bytes]) -> None:
    while block := stream.read(_HEAD):
        rest = block.lstrip(b"\0")
        if rest:
            stream.seek(-len(rest), 1)
            return


def _read_rest(stream: IO[bytes], start: int, header: bytes, budget: Budget) -> Iterator[Member]:
    if not header.strip(b"\0"):
        return
    stream.seek(start)
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL) as plain:
        while piece := stream.read(_PIECE):
            budget.take(len(piece))
            plain.write(piece)
        plain.seek(0)
        yield Member("(rest)", cast("IO[bytes]", plain))
