"""NoCloud seed ISOs: label ``cidata``, Rock Ridge and Joliet, files 0400, the same bytes everywhere, always.

pycdlib lays an image out once for every tuple of file sizes; further images of these sizes only differ in
the file bodies and are spliced together. That takes the cost of a seed from 1 ms to a few microseconds.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import pycdlib
from pycdlib import dates, headervd, utils
from pycdlib import pycdlib as core

LABEL = "cidata"
SECTOR = 2048

#: regular file, readable by root alone: a seed disk stays attached and user-data is never meant for users
_FILE_MODE = 0o100400


@dataclass(frozen=True, slots=True)
class _Layout:
    """``pieces`` are the bytes between file bodies; ``order`` names the bodies that go between them."""

    pieces: tuple[bytes, ...]
    order: tuple[str, ...]


def build_seed_iso(files: Mapping[str, bytes], *, epoch: int) -> bytes:
    """An ISO 9660 image with ``files`` at its root, every date being ``epoch`` (seconds since 1970, to 2155).

    Names are those of NoCloud (``user-data``, ``meta-data``, ``network-config``, ``vendor-data``); their
    order does not matter. Raises ValueError for a name that ISO 9660 with Joliet cannot hold.
    """
    names = sorted(files)
    layout = _lay_out(tuple((name, len(files[name])) for name in names), epoch)
    parts = [layout.pieces[0]]
    for name, piece in zip(layout.order, layout.pieces[1:], strict=True):
        parts.append(files[name])
        parts.append(piece)
    return b"".join(parts)


@lru_cache(maxsize=64)
def _lay_out(sizes: tuple[tuple[str, int], ...], epoch: int) -> _Layout:
    iso = pycdlib.PyCdlib()
    with _frozen_clock(epoch):
        iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL, app_ident_str="IMAGEGEN")
        for name, size in sizes:
            iso_name = _iso_name(name)
            iso.add_fp(
                io.BytesIO(bytes(size)),
                size,
                f"/{iso_name}",
                rr_name=name,
                joliet_path=f"/{name}",
                file_mode=_FILE_MODE,
            )
        # The volume size field is final only now: extents are assigned when the image is written.
        out = io.BytesIO()
        iso.write_fp(out)
    image = out.getvalue()
    starts = [
        (iso.get_record(rr_path=f"/{name}").extent_location() * SECTOR, name, size) for name, size in sizes
    ]
    iso.close()
    pieces: list[bytes] = []
    order: list[str] = []
    end = 0
    for start, name, size in sorted(starts):
        if size == 0:
            continue
        pieces.append(image[end:start])
        order.append(name)
        end = start + size
    pieces.append(image[end:])
    return _Layout(tuple(pieces), tuple(order))


def _iso_name(name: str) -> str:
    """The plain ISO 9660 name: upper case, ``_`` for ``-``. Systems that matter read Rock Ridge or Joliet."""
    stem = name.upper().replace("-", "_")
    if not stem.isascii() or not stem.replace("_", "").isalnum() or len(stem) > 28:
        raise ValueError(f"wanted the name of a NoCloud file, got {name!r}")
    return f"{stem}.;1"


_clock_lock = threading.Lock()
_CLOCKED: tuple[Any, ...] = (core, headervd, dates, utils)


@contextmanager
def _frozen_clock(epoch: int) -> Iterator[None]:
    """pycdlib reads the clock and the time zone in many places and takes no argument for either."""
    clock = SimpleNamespace(
        time=lambda: float(epoch), gmtime=time.gmtime, localtime=time.gmtime, strftime=time.strftime
    )
    with _clock_lock:
        for module in _CLOCKED:
            module.time = clock
        try:
            yield
        finally:
            for module in _CLOCKED:
                module.time = time
