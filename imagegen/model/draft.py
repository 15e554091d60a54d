"""A cluster file that may be partly wrong: what could be read of it, and what not to judge any further."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from imagegen.diagnostics import Report, Span, register_code
from imagegen.model.document import ClusterFile, NodeEntry
from imagegen.model.findings import Location, add_finding, find_node, model_location, path_text, place_of
from imagegen.model.refusals import WRONG_TYPE, describe
from imagegen.source import MappingNode, PlainText, SequenceNode, YamlNode, to_data
from imagegen.yamltree import LIMIT

MORE = register_code(
    "IMG199",
    "there are more findings than are listed",
    "Of very many findings the first are listed. Correct those and run again.",
)


class SpanMap(Mapping[str, Span]):
    """Model path → place in the file, looked up in the node tree when asked for."""

    __slots__ = ("_root",)

    def __init__(self, root: YamlNode) -> None:
        self._root = root

    def __getitem__(self, path: str) -> Span:
        node, key, found = find_node(self._root, _split_path(path))
        if not found:
            raise KeyError(path)
        return place_of(node, key)

    def __iter__(self) -> Iterator[str]:
        return (path_text(location) for location in _walk(self._root, ()))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _split_path(path: str) -> Location:
    parts = re.findall(r"\[[0-9]+\]|[^.\[\]]+", path)
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in parts)


def _walk(node: YamlNode, location: Location) -> Iterator[Location]:
    if location:
        yield location
    if isinstance(node, MappingNode):
        for name, (_, value) in node.entries.items():
            yield from _walk(value, (*location, name))
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.items):
            yield from _walk(item, (*location, index))


class Draft:
    """``document`` is complete; what is at tainted paths stands in for values already reported."""

    __slots__ = ("_above", "_tainted", "document", "spans")

    def __init__(self, document: ClusterFile, spans: SpanMap, tainted: Iterable[str]) -> None:
        self.document = document
        self.spans = spans
        self._tainted = frozenset(tainted)
        #: paths with something tainted in them
        self._above = frozenset(outer for path in self._tainted for outer in _enclosing(path))

    def is_tainted(self, path: str) -> bool:
        """Whether ``path``, something around it or something in it was already reported."""
        return path in self._tainted or path in self._above or not self._tainted.isdisjoint(_enclosing(path))


def _enclosing(path: str) -> Iterator[str]:
    """``nodes[2].address`` → ``nodes[2]``, ``nodes``"""
    while path := path[: max(path.rfind("."), path.rfind("["), 0)]:
        yield path


#: what stands in for a required value that is missing or wrong, so that the rest can be judged
_STAND_INS: dict[str, Any] = {
    "version": PlainText("1"),
    "name": "stand-in",
    "kubernetes": {"version": "1.36.4"},
    "kubernetes.version": "1.36.4",
    "network": {"nodes": "10.240.0.0/24"},
    "network.nodes": "10.240.0.0/24",
    "nodes": [{"name": "stand-in", "roles": ["base"], "address": "dhcp"}],
}


def _stand_in_node(number: int) -> dict[str, Any]:
    return {"name": f"stand-in-{number}", "roles": ["base"], "address": "dhcp"}


#: section models by location, list positions left out
_SECTIONS: dict[Location, type[BaseModel]] = {
    (): ClusterFile,
    ("nodes",): NodeEntry,
    **{
        (name,): info.annotation
        for name, info in ClusterFile.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    },
}


#: more findings about the spelling of one file than this are counted, not listed
MAX_FINDINGS = 500
#: how many entries a list or mapping may have: the nodes, something in a node, everything else
MAX_CLUSTER_NODES = 20_000
MAX_NODE_ENTRIES = 32
MAX_ENTRIES = 1_000
_CHUNK = 500


def read_draft(root: YamlNode, report: Report) -> Draft | None:
    """Validate the nodes against the schema; every finding goes to ``report``.

    What is wrong is replaced by a stand-in and tainted, so that the checks still find everything else. None
    when the text is not a mapping at all, or when there is so much wrong that the rest would say nothing.
    """
    data = to_data(root)
    if not isinstance(data, dict):
        report.error(
            WRONG_TYPE, f"wanted a mapping with version, name and nodes, got {describe(data)}", root.span
        )
        return None
    if not _check_sizes(data, root, report):
        return None
    tainted: set[str] = set()
    for attempt in range(4):
        try:
            document = ClusterFile.model_validate(data)
        except ValidationError as failure:
            if failure.error_count() > MAX_FINDINGS:
                _report_first(data, failure.error_count(), root, report)
                return None
            # a list whose entries are all bad is also called too short; that says nothing more
            errors = [
                e for e in failure.errors(include_url=False) if e["type"] != "too_short" or not e["input"]
            ]
            if attempt == 0:
                for error in errors:
                    add_finding(error, root, _SECTIONS, report)
            _replace_bad(data, errors, tainted)
        else:
            return Draft(document, SpanMap(root), tainted)
    return None


def _check_sizes(data: dict[str, Any], root: YamlNode, report: Report) -> bool:
    """Lists and mappings stay below their limits, so that no file has more findings than memory."""
    found = 0
    for location, size, limit in _find_oversized(data):
        node, key, _ = find_node(root, location)
        message = f"wanted at most {limit:,} entries, got {size:,}"
        report.error(LIMIT, message, place_of(node, key), path=path_text(location))
        found += 1
        if found == 10:
            break
    return not found


def _find_oversized(data: dict[str, Any]) -> Iterator[tuple[Location, int, int]]:
    stack: list[tuple[Location, Any]] = [((), data)]
    while stack:
        location, value = stack.pop()
        if location == ("nodes",):
            limit = MAX_CLUSTER_NODES
        else:
            limit = MAX_NODE_ENTRIES if location[:1] == ("nodes",) else MAX_ENTRIES
        if len(value) > limit:
            yield location, len(value), limit
            continue
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        stack += [((*location, key), inner) for key, inner in entries if isinstance(inner, dict | list)]


def _report_first(data: dict[str, Any], count: int, root: YamlNode, report: Report) -> None:
    """The first MAX_FINDINGS findings of very many. Nodes go in pieces, so that only some exist at a time."""
    nodes = data.get("nodes")
    pieces = range(0, len(nodes), _CHUNK) if isinstance(nodes, list) and nodes else range(1)
    listed = 0
    for start in pieces:
        piece = {"nodes": nodes[start : start + _CHUNK]} if isinstance(nodes, list) else {}
        try:
            ClusterFile.model_validate(data | piece)
        except ValidationError as failure:
            for error in failure.errors(include_url=False):
                location = model_location(error["loc"])
                is_node = location[0] == "nodes" and len(location) > 1
                if not is_node and start:
                    continue
                if is_node:
                    error["loc"] = ("nodes", int(location[1]) + start, *location[2:])
                if listed < MAX_FINDINGS:
                    add_finding(error, root, _SECTIONS, report)
                    listed += 1
        if listed == MAX_FINDINGS:
            break
    message = f"and {count - listed:,} more findings"
    report.error(MORE, message, root.span, hint="correct those that are listed first")


def _replace_bad(data: dict[str, Any], errors: list[ErrorDetails], tainted: set[str]) -> None:
    """Put stand-ins for the bad values into ``data`` and taint them; unknown keys just go."""
    for error in errors:
        location = model_location(error["loc"])
        is_unknown = error["type"] == "extra_forbidden"
        if location[0] == "nodes" and len(location) > 1:
            location = location[:3]
            number = int(location[1])
            entry = data["nodes"][number]
            if isinstance(entry, dict) and len(location) == 3:
                key = str(location[2])
                entry.pop(key, None)
                entry |= {k: v for k, v in _stand_in_node(number).items() if k == key}
            else:
                data["nodes"][number] = _stand_in_node(number)
        else:
            location = _shorten(data, location)
            _replace(data, location)
        if not is_unknown:
            tainted.add(path_text(location))


def _shorten(data: dict[str, Any], location: Location) -> Location:
    """One bad entry spoils a short list, whose default then stands in: the location of the list."""
    holder: Any = data
    for depth, part in enumerate(location):
        if not isinstance(holder, dict):
            return location[:depth]
        holder = holder.get(str(part))
    return location


def _replace(data: dict[str, Any], location: Location) -> None:
    holder = data
    for part in location[:-1]:
        inner = holder.get(str(part))
        if not isinstance(inner, dict):
            return  # an enclosing value was replaced already
        holder = inner
    holder.pop(str(location[-1]), None)
    stand_in = _STAND_INS.get(path_text(location))
    if stand_in is not None:
        holder[str(location[-1])] = copy.deepcopy(stand_in)
