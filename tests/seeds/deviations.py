"""Where an example differs from its source: the file ``deviations.yaml`` beside it, and its judgement."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from imagegen.resources import find_resource


@dataclass(frozen=True, slots=True)
class Deviation:
    """Lines of the source (patterns of fnmatch) that the example does not have, and why."""

    lines: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Deviations:
    """``names``: what the source calls something, and what we call it."""

    names: tuple[tuple[str, str], ...]
    deviations: tuple[Deviation, ...]


def read_deviations(example: str) -> Deviations:
    """The deviations that ship with an example."""
    path = Path(find_resource("examples", example, "deviations.yaml"))
    document = yaml.safe_load(path.read_text("utf-8"))
    return Deviations(
        tuple((entry["source"], entry["ours"]) for entry in document.get("names", [])),
        tuple(Deviation(tuple(each["lines"]), each["reason"]) for each in document["deviations"]),
    )


def find_faults(source: Iterable[str], ours: set[str], stated: Deviations) -> list[str]:
    """What is wrong with the statement: lines that nobody explains, and explanations that explain nothing."""
    missing: set[str] = set()
    present: set[str] = set()
    used: set[str] = set()
    ours = {spell_alike(line) for line in ours}
    for line in source:
        renamed, names = _rename(line, stated.names)
        used |= names
        (present if spell_alike(renamed) in ours else missing).add(line)
    faults = [f"not there, not explained: {line}" for line in sorted(missing - _explained(missing, stated))]
    for deviation in stated.deviations:
        for pattern in deviation.lines:
            faults += [
                f"explained by {pattern!r}, but there: {line}"
                for line in sorted(present)
                if fnmatchcase(line, pattern)
            ]
            if not any(fnmatchcase(line, pattern) for line in missing):
                faults.append(f"explains nothing: {pattern}")
    return faults + [f"renames nothing: {name}" for name, _ in stated.names if name not in used]


def _explained(missing: set[str], stated: Deviations) -> set[str]:
    patterns = [pattern for deviation in stated.deviations for pattern in deviation.lines]
    return {line for line in missing if any(fnmatchcase(line, pattern) for pattern in patterns)}


def _rename(line: str, names: tuple[tuple[str, str], ...]) -> tuple[str, set[str]]:
    """``line`` in our words; whole words only, the longest first."""
    used = set()
    for source, ours in sorted(names, key=lambda pair: -len(pair[0])):
        pattern = rf"(?<![\w.]){re.escape(source)}(?![\w/-]|\.\w)"
        changed = re.sub(pattern, lambda _, text=ours: f"\0{text}\0", line)  # type: ignore[misc]
        if changed != line:
            used.add(source)
            line = changed
    return line.replace("\0", ""), used


def spell_alike(line: str) -> str:
    """Lists whose order says nothing, in order; systemd's two words for yes as one."""
    if line.startswith("unit ") and line.endswith("=true"):
        return f"{line.removesuffix('true')}yes"
    head, equals, value = line.partition("=")
    is_list = head.endswith(("--enable-admission-plugins", "--tls-cipher-suites"))
    return f"{head}={','.join(sorted(value.split(',')))}" if equals and is_list else line
