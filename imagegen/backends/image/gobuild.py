"""The modules of a Go program, as the Go linker wrote them into it (debug/buildinfo, Go 1.18 and newer)."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"\xff Go buildinf:"
_HEADER = 32
#: the flag that the strings follow the header; older programs hold pointers to them
_INLINE = 2
#: what the linker puts around the list of modules, so that it can be found
_FRAME = 16


@dataclass(frozen=True, slots=True)
class Module:
    """``version`` is such as ``v1.2.3``, or ``(devel)`` for what was built from a working tree; ``h1`` the
    sum of its files in go.sum's form, empty where there is none.
    """

    path: str
    version: str
    h1: str = ""


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """``path`` is the package of the program, ``go`` the toolchain's version, such as ``go1.24.4``."""

    go: str
    path: str
    main: Module | None
    dependencies: tuple[Module, ...]


def read_build_info(program: Path) -> BuildInfo | None:
    """None for what is not a Go program, or one of before Go 1.18."""
    with open(program, "rb") as handle:
        if handle.read(4) != b"\x7fELF":
            return None
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            place = data.find(_MAGIC)
            # the linker aligns it; other places are constants of programs that look for it
            while place >= 0 and place % 16:
                place = data.find(_MAGIC, place + 1)
            if place < 0 or not data[place + 15] & _INLINE:
                return None
            go, place = _read_string(data, place + _HEADER)
            modules, _ = _read_string(data, place)
    return _parse(go.decode("utf-8", "replace"), modules[_FRAME:-_FRAME].decode("utf-8", "replace"))


def _read_string(data: mmap.mmap, place: int) -> tuple[bytes, int]:
    """A string behind its length, which is a varint (encoding/binary)."""
    size = shift = 0
    while True:
        byte = data[place]
        place += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift > 35:
            break
    return data[place : place + size], place + size


def _parse(go: str, text: str) -> BuildInfo:
    path, main, dependencies = "", None, []
    for kind, words in _read_lines(text):
        if kind == "path" and words:
            path = words[0]
        elif kind in {"mod", "dep", "=>"} and len(words) >= 2:
            module = Module(words[0], words[1], words[2] if len(words) > 2 else "")
            if kind == "mod":
                main = module
            elif kind == "dep":
                dependencies.append(module)
            elif dependencies:
                # what stands in for the module above
                dependencies[-1] = module
    return BuildInfo(go, path, main, tuple(dependencies))


def _read_lines(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        kind, *words = line.split("\t")
        yield kind, words
