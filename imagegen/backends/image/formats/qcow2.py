"""Compressed qcow2 on all processors: qemu-img compresses slices of the disk, whose clusters are joined.

qemu-img alone compresses one cluster after the other, or in an order that differs from run to run. The layout
is that of docs/interop/qcow2.rst in QEMU's sources: version 3, clusters of 64 KiB, refcounts of 16 bits.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from imagegen.backends.image.disk import copy_range
from imagegen.backends.image.parallel import run_jobs
from imagegen.errors import ImagegenError
from imagegen.run import Runner

CLUSTER = 1 << 16
#: of the disk, for one process; fixed, because the bytes of the image depend on it
SLICE_BYTES = 128 << 20

_MAGIC = 0x514649FB
_L2_ENTRIES = CLUSTER // 8
_REFCOUNTS = CLUSTER // 2
_COPIED = 1 << 63
_COMPRESSED = 1 << 62
#: a compressed cluster's entry: the host offset below this bit, from here on the count of further sectors
_SECTORS_SHIFT = 62 - (16 - 8)
_OFFSET_MASK = (1 << _SECTORS_SHIFT) - 1
#: the cluster of the first table
_L1 = 1
# byte offsets in the header
_L1_SIZE, _L1_OFFSET, _REFTABLE_OFFSET, _REFTABLE_CLUSTERS, _DISK_SIZE = 36, 40, 48, 56, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    """Bytes ``start`` to ``start + size`` of the disk, compressed into ``file``."""

    start: int
    size: int
    file: Path


def write_qcow2(runner: Runner, raw: Path, target: Path, work: Path) -> None:
    """Write the raw disk, whose size is in whole clusters, as a compressed qcow2 (zstd: QEMU 5.1 and later).

    ``work`` is a scratch folder on the same file system. Raises CommandError when qemu-img fails.
    """
    size = raw.stat().st_size
    slices = [
        _Slice(start=start, size=min(SLICE_BYTES, size - start), file=work / f"slice-{start}")
        for start in _find_slices(raw)
    ]
    run_jobs([partial(_compress, runner, raw, one) for one in slices], stop=runner.end_all, is_hasty=True)
    _join(slices, size, target)
    for one in slices:
        one.file.unlink()


def _find_slices(raw: Path) -> Iterator[int]:
    """Where the slices begin that are not one hole; the first is always among them, for its header."""
    with open(raw, "rb") as handle:
        end = handle.seek(0, os.SEEK_END)
        yield 0
        place = SLICE_BYTES
        while place < end:
            try:
                data = os.lseek(handle.fileno(), place, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole up to the end
                return
            place = max(place, data - data % SLICE_BYTES)
            yield place
            place += SLICE_BYTES


def _compress(runner: Runner, raw: Path, one: _Slice) -> None:
    name = str(raw).replace(",", ",,")
    source = f"driver=raw,offset={one.start},size={one.size},file.driver=file,file.filename={name}"
    argv = ["qemu-img", "convert", "-c", "--image-opts", "-O", "qcow2", "-o", "compression_type=zstd"]
    runner.run([*argv, source, str(one.file)])


def _join(slices: list[_Slice], size: int, target: Path) -> None:
    """One image of ``size`` bytes from its slices: new tables first, then everybody's clusters."""
    parts = [_read_part(one) for one in slices]
    layout = _Layout.plan(size, sum(part.used.count(1) for part in parts))
    entries = array("Q", bytes(layout.tables * CLUSTER))
    counts = array("H", bytes(layout.blocks * CLUSTER))
    counts[: layout.data] = array("H", [1]) * layout.data
    place = layout.data
    with open(target, "wb") as writer:
        for one, part in zip(slices, parts, strict=True):
            with open(one.file, "rb") as reader:
                moves, place = _copy_used(reader, writer, part.used, place)
            first = one.start // CLUSTER
            for number, entry in enumerate(part.entries):
                if hosts := _find_hosts(entry):
                    moved = entry + moves[hosts[0]] * CLUSTER
                    entries[first + number] = moved
                    for host in _find_hosts(moved):
                        counts[host] += 1
        l1 = array("Q", (((layout.l2 + index) * CLUSTER) | _COPIED for index in range(layout.tables)))
        reftable = array("Q", ((layout.counts + index) * CLUSTER for index in range(layout.blocks)))
        header = layout.fill_header(_read_header(slices[0].file), size)
        for where, words in ((_L1, l1), (layout.reftable, reftable), (layout.counts, counts)):
            _write(writer.fileno(), words, where)
        _write(writer.fileno(), entries, layout.l2)
        os.pwrite(writer.fileno(), header, 0)
        writer.truncate(place * CLUSTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where the tables lie, in clusters: behind the header, each behind the one before."""

    tables: int
    blocks: int
    reftable: int
    counts: int
    l2: int
    data: int

    @classmethod
    def plan(cls, size: int, used: int) -> _Layout:
        """For a disk of ``size`` bytes with ``used`` clusters of data."""
        tables = -(-size // (CLUSTER * _L2_ENTRIES))
        reftable = _L1 + -(-tables * 8 // CLUSTER)
        blocks = 0
        while True:
            counts = reftable + -(-blocks * 8 // CLUSTER)
            data = counts + blocks + tables
            if data + used <= blocks * _REFCOUNTS:
                break
            blocks += 1
        return cls(
            tables=tables, blocks=blocks, reftable=reftable, counts=counts, l2=counts + blocks, data=data
        )

    def fill_header(self, header: bytes, size: int) -> bytes:
        """The header of a slice, made that of the whole image."""
        whole = bytearray(header)
        struct.pack_into(">Q", whole, _DISK_SIZE, size)
        struct.pack_into(">I", whole, _L1_SIZE, self.tables)
        struct.pack_into(">Q", whole, _L1_OFFSET, _L1 * CLUSTER)
        struct.pack_into(">Q", whole, _REFTABLE_OFFSET, self.reftable * CLUSTER)
        struct.pack_into(">I", whole, _REFTABLE_CLUSTERS, self.counts - self.reftable)
        return bytes(whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What is in a slice: the entry of each of its clusters, and for each cluster of its file whether some
    entry names it.
    """

    entries: array[int]
    used: bytearray


def _read_part(one: _Slice) -> _Part:
    with open(one.file, "rb") as handle:
        entries = _read_entries(handle.fileno(), one)
    used = bytearray(-(-one.file.stat().st_size // CLUSTER))
    for entry in entries:
        for host in _find_hosts(entry):
            used[host] = 1
    return _Part(entries=entries, used=used)


def _read_header(file: Path) -> bytes:
    """The first cluster; raises ImagegenError when it is not what is known here."""
    with open(file, "rb") as handle:
        header = handle.read(CLUSTER)
    magic, version = struct.unpack_from(">II", header)
    (cluster_bits,) = struct.unpack_from(">I", header, 20)
    (refcount_order,) = struct.unpack_from(">I", header, 96)
    if (magic, version, cluster_bits, refcount_order) != (_MAGIC, 3, 16, 4):
        raise ImagegenError(f"qemu-img wrote {file.name} in another form of qcow2 than version 3 in 64 KiB")
    return header


def _read_entries(file: int, one: _Slice) -> array[int]:
    """The entry of every cluster of a slice; a table that is not there is all zeros."""
    header = _read_header(one.file)
    (count,) = struct.unpack_from(">I", header, _L1_SIZE)
    (place,) = struct.unpack_from(">Q", header, _L1_OFFSET)
    entries = array("Q")
    for table in _read(file, place, count * 8):
        offset = table & ~_COPIED
        entries += _read(file, offset, CLUSTER) if offset else array("Q", bytes(CLUSTER))
    return entries[: -(-one.size // CLUSTER)]


def _read(file: int, place: int, size: int) -> array[int]:
    words = array("Q", os.pread(file, size, place))
    if sys.byteorder == "little":
        words.byteswap()
    return words


def _write(file: int, words: array[int], cluster: int) -> None:
    if sys.byteorder == "little":
        words.byteswap()
    os.pwrite(file, words.tobytes(), cluster * CLUSTER)


def _find_hosts(entry: int) -> range:
    """The clusters of the file that an entry names: none for a hole, some for a compressed cluster."""
    if entry & _COMPRESSED:
        offset = entry & _OFFSET_MASK
        sectors = ((entry & ~_COMPRESSED) >> _SECTORS_SHIFT) + 1
        end = offset - offset % 512 + sectors * 512
        return range(offset // CLUSTER, -(-end // CLUSTER))
    first = (entry & ~_COPIED) // CLUSTER
    return range(first, first + 1) if first else range(0)


def _copy_used(reader: IO[bytes], writer: IO[bytes], used: bytearray, place: int) -> tuple[array[int], int]:
    """Copy the used clusters of a slice's file to ``place`` and behind it, without the slice's own tables.

    Returns by how many clusters each has moved, and the place behind the last.
    """
    size = reader.seek(0, os.SEEK_END)
    moves = array("q", bytes(8 * len(used)))
    start = used.find(1)
    while start >= 0:
        end = used.find(0, start)
        end = len(used) if end < 0 else end
        move = place - start
        moves[start:end] = array("q", [move]) * (end - start)
        count = min(end * CLUSTER, size) - start * CLUSTER
        copy_range(reader.fileno(), writer.fileno(), start * CLUSTER, count, move * CLUSTER)
        place += end - start
        start = used.find(1, end)
    return moves, place
