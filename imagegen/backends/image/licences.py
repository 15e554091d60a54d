"""Licences of Debian packages, from copyright files in the machine-readable form (DEP 5).

Says what a file says: a name that SPDX does not know stays a name, and a file in another form says nothing.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
_FORMAT = re.compile(r"^Format(-Specification)?:.*(copyright-format|dep5)", re.IGNORECASE)
_GNU = re.compile(r"(A?GPL|LGPL|GFDL)-(\d+(?:\.\d+)?)(\+)?", re.IGNORECASE)
#: Debian's short names that SPDX has under another name; where they are one licence for sure
_SPDX = {"expat": "MIT"}
_EXCEPTIONS = {"linux-syscall-note exception": "Linux-syscall-note"}
_PATH = re.compile(r"(?:\./)?usr/share/doc/([^/]+)/copyright")


@dataclass(frozen=True, slots=True)
class Licences:
    """Either one SPDX expression, or names of which not all are SPDX's."""

    expression: str | None
    names: tuple[str, ...] = ()


def read_licences(archive: Path) -> dict[str, Licences]:
    """By package name, from a tar archive of ``usr/share/doc/PACKAGE/copyright``."""
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            match = _PATH.fullmatch(member.name)
            stream = tar.extractfile(member) if match and member.isreg() else None
            if match and stream is not None:
                licences = parse_copyright(stream.read().decode("utf-8", "replace"))
                if licences is not None:
                    found[match[1]] = licences
    return found


def parse_copyright(text: str) -> Licences | None:
    """The licences of all files of a package, or None for a file in another form or without any."""
    if not _FORMAT.match(text.lstrip("\ufeff\n ")):
        return None
    names = tuple(sorted(set(_list_short_names(text)), key=str.lower))
    if not names:
        return None
    expressions = [translate_name(name) for name in names]
    known = [expression for expression in expressions if expression is not None]
    if len(known) < len(names):
        return Licences(None, tuple(one or name for one, name in zip(expressions, names, strict=True)))
    parts = [f"({one})" if " OR " in one and len(known) > 1 else one for one in dict.fromkeys(known)]
    return Licences(" AND ".join(sorted(parts)))


def _list_short_names(text: str) -> Iterator[str]:
    """The first lines of the License fields of paragraphs that name files, or of the header."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = {
            name.lower(): value.strip()
            for line in paragraph.splitlines()
            if line[:1] not in (" ", "\t", "#")
            for name, colon, value in [line.partition(":")]
            if colon
        }
        if fields.get("license") and fields.keys() & {"files", "format"}:
            yield " ".join(fields["license"].split())


def translate_name(name: str) -> str | None:
    """An SPDX expression for a License field's synopsis, or None when SPDX does not have all of its names."""
    if "," in name:
        return None
    alternatives = []
    for alternative in re.split(r"\s+or\s+", name, flags=re.IGNORECASE):
        parts = [_translate_one(part) for part in re.split(r"\s+and\s+", alternative, flags=re.IGNORECASE)]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        alternatives.append(" AND ".join(known) if len(known) == 1 else f"({' AND '.join(known)})")
    if len(alternatives) == 1:
        return alternatives[0].strip("()")
    return " OR ".join(alternatives)


def _translate_one(name: str) -> str | None:
    from cyclonedx.spdx import fixup_id

    name, _, exception = name.partition(" with ")
    if exception and exception.lower() not in _EXCEPTIONS:
        return None
    if gnu := _GNU.fullmatch(name):
        version = gnu[2] if "." in gnu[2] else f"{gnu[2]}.0"
        if gnu[1].upper() == "GFDL":
            version = gnu[2]
        name = f"{gnu[1].upper()}-{version}-{'or-later' if gnu[3] else 'only'}"
    spdx: str | None = fixup_id(_SPDX.get(name.lower(), name))
    return f"{spdx} WITH {_EXCEPTIONS[exception.lower()]}" if spdx and exception else spdx
