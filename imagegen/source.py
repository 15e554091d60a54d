"""Files → text → YAML nodes that know their place. Limits come before construction; scalars stay text.

The reader is libyaml's event stream, so nothing here or there recurses.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from imagegen.diagnostics import Report, Span, register_code
from imagegen.yamltree import (
    MappingNode,
    PlainText,
    ScalarNode,
    SequenceNode,
    TreeBuilder,
    YamlNode,
    shorten,
    to_data,
)

__all__ = [
    "MAX_BYTES",
    "MappingNode",
    "PlainText",
    "ScalarNode",
    "SequenceNode",
    "YamlNode",
    "display_name",
    "parse_yaml",
    "read_source",
    "shorten",
    "to_data",
]

MAX_BYTES = 4 * 1024 * 1024

UNREADABLE = register_code(
    "IMG001",
    "the file cannot be read",
    "The file is missing, is not a regular file (a folder, a pipe, a device), may not be read by you, "
    "or changed while it was read. imagegen reads regular files only and never waits for a pipe.",
)
TOO_LARGE = register_code(
    "IMG002",
    "the file is too large",
    f"A file may have {MAX_BYTES // 1024 // 1024} MiB. A cluster of 10,000 nodes needs about 1 MiB, so "
    "a larger file is most likely not a cluster file. It is refused before it is read.",
)
NOT_UTF8 = register_code(
    "IMG003",
    "the file is not UTF-8",
    "Cluster files and profiles are UTF-8 text. A UTF-8 byte order mark is accepted; UTF-16 and UTF-32"
    " are not.",
)
BAD_CHARACTER = register_code(
    "IMG004",
    "a character is not allowed",
    "Control characters, direction-changing characters (they make a text look different from what it "
    "says) and line breaks other than LF and CRLF are refused everywhere in the file. In a "
    "double-quoted text they can be "
    r'written as escapes, such as "\u2028".',
)
SYNTAX = register_code(
    "IMG005",
    "the text is not valid YAML",
    "The place is where the reader stopped; the mistake is there or shortly before. Common causes: a "
    "tab in the indentation, a colon inside a text without quotes, a bracket or a quote that is not "
    "closed.",
)


def display_name(path: Path) -> str:
    """``path`` as it is shown in findings: always printable as UTF-8."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")


def read_source(path: Path, report: Report) -> str | None:
    """The text of a regular UTF-8 file of at most MAX_BYTES, kept in ``report.sources`` for excerpts.

    None with findings in ``report`` when it cannot be had. Never blocks on a pipe or opens a device.
    """
    file = display_name(path)
    raw = _read_bytes(path, file, report)
    if raw is None:
        return None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")) or b"\x00" in raw[:4]:
        report.error(
            NOT_UTF8, "wanted UTF-8, got UTF-16 or UTF-32", Span(file, 1, 1), hint="save it as UTF-8"
        )
        return None
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        line, column = _place(before, len(before))
        report.error(
            NOT_UTF8,
            f"wanted UTF-8, got the byte 0x{raw[error.start]:02x}",
            Span(file, line, column),
            hint="save it as UTF-8",
        )
        return None
    report.sources[file] = text
    return text


def _read_bytes(path: Path, file: str, report: Report) -> bytes | None:
    place = Span(file, 1, 1)
    try:
        if not _check_regular(os.stat(path), path, place, report):
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            before = os.fstat(descriptor)
            if not _check_regular(before, path, place, report):
                return None
            raw = stream.read(MAX_BYTES + 1)
            after = os.fstat(descriptor)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        report.error(UNREADABLE, f"cannot be read: {reason.lower()}", place, hint=_suggest_file(path))
        return None
    if len(raw) > MAX_BYTES:
        _report_size(len(raw), place, report)
        return None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        report.error(UNREADABLE, "changed while it was read", place, hint="run again when it is written")
        return None
    return raw


def _check_regular(status: os.stat_result, path: Path, place: Span, report: Report) -> bool:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    )
    for is_kind, kind in kinds:
        if is_kind(status.st_mode):
            hint = "name a file"
            if kind == "a folder" and (path / "cluster.yaml").is_file():
                hint = f"did you mean {display_name(path / 'cluster.yaml')}?"
            report.error(UNREADABLE, f"wanted a regular file, got {kind}", place, hint=hint)
            return False
    if status.st_size > MAX_BYTES:
        _report_size(status.st_size, place, report)
        return False
    return True


def _report_size(size: int, place: Span, report: Report) -> None:
    wanted = f"wanted at most {MAX_BYTES // 1024 // 1024} MiB"
    report.error(
        TOO_LARGE, f"{wanted}, got {size / 1024 / 1024:.1f} MiB", place, hint="is this the right file?"
    )


def _suggest_file(path: Path) -> str | None:
    try:
        found = sorted(p.name for p in path.parent.iterdir() if p.suffix in {".yaml", ".yml"})[:3]
    except (OSError, ValueError):
        return None
    return f"the folder has {', '.join(found)}" if found else None


# Refused everywhere: C0 except tab and line feed, DEL, C1, Unicode line breaks, bidi controls, a second BOM.
_REFUSED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]|\r(?!\n)"
)
_DIRECTIVE = re.compile(r"^%", re.MULTILINE)
_MAX_CHARACTER_FINDINGS = 20


def parse_yaml(text: str, file: str, report: Report) -> YamlNode | None:
    """The one document of ``text`` as nodes; None with located findings in ``report`` when there is an error.

    A duplicate key or a tag is reported and reading goes on; a syntax error or a limit ends it.
    """
    before = sum(1 for f in report.findings if f.severity.value == "error")
    report.sources.setdefault(file, text)
    for count, match in enumerate(_REFUSED.finditer(text)):
        if count == _MAX_CHARACTER_FINDINGS:
            break
        line, column = _place(text, match.start())
        what = "a lone carriage return" if match[0] == "\r" else f"the character U+{ord(match[0]):04X}"
        report.error(
            BAD_CHARACTER, f"{what} is not allowed", Span(file, line, column, column + 1), hint="remove it"
        )
    directive = _DIRECTIVE.search(text)
    if directive:
        line, column = _place(text, directive.start())
        hint = "remove the line; inside a text, do not start a line with %"
        report.error(
            SYNTAX, "directives (%) are not used here", Span(file, line, column, column + 1), hint=hint
        )
    if sum(1 for f in report.findings if f.severity.value == "error") > before:
        return None
    builder = TreeBuilder(file, report)
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        root = builder.build(yaml.parse(text, Loader=loader))
    except yaml.YAMLError as error:
        _report_syntax(error, text, file, report)
        return None
    failed = sum(1 for f in report.findings if f.severity.value == "error") > before
    return None if failed else root


def _place(text: str, index: int) -> tuple[int, int]:
    return text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1


_SYNTAX_HINTS = (
    ("mapping values are not allowed", "put a text that contains ': ' in quotes, or check the indentation"),
    ("could not find expected ':'", "a key needs a colon and a space after it"),
    ("did not find expected ',' or ']'", "close the list with ] and put commas between its items"),
    ("did not find expected ',' or '}'", "close the mapping with } and put commas between its entries"),
    ("did not find expected key", "check the indentation of this line against the lines above"),
    ("did not find expected '-' indicator", "items of one list start in the same column"),
    ("unexpected end of stream", "a quote is not closed"),
    ("unknown escape character", "use single quotes for a text with backslashes"),
    ("found unknown escape", "use single quotes for a text with backslashes"),
    ("undefined tag handle", "remove the tag; put a text that begins with ! in quotes"),
)


def _report_syntax(error: yaml.YAMLError, text: str, file: str, report: Report) -> None:
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "not valid YAML")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    character = _character_at(text, line, column)
    hint = next((advice for words, advice in _SYNTAX_HINTS if words in problem), None)
    if "cannot start any token" in problem:
        problem = "a tab is not allowed here" if character == "\t" else f"{character!r} cannot begin a value"
        hint = "indent with spaces" if character == "\t" else "put the text in quotes"
    context, context_mark = getattr(error, "context", None), getattr(error, "context_mark", None)
    also: tuple[Span, ...] = ()
    if context and context_mark is not None and context_mark.line + 1 != line:
        also = (Span(file, context_mark.line + 1, context_mark.column + 1),)
    message = f"{problem[:1].lower()}{problem[1:]}" + (f" ({context})" if context else "")
    report.error(SYNTAX, message, Span(file, line, column, column + 1), hint=hint, also=also)


def _character_at(text: str, line: int, column: int) -> str:
    rows = text.split("\n", line)
    return rows[line - 1][column - 1 : column] if len(rows) >= line else ""
