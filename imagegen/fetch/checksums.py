"""The checksum files of release sites: a bare sum, coreutils lines, BSD lines. SHA-256 only."""

from __future__ import annotations

import re

#: what release sites publish is a few kilobytes
MAX_CHECKSUM_FILE = 1 << 20

_HEX = r"[0-9A-Fa-f]{64}"
_BARE = re.compile(rf"\\?({_HEX})")
_COREUTILS = re.compile(rf"\\?({_HEX})[ \t]+[ *]?(\S.*)")
_BSD = re.compile(rf"SHA2?-?256[ ]?\((.+)\)[ ]?=[ ]?({_HEX})")


class ChecksumError(ValueError):
    """The text does not give exactly one SHA-256 sum for the file."""


def parse_checksum(text: str, file_name: str) -> str:
    """The SHA-256 of ``file_name``, 64 lower-case hex digits, from a checksum file; raises ChecksumError.

    Reads ``SUM``, ``SUM  NAME``, ``SUM *NAME`` and ``SHA256 (NAME) = SUM``; directories before a name are
    ignored. A lone line without another file's name is taken as the sum of ``file_name``.
    """
    lines = [line.strip().lstrip("\ufeff") for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "-----", "Hash:"))]
    found: set[str] = set()
    others: list[str] = []
    for line in lines:
        if match := _BSD.fullmatch(line):
            name, digest = match.group(1), match.group(2)
        elif match := _COREUTILS.fullmatch(line):
            digest, name = match.group(1), match.group(2)
        elif len(lines) == 1 and (match := _BARE.fullmatch(line)):
            return match.group(1).lower()
        else:
            continue
        if name.rpartition("/")[2] == file_name:
            found.add(digest.lower())
        else:
            others.append(name)
    if len(found) == 1:
        return found.pop()
    if found:
        raise ChecksumError(f"the checksum file names {file_name} with {len(found)} different sums")
    if others:
        raise ChecksumError(f"the checksum file does not name {file_name}, only {', '.join(others[:3])}")
    raise ChecksumError("the checksum file holds no SHA-256 sum")
