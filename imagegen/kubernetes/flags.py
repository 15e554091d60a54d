"""Every flag of every daemon, by minor, as the programs themselves print them.

The table ``flags.csv`` was read from the programs of each minor that this release renders; etcd's flags are
the fields of its configuration file.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagegen.kubernetes.config_fields import config_fields
from imagegen.model.version import Version, parse_version

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
    """The flags of a component in one version, by name without dashes; raises KeyError for its name."""
    if component == "etcd":
        return _etcd_flags()
    return {name: flag for name, flag in _read_table()[component].items() if flag.is_in(version)}


def find_flag(component: str, name: str) -> Flag | None:
    """A flag in whatever version, or None; raises KeyError for an unknown component."""
    return (_etcd_flags() if component == "etcd" else _read_table()[component]).get(name)


@functools.cache
def _etcd_flags() -> Mapping[str, Flag]:
    names = config_fields("etcd")
    return {name: Flag(name=name, first=None, last=None, deprecated=None) for name in names}


def _parse_minor(text: str) -> Version | None:
    return parse_version(f"{text}.0") if text else None


@functools.cache
def _read_table() -> Mapping[str, Mapping[str, Flag]]:
    table: dict[str, dict[str, Flag]] = {}
    with _TABLE.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            table.setdefault(row["component"], {})[row["flag"]] = Flag(
                name=row["flag"],
                first=_parse_minor(row["first"]),
                last=_parse_minor(row["last"]),
                deprecated=_parse_minor(row["deprecated"]),
                withdrawn=_parse_minor(row["withdrawn"]),
            )
    return table
