"""YAML text → nodes that know their place. Limits come before construction; scalars stay text.

What a plain ``no`` or ``0644`` means is for the schema that reads it, not for YAML: a scalar is its text and whether
it was written without quotes. The reader is libyaml's event stream, so nothing here or there recurses.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from imagegen.diagnostics import Report, Span, register_code

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64
#: nodes after aliases and merge keys are followed; a cluster of 10,000 nodes has about 120,000
MAX_NODES = 300_000

UNREADABLE = register_code(
    "IMG001",
    "the file cannot be read",
    "The file is missing, is not a regular file (a folder, a pipe, a device), may not be read by you, or changed "
    "while it was read. imagegen reads regular files only and never waits for a pipe.",
)
TOO_LARGE = register_code(
    "IMG002",
    "the file is too large",
    f"A file may have {MAX_BYTES // 1024 // 1024} MiB. A cluster of 10,000 nodes needs about 1 MiB, so a larger "
    "file is most likely not a cluster file. It is refused before it is read.",
)
NOT_UTF8 = register_code(
    "IMG003",
    "the file is not UTF-8",
    "Cluster files and profiles are UTF-8 text. A UTF-8 byte order mark is accepted; UTF-16 and UTF-32 are not.",
)
BAD_CHARACTER = register_code(
    "IMG004",
    "a character is not allowed",
    "Control characters, direction-changing characters (they make a text look different from what it says) and "
    "line breaks other than LF and CRLF are refused everywhere in the file. In a double-quoted text they can be "
    r'written as escapes, such as "\u2028".',
)
SYNTAX = register_code(
    "IMG005",
    "the text is not valid YAML",
    "The place is where the reader stopped; the mistake is there or shortly before. Common causes: a tab in the "
    "indentation, a colon inside a text without quotes, a bracket or a quote that is not closed.",
)
DUPLICATE_KEY = register_code(
    "IMG006",
    "a key is given twice",
    "Most YAML readers silently take the last one. imagegen names both places and takes none.",
)
TAG = register_code(
    "IMG007",
    "a tag is not allowed",
    "Tags (words that begin with an exclamation mark) ask the reader to build an object. Only !!str, !!seq and "
    "!!map are accepted, because they change nothing.",
)
DOCUMENTS = register_code(
    "IMG008",
    "the file holds no document, or several",
    "A file holds exactly one YAML document: one cluster, one profile.",
)
LIMIT = register_code(
    "IMG009",
    "the document is nested too deeply or grows too large",
    f"Nesting is limited to {MAX_DEPTH} levels and the document to {MAX_NODES:,} nodes, counted after aliases and "
    "merge keys are followed. A few bytes of aliases can otherwise fill any memory.",
)
ALIAS = register_code(
    "IMG010",
    "an alias or merge key cannot be followed",
    "An alias (*name) needs an anchor (&name) earlier in the same file and may not contain itself. A merge key (<<) "
    "takes a mapping, or a list of mappings.",
)
KEY = register_code(
    "IMG011", "a key is not plain text", "A key is one word; lists and mappings are not keys here."
)


class PlainText(str):
    """A scalar written without quotes: text, or a number or a truth value where the schema wants one."""

    __slots__ = ()


class YamlNode:
    """A value and its place. ``line``, ``column`` count from 1; ``end_column`` is one past the end on that line."""

    __slots__ = ("column", "end_column", "file", "line")
    kind = "nothing"

    def __init__(self, file: str, line: int, column: int, end_column: int) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.end_column = end_column

    @property
    def span(self) -> Span:
        return Span(self.file, self.line, self.column, self.end_column)


class ScalarNode(YamlNode):
    """A text; ``is_plain`` when it was written without quotes and so may stand for a number or a truth value."""

    __slots__ = ("is_plain", "text")
    kind = "text"

    def __init__(self, file: str, line: int, column: int, end_column: int, text: str, is_plain: bool) -> None:
        super().__init__(file, line, column, end_column)
        self.text = text
        self.is_plain = is_plain


class SequenceNode(YamlNode):
    __slots__ = ("items",)
    kind = "list"

    def __init__(self, file: str, line: int, column: int, end_column: int) -> None:
        super().__init__(file, line, column, end_column)
        self.items: list[YamlNode] = []


class MappingNode(YamlNode):
    """``entries``: key → (the key's own node, the value), in the order of the file."""

    __slots__ = ("entries",)
    kind = "mapping"

    def __init__(self, file: str, line: int, column: int, end_column: int) -> None:
        super().__init__(file, line, column, end_column)
        self.entries: dict[str, tuple[ScalarNode, YamlNode]] = {}

    def get(self, key: str) -> YamlNode | None:
        """The value of ``key``, or None."""
        entry = self.entries.get(key)
        return None if entry is None else entry[1]


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


# Refused everywhere: C0 except tab and line feed, DEL, C1, Unicode line breaks, bidi controls, a BOM inside the text.
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
    builder = _Builder(file, report)
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


class _LimitExceeded(Exception):
    """Reading stops; the finding is already in the report."""


_HARMLESS_TAGS = frozenset({"!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


class _Builder:
    """Turns events into nodes with an explicit stack. ``sizes`` counts what an alias of an anchored node adds."""

    def __init__(self, file: str, report: Report) -> None:
        self.file = file
        self.report = report
        self.count = 0
        self.anchors: dict[str, tuple[YamlNode, int]] = {}
        self.open_anchors: dict[str, YamlNode] = {}
        self.stack: list[YamlNode] = []
        self.keys: list[ScalarNode | None] = []
        #: per open collection: its anchor and the node count when it began
        self.starts: list[tuple[str | None, int]] = []
        self.merges: list[list[tuple[ScalarNode, YamlNode]]] = []
        self.root: YamlNode | None = None
        self.texts: dict[str, str] = {}

    def build(self, events: Iterator[Any]) -> YamlNode | None:
        documents = 0
        try:
            for event in events:
                kind = type(event)
                if kind is yaml.ScalarEvent:
                    self.add_scalar(event)
                elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                    self.open_collection(event, kind is yaml.MappingStartEvent)
                elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                    self.close_collection()
                elif kind is yaml.AliasEvent:
                    self.add_alias(event)
                elif kind is yaml.DocumentStartEvent:
                    documents += 1
                    if documents > 1:
                        self.fail(
                            DOCUMENTS, "a second document begins here", event, "one file describes one thing"
                        )
        except _LimitExceeded:
            return None
        if documents == 0:
            self.report.error(DOCUMENTS, "the file is empty", Span(self.file, 1, 1))
        return self.root

    def fail(self, code: str, message: str, event: Any, hint: str) -> None:
        line, column, end = self.place(event)
        self.report.error(code, message, Span(self.file, line, column, end), hint=hint)
        raise _LimitExceeded

    def place(self, event: Any) -> tuple[int, int, int]:
        start, end = event.start_mark, event.end_mark
        column: int = start.column + 1
        same_line = end is not None and end.line == start.line
        return start.line + 1, column, max(end.column + 1, column + 1) if same_line else column + 1

    def check_tag(self, event: Any) -> None:
        tag = event.tag
        if tag is not None and tag not in _HARMLESS_TAGS:
            line, column, end = self.place(event)
            shown = (
                "!!" + tag.removeprefix("tag:yaml.org,2002:") if tag.startswith("tag:yaml.org,2002:") else tag
            )
            hint = "remove the tag; put a text that begins with ! in quotes"
            self.report.error(
                TAG, f"the tag {shown} is not allowed", Span(self.file, line, column, end), hint=hint
            )

    def grow(self, by: int, event: Any) -> None:
        self.count += by
        if self.count > MAX_NODES:
            hint = "use fewer aliases, or split the cluster"
            self.fail(LIMIT, f"more than {MAX_NODES:,} nodes, aliases included", event, hint)

    def add_scalar(self, event: Any) -> None:
        self.grow(1, event)
        if event.tag is not None:
            self.check_tag(event)
        line, column, end = self.place(event)
        text = self.texts.setdefault(event.value, event.value)
        # implicit[0]: a plain scalar without a tag, the only kind that may stand for a number
        node = ScalarNode(self.file, line, column, end, text, bool(event.implicit[0]) and event.tag is None)
        if event.anchor:
            self.anchors[event.anchor] = (node, 1)
        self.attach(node)

    def open_collection(self, event: Any, is_mapping: bool) -> None:
        self.grow(1, event)
        if len(self.stack) >= MAX_DEPTH:
            self.fail(LIMIT, f"nested deeper than {MAX_DEPTH} levels", event, "a cluster file needs five")
        if event.tag is not None:
            self.check_tag(event)
        line, column, end = self.place(event)
        node = (MappingNode if is_mapping else SequenceNode)(self.file, line, column, end)
        if event.anchor:
            self.anchors.pop(event.anchor, None)
            self.open_anchors[event.anchor] = node
        if self.stack and isinstance(self.stack[-1], MappingNode) and self.keys[-1] is None:
            self.fail(
                KEY,
                f"wanted a text as key, got a {node.kind}",
                event,
                "put a key that begins with [ or { in quotes",
            )
        self.stack.append(node)
        self.keys.append(None)
        self.starts.append((event.anchor, self.count - 1))
        self.merges.append([])

    def close_collection(self) -> None:
        node = self.stack.pop()
        self.keys.pop()
        anchor, start = self.starts.pop()
        merges = self.merges.pop()
        if isinstance(node, MappingNode):
            for key, value in merges:
                self.merge(node, key, value)
        if anchor:
            self.open_anchors.pop(anchor, None)
            self.anchors[anchor] = (node, self.count - start)
        self.attach(node)

    def add_alias(self, event: Any) -> None:
        if event.anchor in self.open_anchors:
            self.fail(ALIAS, f"the alias *{event.anchor} contains itself", event, "write the value out")
        found = self.anchors.get(event.anchor)
        if found is None:
            self.fail(
                ALIAS,
                f"no anchor &{event.anchor} before this alias",
                event,
                "put a text that begins with * in quotes",
            )
            return
        node, size = found
        self.grow(size, event)
        self.attach(node)

    def attach(self, node: YamlNode) -> None:
        if not self.stack:
            self.root = node
            return
        parent = self.stack[-1]
        if isinstance(parent, SequenceNode):
            parent.items.append(node)
            return
        assert isinstance(parent, MappingNode)
        key = self.keys[-1]
        if key is None:
            if isinstance(node, ScalarNode):
                self.keys[-1] = node
                return
            self.report.error(KEY, f"wanted a text as key, got a {node.kind}", node.span)
            raise _LimitExceeded
        self.keys[-1] = None
        if key.is_plain and key.text == "<<":
            self.merges[-1].append((key, node))
            return
        first = parent.entries.get(key.text)
        if first is not None:
            hint = "keep one of the two"
            self.report.error(
                DUPLICATE_KEY,
                f"the key {key.text!r} is given twice",
                key.span,
                hint=hint,
                also=[first[0].span],
            )
            return
        parent.entries[key.text] = (key, node)

    def merge(self, node: MappingNode, key: ScalarNode, value: YamlNode) -> None:
        """``<<``: keys that the mapping does not have itself; of several mappings the first wins."""
        sources = value.items if isinstance(value, SequenceNode) else [value]
        for source in sources:
            if not isinstance(source, MappingNode):
                hint = "<< takes a mapping, usually an alias"
                message = f"wanted a mapping to merge, got a {source.kind}"
                self.report.error(ALIAS, message, key.span, hint=hint)
                continue
            for name, entry in source.entries.items():
                node.entries.setdefault(name, entry)


#: what a plain scalar may look like and still be no value at all
NOTHING = frozenset({"", "~", "null", "Null", "NULL"})

#: plain data: dict, list, str (quoted), PlainText (not quoted), None
Data = dict[str, Any] | list[Any] | str | None


def to_data(node: YamlNode) -> Data:
    """``node`` as plain data. Depth is bounded by MAX_DEPTH, size by MAX_NODES."""
    if isinstance(node, ScalarNode):
        if node.is_plain:
            return None if node.text in NOTHING else PlainText(node.text)
        return node.text
    if isinstance(node, SequenceNode):
        return [to_data(item) for item in node.items]
    assert isinstance(node, MappingNode)
    return {key: to_data(value) for key, (_, value) in node.entries.items()}
