"""A cluster file that may be partly wrong: what could be read of it, and which paths not to judge any further."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from imagegen.diagnostics import Report, Span
from imagegen.model.document import ClusterFile, NodeEntry
from imagegen.model.findings import Location, add_finding, find_node, model_location, path_text, place_of
from imagegen.model.scalars import WRONG_TYPE, describe
from imagegen.source import MappingNode, PlainText, SequenceNode, YamlNode, to_data


class SpanMap(Mapping[str, Span]):
    """Model path → place, looked up in the node tree when asked for. ``nodes`` maps node numbers to list positions."""

    __slots__ = ("_nodes", "_root")

    def __init__(self, root: YamlNode, nodes: list[int] | None = None) -> None:
        self._root = root
        self._nodes = nodes

    def __getitem__(self, path: str) -> Span:
        location: list[str | int] = [
            int(part[1:-1]) if part.startswith("[") else part
            for part in re.findall(r"\[\d+\]|[^.\[\]]+", path)
        ]
        if (
            self._nodes is not None
            and len(location) > 1
            and location[0] == "nodes"
            and isinstance(location[1], int)
        ):
            location[1] = self._nodes[location[1]]
        node, key, found = find_node(self._root, location)
        if not found:
            raise KeyError(path)
        return place_of(node, key)

    def __iter__(self) -> Iterator[str]:
        return (path_text(location) for location in _walk(self._root, ()))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _walk(node: YamlNode, location: Location) -> Iterator[Location]:
    if location:
        yield location
    if isinstance(node, MappingNode):
        for name, (_, value) in node.entries.items():
            yield from _walk(value, (*location, name))
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.items):
            yield from _walk(item, (*location, index))


@dataclass(slots=True)
class Draft:
    """``document`` is complete; the values at ``tainted`` paths are stand-ins for values that were already reported."""

    document: ClusterFile
    spans: SpanMap
    tainted: frozenset[str]
    #: node number in ``document`` → position in the list of the file
    positions: list[int]

    def span_of_node(self, number: int) -> Span:
        return self.spans[f"nodes[{number}]"]

    def is_tainted(self, path: str) -> bool:
        """Whether ``path``, something around it or something in it was already reported."""
        return any(
            path == bad or path.startswith((bad + ".", bad + "[")) or bad.startswith((path + ".", path + "["))
            for bad in self.tainted
        )


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


def read_draft(root: YamlNode, report: Report) -> Draft | None:
    """Validate the nodes against the schema; every finding goes to ``report``.

    What is wrong is replaced by a stand-in and tainted, so that the checks still find everything else. None when
    the text is not a mapping at all.
    """
    data = to_data(root)
    if not isinstance(data, dict):
        report.error(
            WRONG_TYPE, f"wanted a mapping with version, name and nodes, got {describe(data)}", root.span
        )
        return None
    positions = list(range(len(data["nodes"]))) if isinstance(data.get("nodes"), list) else [0]
    tainted: set[str] = set()
    for _ in range(3):
        try:
            document = ClusterFile.model_validate(data)
        except ValidationError as failure:
            errors = failure.errors(include_url=False)
            if not tainted:
                for error in errors:
                    add_finding(error, root, _SECTIONS, report)
            locations = {model_location(e["loc"]): e["type"] == "extra_forbidden" for e in errors}
            tainted |= {path_text(location) for location, unknown in locations.items() if not unknown}
            positions = _prune(data, locations, positions)
        else:
            return Draft(document, SpanMap(root, positions), frozenset(tainted), positions)
    return None


def _prune(data: dict[str, Any], locations: dict[Location, bool], positions: list[int]) -> list[int]:
    """Take the bad values out of ``data``; returns the positions of the nodes that are left."""
    bad_nodes: set[int] = set()
    for location, unknown in locations.items():
        if location[0] == "nodes" and len(location) > 1 and not unknown:
            bad_nodes.add(int(location[1]))
            continue
        holder: Any = data
        for depth, part in enumerate(location[:-1]):
            if isinstance(holder, dict) and isinstance(holder.get(str(part)), list) and part != "nodes":
                # one bad entry spoils a short list: the key goes, the default stands in
                location = location[: depth + 1]
                break
            holder = holder[part] if isinstance(holder, list) else holder.get(part, {})
        if isinstance(holder, dict):
            holder.pop(str(location[-1]), None)
        stand_in = _STAND_INS.get(path_text(location))
        if stand_in is not None and isinstance(holder, dict):
            holder[str(location[-1])] = copy.deepcopy(stand_in)
    nodes = data.get("nodes")
    if bad_nodes and isinstance(nodes, list):
        kept = [i for i in range(len(nodes)) if i not in bad_nodes]
        data["nodes"] = [nodes[i] for i in kept] or copy.deepcopy(_STAND_INS["nodes"])
        return [positions[i] for i in kept] or [0]
    return positions
