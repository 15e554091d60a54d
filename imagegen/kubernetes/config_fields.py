"""Flags that a daemon heeds only as a field of its configuration file: kube-proxy and etcd.

Both ignore nearly all flags once they have a file, so the user's flags are written into it. The table is
``config_fields.csv`` (kube-proxy: cmd/kube-proxy/app/options.go; etcd: server/embed/config.go, up to 3.4
embed/config.go and etcdmain/config.go).
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagegen.kubernetes.arguments import FEATURE_GATES, merge_feature_gates
from imagegen.model.version import Version, parse_cell

_TABLE = Path(__file__).with_name("config_fields.csv")
_NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|ms|s|m|h))+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigField:
    """``path`` leads to the field; ``type`` says how the text of the flag becomes its value.

    ``first`` and ``last`` are minors of etcd; None means from 3.0 on, or up to the newest one read. When a
    flag of kube-proxy came and went is in ``flags.csv``.
    """

    path: tuple[str, ...]
    type: str
    first: Version | None
    last: Version | None

    def parse_value(self, text: str) -> Any:
        """The value of the field; raises ValueError when the text does not fit the type."""
        match self.type:
            case "bool":
                return _parse_bool(text)
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "list":
                return [part for part in text.split(",") if part]
            case "booleans":
                pairs = (part.partition("=") for part in text.split(",") if part)
                return {name: _parse_bool(value) for name, _, value in pairs}
            case "nanoseconds":
                return parse_duration(text)
        return text


def config_fields(component: str) -> Mapping[str, ConfigField]:
    """The flags of a component that become fields of its file, by name without dashes."""
    return _read_table().get(component, {})


def apply_flags(component: str, config: dict[str, Any], flags: Mapping[str, str]) -> dict[str, str]:
    """Write ``flags`` into ``config`` and return those that are not fields.

    A value that does not fit the type of its field is written as it is, for the daemon to refuse. Of
    feature gates, ours stay beside the user's.
    """
    rest: dict[str, str] = {}
    fields = config_fields(component)
    for name, text in flags.items():
        field = fields.get(name)
        if field is None:
            rest[name] = text
            continue
        try:
            value = field.parse_value(text)
        except ValueError:
            value = text
        place = config
        for step in field.path[:-1]:
            place = place.setdefault(step, {})
        ours = place.get(field.path[-1])
        if name == FEATURE_GATES and isinstance(ours, str):
            value = merge_feature_gates(ours, text)
        place[field.path[-1]] = value
    return rest


def parse_duration(text: str) -> int:
    """A duration as Go writes it (``1h30m``, ``500ms``) in nanoseconds; raises ValueError."""
    if text == "0":
        return 0
    if not _DURATION.fullmatch(text):
        raise ValueError(f"wanted a duration such as 5m or 500ms, got {text!r}")
    parts = re.findall(r"([\d.]+)([a-z]+)", text)
    return round(sum(float(number) * _NANOSECONDS[unit] for number, unit in parts))


def _parse_bool(text: str) -> bool:
    if text.lower() in ("true", "t", "1"):
        return True
    if text.lower() in ("false", "f", "0"):
        return False
    raise ValueError(f"wanted true or false, got {text!r}")


@functools.cache
def _read_table() -> Mapping[str, Mapping[str, ConfigField]]:
    table: dict[str, dict[str, ConfigField]] = {}
    with _TABLE.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            table.setdefault(row["component"], {})[row["flag"]] = ConfigField(
                path=tuple(row["field"].split(".")),
                type=row["type"],
                first=parse_cell(row["first"]),
                last=parse_cell(row["last"]),
            )
    return table
