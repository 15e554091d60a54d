"""Reads the journals of the cluster's daemons for words that no sound configuration causes.

Knows which lines are faults and which of them are excused, and why; both are data in ``journal.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from imagegen.model.version import Version, parse_version

_DATA = Path(__file__).with_name("journal.yaml")


@dataclass(frozen=True, slots=True)
class Fault:
    """One line that should not be there, and what kind of fault it is."""

    unit: str
    kind: str
    line: str

    def __str__(self) -> str:
        return f"{self.unit}: {self.kind}: {self.line[:300]}"


@dataclass(frozen=True, slots=True)
class _Excuse:
    units: frozenset[str]
    pattern: re.Pattern[str]
    until: Version | None


@dataclass(frozen=True, slots=True)
class _Rules:
    kinds: Mapping[str, re.Pattern[str]]
    excuses: tuple[_Excuse, ...]


def find_faults(unit: str, version: Version, text: str) -> list[Fault]:
    """Each fault in the log of ``unit`` (without ``.service``) of Kubernetes ``version``, told once."""
    rules = _load_rules()
    excuses = [e for e in rules.excuses if unit in e.units and (e.until is None or version < e.until)]
    found: dict[str, Fault] = {}
    for line in text.splitlines():
        for kind, pattern in rules.kinds.items():
            if pattern.search(line) and not any(e.pattern.search(line) for e in excuses):
                found.setdefault(_strip_times(line), Fault(unit, kind, line))
    return list(found.values())


def _strip_times(line: str) -> str:
    return re.sub(r"\d+", "0", line)


@cache
def _load_rules() -> _Rules:
    document = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    return _Rules(
        {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in document["faults"].items()},
        tuple(_read_excuses(document["excused"])),
    )


def _read_excuses(rows: Iterable[Mapping[str, Any]]) -> Iterable[_Excuse]:
    for row in rows:
        until = parse_version(str(row["until"])) if "until" in row else None
        yield _Excuse(frozenset(row["units"]), re.compile(row["line"]), until)
