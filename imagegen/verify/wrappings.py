"""How bytes are wrapped in text: escapes, percent signs, UTF-16 and UTF-32, base64, base32,
hexadecimal digits.

Pure and in memory; ``archives`` knows compressed files and archives.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from imagegen.verify.detectors import is_text


@dataclass(frozen=True, slots=True)
class View:
    """What a stretch of bytes says when it is unwrapped; ``start`` to ``end`` is where it was."""

    name: str
    start: int
    end: int
    data: bytes


#: between two lines of base64: a line break, alone or escaped, with what JSON, YAML, shells and code add
_BREAK = rb"[ \t\"'\\,+;|>]{0,8}\r?\n[ \t\"'#>|+-]{0,40}"
_RUN = re.compile(
    rb"[A-Za-z0-9+/]{16,}(?:" + _BREAK + rb"[A-Za-z0-9+/]{16,})*(?:" + _BREAK + rb"[A-Za-z0-9+/]+)?={0,2}"
)
#: lines of 4 to 15 letters, which must all have one length
_SHORT_LINES = re.compile(
    rb"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{4,15}(?:" + _BREAK + rb"[A-Za-z0-9+/]{1,15}){4,}={0,2}"
)
_BASE32_RUN = re.compile(
    rb"(?<![A-Za-z0-9])[A-Z2-7]{16,}(?:"
    + _BREAK
    + rb"[A-Z2-7]{16,})*(?:"
    + _BREAK
    + rb"[A-Z2-7]+)?(?![A-Za-z0-9])"
)
_NOT_BASE32 = re.compile(rb"[^A-Z2-7]")
_URL_RUN = re.compile(rb"[A-Za-z0-9_-]{40,}={0,2}")
_NOISE = re.compile(rb"[^A-Za-z0-9+/]")
_MIN_RUN = 32

#: how base64 of a PEM header (in its three alignments), of that once more, and of gzip data look; with the
#: number of letters before the mark that belong to the same group of four
_MARKS = (
    (b"LS0tLS1CRUdJTi", 0),
    (b"0tLS0tQkVHSU4g", 2),
    (b"tLS0tLUJFR0lOI", 3),
    (b"TFMwdExTMUNSVWRKVG", 0),
    (b"H4sIA", 0),
)
_BINARY_RUN = re.compile(rb"[A-Za-z0-9+/\r\n]+={0,2}")
_HEX_MARKS = (b"2d2d2d2d2d424547494e", b"2D2D2D2D2D424547494E")
_HEX_RUN = re.compile(rb"[0-9A-Fa-f\s]+")
#: 64 bytes and more, in pairs of digits with a colon or white space between; a digest is shorter
_HEX_ROWS = re.compile(rb"(?<![0-9A-Fa-f])[0-9A-Fa-f]{2}(?:[:\s]{0,3}[0-9A-Fa-f]{2}){63,}")
_ESCAPES = re.compile(rb"\\(?:([nrt/\"\\])|u00([0-7][0-9a-fA-F])|x([0-7][0-9a-fA-F]))")
_PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def list_views(data: bytes) -> Iterator[View]:
    """Every other way to read ``data``; each is worth a look of its own."""
    for name, wide in (("utf-16", _read_utf16(data)), ("utf-32", _read_utf32(data))):
        if wide is not None:
            yield View(name, 0, len(data), wide)
    if is_text(data):
        if b"\\n" in data or b"\\u00" in data or b"\\x2" in data:
            yield View("escaped", 0, len(data), _ESCAPES.sub(_replace_escape, data))
        if b"%0A" in data or b"%2B" in data or b"%0a" in data or b"%2b" in data:
            yield View("percent-encoded", 0, len(data), unquote_to_bytes(data))
        yield from _list_base64(data)
        yield from _list_base32(data)
    else:
        yield from _list_marked_base64(data)
    yield from _list_hex(data)
    if is_text(data):
        yield from _list_hex_rows(data)


def _replace_escape(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return _PLAIN.get(match[1], match[1])
    return bytes([int(match[2] or match[3], 16)])


def _read_utf16(data: bytes) -> bytes | None:
    """The ASCII part of UTF-16 text with or without a byte order mark, else None."""
    sample = data[:4096]
    if len(sample) < 16:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > 0.6 * half and even < 0.05 * half:
        encoding = "utf-16-le"
    elif even > 0.6 * half and odd < 0.05 * half:
        encoding = "utf-16-be"
    else:
        return None
    return data.decode(encoding, errors="replace").encode("utf-8", errors="replace")


def _read_utf32(data: bytes) -> bytes | None:
    """The same of UTF-32: three of four bytes are zero, and it is always the same three."""
    sample = data[: len(data) // 4 * 4][:4096]
    if len(sample) < 32:
        return None
    zeros = [sample[place::4].count(0) / (len(sample) // 4) for place in range(4)]
    for encoding, places in (("utf-32-le", (0, 1, 2, 3)), ("utf-32-be", (3, 2, 1, 0))):
        letters, *others = (zeros[place] for place in places)
        if letters < 0.05 and min(others) > 0.6:
            return data.decode(encoding, errors="replace").encode("utf-8", errors="replace")
    return None


def _list_base64(data: bytes) -> Iterator[View]:
    for match in _RUN.finditer(data):
        run = match[0]
        # digests, path names and rows of one letter are not base64 of anything
        if len(run) >= _MIN_RUN and not run.islower() and not run.isupper():
            yield from _decode(match.start(), match.end(), _NOISE.sub(b"", run))
    for match in _SHORT_LINES.finditer(data):
        letters = _NOISE.sub(b"", match[0])
        widths = {len(_NOISE.sub(b"", line)) for line in match[0].splitlines()[:-1]}
        if len(widths) == 1 and len(letters) >= _MIN_RUN and not letters.islower() and not letters.isupper():
            yield from _decode(match.start(), match.end(), letters)
    for match in _URL_RUN.finditer(data):
        run = match[0].rstrip(b"=")
        if (b"-" in run or b"_" in run) and not run.islower() and not run.isupper():
            yield from _decode(match.start(), match.end(), run.replace(b"-", b"+").replace(b"_", b"/"))


def _list_base32(data: bytes) -> Iterator[View]:
    """RFC 4648 in capitals; a run of letters alone is a word or a constant's name."""
    for match in _BASE32_RUN.finditer(data):
        letters = _NOT_BASE32.sub(b"", match[0])
        letters = letters[: len(letters) // 8 * 8]
        if len(letters) >= _MIN_RUN and not letters.isalpha():
            yield View("base32", match.start(), match.end(), base64.b32decode(letters))


def _list_marked_base64(data: bytes) -> Iterator[View]:
    """In programs and other binary data only what base64 is sure to hold a key or an archive."""
    for mark, shift in _MARKS:
        at = data.find(mark)
        while at >= 0:
            match = _BINARY_RUN.match(data, max(0, at - shift))
            end = max(at + len(mark), match.end()) if match else at + len(mark)
            yield from _decode(at - shift, end, _NOISE.sub(b"", data[max(0, at - shift) : end]))
            at = data.find(mark, end)


def _decode(start: int, end: int, letters: bytes) -> Iterator[View]:
    letters = letters[: len(letters) - 1] if len(letters) % 4 == 1 else letters
    try:
        decoded = base64.b64decode(letters + b"=" * (-len(letters) % 4))
    except binascii.Error:
        return
    yield View("base64", start, end, decoded)


def _list_hex(data: bytes) -> Iterator[View]:
    for mark in _HEX_MARKS:
        at = data.find(mark)
        while at >= 0:
            match = _HEX_RUN.match(data, at)
            end = match.end() if match else at + len(mark)
            digits = b"".join(data[at:end].split())
            yield View("hexadecimal", at, end, binascii.unhexlify(digits[: len(digits) // 2 * 2]))
            at = data.find(mark, max(end, at + 1))


def _list_hex_rows(data: bytes) -> Iterator[View]:
    """What openssl and xxd print."""
    for match in _HEX_ROWS.finditer(data):
        digits = match[0].translate(None, b": \t\r\n\v\f")
        yield View("hexadecimal", match.start(), match.end(), binascii.unhexlify(digits))
