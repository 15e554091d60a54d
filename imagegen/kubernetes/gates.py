"""What exists in which version: flags, fields, APIs, admission plug-ins, feature gates, labels.

Reads the table ``gates.csv`` beside this module. Versions are those of Kubernetes, except in the rows of
``COMPANIONS``, which carry their own. Components ask here instead of comparing versions.
"""

from __future__ import annotations

import csv
import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagegen.kubernetes.releases import load_releases
from imagegen.model.version import Version, parse_cell, parse_version

_TABLE = Path(__file__).with_name("gates.csv")
#: the components whose rows carry versions of their own
COMPANIONS = ("calico", "etcd", "containerd", "coredns", "flannel", "metrics-server")


class State(enum.StrEnum):
    """Where an item stands in one version."""

    #: not there yet, or only behind a feature gate that is off
    NOT_YET = "not yet"
    ALPHA = "alpha"
    AVAILABLE = "available"
    DEPRECATED = "deprecated"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One item of the table. A version of None means: before everything known, or never.

    ``introduced`` is the first version where the item works without a feature gate, ``alpha`` the one where
    it appeared behind a gate, ``changed`` the one where it began to behave as ``change`` says. ``evidence``
    names pull requests (``#58123@1.10``) or a source file; ``confidence`` how the row was found.
    """

    component: str
    kind: str
    item: str
    alpha: Version | None
    introduced: Version | None
    stable: Version | None
    changed: Version | None
    change: str
    deprecated: Version | None
    removed: Version | None
    replacement: str
    evidence: str
    confidence: str
    note: str

    def state_in(self, version: Version) -> State:
        """The state of the item in one version of its component."""
        if self.removed is not None and version >= self.removed:
            return State.REMOVED
        if self.deprecated is not None and version >= self.deprecated:
            return State.DEPRECATED
        if self.introduced is None:
            if self.alpha is not None:
                return State.ALPHA if version >= self.alpha else State.NOT_YET
            return State.AVAILABLE
        if version >= self.introduced:
            return State.AVAILABLE
        return State.ALPHA if self.alpha is not None and version >= self.alpha else State.NOT_YET


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """The table as one Kubernetes version sees it; ``companions`` are the versions of ``COMPANIONS``."""

    version: Version
    companions: Mapping[str, Version]

    def has(self, component: str, item: str) -> bool:
        """Whether the item can be used without a feature gate; raises KeyError when the table lacks it."""
        return self.state(component, item) in (State.AVAILABLE, State.DEPRECATED)

    def is_changed(self, component: str, item: str) -> bool:
        """Whether the change that the row describes has happened; raises KeyError."""
        row = self.row(component, item)
        return row.changed is not None and self.version_of(component) >= row.changed

    def state(self, component: str, item: str) -> State:
        """The state of an item; raises KeyError for an item not in the table."""
        return self.row(component, item).state_in(self.version_of(component))

    def row(self, component: str, item: str) -> GateRow:
        """The row of an item, else the row that holds for all components; raises KeyError."""
        table = _read_table()
        row = table.get((component, item)) or table.get(("all", item))
        if row is None:
            raise KeyError(f"no row for {component} {item}")
        return row

    def find(self, component: str, item: str) -> GateRow | None:
        """Like ``row``, with None instead of an error: most flags never changed and have no row."""
        table = _read_table()
        return table.get((component, item)) or table.get(("all", item))

    def keep_known(self, component: str, flags: Mapping[str, str]) -> dict[str, str]:
        """``flags`` (no dashes) without those that come later or are gone: for what only hardens or informs.

        A flag that was in every version has no row and is kept.
        """
        gone = (State.REMOVED, State.NOT_YET)
        rows = {name: self.find(component, f"--{name}") for name in flags}
        version = self.version_of(component)
        return {
            n: v for n, v in flags.items() if (row := rows[n]) is None or row.state_in(version) not in gone
        }

    def version_of(self, component: str) -> Version:
        """The version that rows of this component are compared with."""
        return self.companions.get(component, self.version)

    def choose(self, component: str, *items: str) -> str:
        """The first of ``items`` that can be used, best first; raises KeyError when there is none."""
        for item in items:
            if self.has(component, item):
                return item
        raise KeyError(f"{component} {self.version_of(component)} has none of {', '.join(items)}")


def load_gates(version: Version) -> Gates:
    """The table for one Kubernetes version; raises UsageError when its minor is not known."""
    releases = load_releases(version)
    companions = {
        name: parse_version(releases.version(name)) for name in COMPANIONS if name in releases.versions
    }
    return Gates(version=version, companions=companions)


def find_rows(item: str) -> tuple[GateRow, ...]:
    """Every row of that item, of whatever component: what ``explain --some-flag`` shows."""
    return tuple(row for row in _read_table().values() if row.item == item)


def all_rows() -> tuple[GateRow, ...]:
    """The whole table in file order."""
    return tuple(_read_table().values())


@functools.cache
def _read_table() -> Mapping[tuple[str, str], GateRow]:
    table: dict[tuple[str, str], GateRow] = {}
    with _TABLE.open(encoding="utf-8", newline="") as stream:
        for raw in csv.DictReader(stream):
            row = GateRow(
                component=raw["component"],
                kind=raw["kind"],
                item=raw["item"],
                alpha=parse_cell(raw["alpha"]),
                introduced=parse_cell(raw["introduced"]),
                stable=parse_cell(raw["stable"]),
                changed=parse_cell(raw["changed"]),
                change=raw["change"],
                deprecated=parse_cell(raw["deprecated"]),
                removed=parse_cell(raw["removed"]),
                replacement=raw["replacement"],
                evidence=raw["evidence"],
                confidence=raw["confidence"],
                note=raw["note"],
            )
            if (row.component, row.item) in table:
                raise ValueError(f"gates.csv: two rows for {row.component} {row.item}")
            table[row.component, row.item] = row
    return table
