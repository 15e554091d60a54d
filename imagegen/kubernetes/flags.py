"""Every flag of every daemon, by minor, as the programs themselves print them.

The table ``flags.csv`` was read from the programs of each minor that this release renders; etcd's flags are
the fields of its configuration file, and their minors are etcd's own.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagegen.kubernetes.config_fields import config_fields
from imagegen.model.version import Version, parse_cell

_TABLE = Path(__file__).with_name("flags.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """``first`` and ``last`` are minors; None means from the oldest one read, or up to the newest one.

    The program says ``deprecated`` from that minor on, and no longer from ``withdrawn`` on.
    """

    name: str
    first: Version | None
    last: Version | None
    deprecated: Version | None
    withdrawn: Version | None = None

    def is_deprecated(self, version: Version) -> bool:
        """Whether the program of that version warns of the flag."""
        withdrawn = self.withdrawn is not None and version >= self.withdrawn
        return self.deprecated is not None and version >= self.deprecated and not withdrawn

    def is_in(self, version: Version) -> bool:
        """Whether the program of that version knows the flag."""
        minor = Version(version.major, version.minor, 0)
        return (self.first is None or minor >= self.first) and (self.last is None or minor <= self.last)


def list_flags(component: str, version: Version) -> Mapping[str, Flag]:
    """The flags of a component in one version of its own, by name without dashes; raises KeyError."""
    return {name: flag for name, flag in _flags_of(component).items() if flag.is_in(version)}


def find_flag(component: str, name: str) -> Flag | None:
    """A flag in whatever version, or None; raises KeyError for an unknown component."""
    return _flags_of(component).get(name)


def every_flag(component: str) -> tuple[str, ...]:
    """The flags that a component has in some version, without dashes; raises KeyError."""
    return tuple(_flags_of(component))


def _flags_of(component: str) -> Mapping[str, Flag]:
    return _etcd_flags() if component == "etcd" else _read_table()[component]


@functools.cache
def _etcd_flags() -> Mapping[str, Flag]:
    return {
        name: Flag(name=name, first=field.first, last=field.last, deprecated=None)
        for name, field in config_fields("etcd").items()
    }


@functools.cache
def _read_table() -> Mapping[str, Mapping[str, Flag]]:
    table: dict[str, dict[str, Flag]] = {}
    with _TABLE.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            table.setdefault(row["component"], {})[row["flag"]] = Flag(
                name=row["flag"],
                first=parse_cell(row["first"]),
                last=parse_cell(row["last"]),
                deprecated=parse_cell(row["deprecated"]),
                withdrawn=parse_cell(row["withdrawn"]),
            )
    return table
