"""From a pydantic error to a finding with a place, in the words of the cluster file."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from imagegen.diagnostics import Report, Span, register_code
from imagegen.model.refusals import BAD_VALUE, WRONG_TYPE, describe
from imagegen.source import MappingNode, SequenceNode, YamlNode, shorten

UNKNOWN_KEY = register_code(
    "IMG101",
    "a key is not known",
    "The cluster file has a fixed set of keys; `imagegen schema` lists them. A key that is not known "
    "is an error, because a misspelt key would otherwise silently mean the default.",
)
MISSING_KEY = register_code(
    "IMG102",
    "a required key is missing",
    "Only version, name, kubernetes.version, network.nodes and nodes are required, and of each node "
    "its name, roles and address. Everything else has a default.",
)

Location = tuple[str | int, ...]


def path_text(location: Sequence[str | int]) -> str:
    """``("nodes", 2, "address")`` → ``nodes[2].address``."""
    out = ""
    for part in location:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


def find_node(root: YamlNode, location: Sequence[str | int]) -> tuple[YamlNode, Span, bool]:
    """The deepest node on the way to ``location``, the place of its key, and whether it is all the way."""
    node, key = root, root.span
    for part in location:
        if isinstance(node, MappingNode) and part in node.entries:
            key_node, node = node.entries[str(part)]
            key = key_node.span
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            key = node.span
        else:
            return node, key, False
    return node, key, True


def place_of(node: YamlNode, key: Span) -> Span:
    """Where to point for a value: at a scalar itself, at the key of a list or mapping."""
    return key if isinstance(node, MappingNode | SequenceNode) else node.span


def model_location(location: Location) -> Location:
    """Without the marker that pydantic adds for the keys of a free mapping."""
    return tuple(part for part in location if part != "[key]")


def add_finding(
    error: ErrorDetails, root: YamlNode, models: dict[Location, type[BaseModel]], report: Report
) -> None:
    """Report one pydantic error at its place in the file. ``models`` knows the sections by location."""
    location = model_location(error["loc"])
    kind, value = error["type"], error["input"]
    node, key, found = find_node(root, location)
    path = path_text(location)
    if kind == "extra_forbidden":
        section = models.get(tuple(p for p in location[:-1] if not isinstance(p, int)))
        known = list(section.model_fields) if section else []
        report.error(
            UNKNOWN_KEY,
            f"unknown key {shorten(str(location[-1]))!r}",
            key,
            hint=_suggest_key(str(location[-1]), known),
            path=path,
        )
        return
    if kind == "missing":
        _report_missing(location, node, key, path, report)
        return
    span = key if "[key]" in error["loc"] else place_of(node, key) if found else key
    if kind == "imagegen":
        ctx = error["ctx"]
        report.error(ctx["code"], ctx["message"], span, hint=ctx["hint"], path=path)
        return
    code, message, hint = _describe_builtin(kind, value, error.get("ctx", {}))
    report.error(code, message, span, hint=hint, path=path)


_MISSING_HINTS = {
    "version": "add version: 1",
    "kubernetes": "add kubernetes: {version: 1.36.4}",
    "network": "add network: {nodes: 10.240.0.0/24}",
    "nodes": "list the machines, or see imagegen new",
    "address": "an address of network.nodes, or dhcp",
    "roles": "one or more of etcd, master, worker, lb, base",
}


def _report_missing(location: Location, node: YamlNode, key: Span, path: str, report: Report) -> None:
    name = str(location[-1])
    span = node.span if len(location) == 1 else key
    where = f" in {path_text(location[:-1])}" if len(location) > 1 else ""
    if len(location) == 1:
        span = Span(span.file, 1, 1)
    report.error(
        MISSING_KEY, f"the key {name!r} is missing{where}", span, hint=_MISSING_HINTS.get(name), path=path
    )


def _suggest_key(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key[:100].lower().replace("-", "_"), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"known keys are {', '.join(sorted(known))}" if known else "remove it"


def _describe_builtin(kind: str, value: object, ctx: dict[str, Any]) -> tuple[str, str, str | None]:
    hint = "write a value or remove the key" if value is None else None
    if kind in {"model_type", "dict_type", "model_attributes_type"}:
        return WRONG_TYPE, f"wanted a mapping, got {describe(value)}", hint
    if kind in {"tuple_type", "list_type"}:
        if isinstance(value, str):
            hint = f"write [{value}]" if len(value) < 40 else "put it in brackets"
        return WRONG_TYPE, f"wanted a list, got {describe(value)}", hint
    if kind == "too_short":
        return (
            WRONG_TYPE,
            "wanted at least one entry, got an empty list",
            "list at least one, or remove the key where it has a default",
        )
    if kind in {"greater_than_equal", "less_than_equal"}:
        limit = ctx.get("ge", ctx.get("le"))
        word = "at least" if "ge" in ctx else "at most"
        return BAD_VALUE, f"wanted {word} {limit}, got {value}", None
    return BAD_VALUE, f"{kind.replace('_', ' ')}: got {describe(value)}", None
