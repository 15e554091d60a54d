"""TOML out: tables, strings, numbers, booleans and lists of strings. Reads nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def emit_toml(document: Mapping[str, Any]) -> str:
    """A TOML document: scalars before tables, tables in the given order. TypeError for other values."""
    return "\n".join(_emit_table((), document)).lstrip("\n") + "\n"


def _emit_table(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    scalars = {k: v for k, v in table.items() if not isinstance(v, Mapping)}
    lines: list[str] = []
    if path and (scalars or not table):
        lines += ["", f"[{'.'.join(_emit_key(step) for step in path)}]"]
    lines += [f"{_emit_key(key)} = {_emit_value(value)}" for key, value in scalars.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _emit_table((*path, key), value)
    return lines


def _emit_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _emit_value(key)


def _emit_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        # the escapes of JSON are a part of those of TOML basic strings; DEL alone must be escaped on top
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_emit_value(item) for item in value) + "]"
    raise TypeError(f"no TOML form for {type(value).__name__}")
