"""YAML nodes with their places, built from libyaml's events with limits on depth and size.

What a plain ``no`` or ``0644`` means is for the schema that reads it, not for YAML: a scalar is its text and
whether it was written without quotes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from imagegen.diagnostics import Report, Span, register_code

MAX_DEPTH = 64
#: nodes after aliases and merge keys are followed; a cluster of 10,000 nodes has about 120,000
MAX_NODES = 250_000
MAX_MISTAKES = 100

DUPLICATE_KEY = register_code(
    "IMG006",
    "a key is given twice",
    "Most YAML readers silently take the last one. imagegen names both places and takes none.",
)
TAG = register_code(
    "IMG007",
    "a tag is not allowed",
    "Tags (words that begin with an exclamation mark) ask the reader to build an object. Only !!str, "
    "!!seq and !!map are accepted, because they change nothing.",
)
DOCUMENTS = register_code(
    "IMG008",
    "the file holds no document, or several",
    "A file holds exactly one YAML document: one cluster, one profile.",
)
LIMIT = register_code(
    "IMG009",
    "the document is nested too deeply or grows too large",
    f"Nesting is limited to {MAX_DEPTH} levels and the document to {MAX_NODES:,} nodes, counted after "
    "aliases and merge keys are followed. A few bytes of aliases can otherwise fill any memory. A cluster "
    "file has at most 20,000 nodes, and 1,000 entries in any other list.",
)
MANY = register_code(
    "IMG012",
    "there are too many mistakes to go on",
    "Reading stops after a hundred duplicate keys and tags. Such a file is most likely not a cluster file.",
)
ALIAS = register_code(
    "IMG010",
    "an alias or merge key cannot be followed",
    "An alias (*name) needs an anchor (&name) earlier in the same file and may not contain itself. A "
    "merge key (<<) takes a mapping, or a list of mappings.",
)
KEY = register_code(
    "IMG011", "a key is not plain text", "A key is one word; lists and mappings are not keys here."
)


class PlainText(str):
    """A scalar written without quotes: text, or a number or a truth value where the schema wants one."""

    __slots__ = ()


def shorten(text: str) -> str:
    """``text`` in at most 60 characters, for messages."""
    return text if len(text) <= 60 else text[:57] + "..."


class YamlNode:
    """A value and its place; ``line`` and ``column`` count from 1, ``end_column`` is one past the end."""

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
    """A text; ``is_plain``: written without quotes, so that it may stand for a number or a truth value."""

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


class _LimitExceeded(Exception):
    """Reading stops; the finding is already in the report."""


_HARMLESS_TAGS = frozenset({"!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


class TreeBuilder:
    """Turns events into nodes with an explicit stack. An alias counts as much as what it stands for."""

    def __init__(self, file: str, report: Report) -> None:
        self.file = file
        self.report = report
        self.count = 0
        self.mistakes = 0
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
                    self.close_collection(event)
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

    def report_mistake(
        self, code: str, message: str, span: Span, hint: str, also: tuple[Span, ...] = ()
    ) -> None:
        """Reading goes on after a mistake, but not forever."""
        self.report.error(code, message, span, hint=hint, also=also)
        self.mistakes += 1
        if self.mistakes == MAX_MISTAKES:
            message = f"stopped after {MAX_MISTAKES} mistakes"
            self.report.error(MANY, message, span, hint="is this the right file?")
            raise _LimitExceeded

    def fail(self, code: str, message: str, event: Any, hint: str) -> NoReturn:
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
            place = Span(self.file, line, column, end)
            self.report_mistake(TAG, f"the tag {shorten(shown)} is not allowed", place, hint)

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

    def close_collection(self, event: Any) -> None:
        node = self.stack.pop()
        if event.end_mark.line + 1 == node.line:
            node.end_column = event.end_mark.column + 1
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
            self.fail(
                ALIAS, f"the alias *{shorten(event.anchor)} contains itself", event, "write the value out"
            )
        found = self.anchors.get(event.anchor)
        if found is None:
            self.fail(
                ALIAS,
                f"no anchor &{shorten(event.anchor)} before this alias",
                event,
                "put a text that begins with * in quotes",
            )
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
            message = f"the key {shorten(key.text)!r} is given twice"
            self.report_mistake(DUPLICATE_KEY, message, key.span, "keep one of the two", (first[0].span,))
            return
        parent.entries[key.text] = (key, node)

    def merge(self, node: MappingNode, key: ScalarNode, value: YamlNode) -> None:
        """``<<``: keys that the mapping does not have itself; of several mappings the first wins."""
        sources = value.items if isinstance(value, SequenceNode) else [value]
        for source in sources:
            if not isinstance(source, MappingNode):
                hint = "<< takes a mapping, usually an alias"
                message = f"wanted a mapping to merge, got a {source.kind}"
                self.report_mistake(ALIAS, message, key.span, hint)
                continue
            for name, entry in source.entries.items():
                node.entries.setdefault(name, entry)
