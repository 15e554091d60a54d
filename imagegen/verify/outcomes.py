"""What checks of running nodes found out, and how it is told: as text, JSON or JUnit's XML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

#: characters that XML 1.0 cannot hold
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One check at one place (a node's name, or ``smoke``). ``problem`` is empty when it passed; ``skipped``
    says why it was not made.
    """

    place: str
    name: str
    problem: str = ""
    skipped: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.problem and not self.skipped


def count_failed(outcomes: Iterable[Outcome]) -> int:
    return sum(1 for outcome in outcomes if outcome.problem)


def list_rows(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Rows for JSON."""
    return [
        {
            "place": one.place,
            "check": one.name,
            "passed": one.passed,
            "problem": one.problem,
            "skipped": one.skipped,
            "seconds": round(one.seconds, 3),
        }
        for one in outcomes
    ]


def emit_junit(name: str, outcomes: Sequence[Outcome]) -> str:
    """JUnit's XML: one suite a place, one case a check."""
    root = ElementTree.Element("testsuites", name=name)
    for place in dict.fromkeys(one.place for one in outcomes):
        own = [one for one in outcomes if one.place == place]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=place,
            tests=str(len(own)),
            failures=str(count_failed(own)),
            errors="0",
            skipped=str(sum(1 for one in own if one.skipped)),
            time=f"{sum(one.seconds for one in own):.3f}",
        )
        for one in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=place, name=_clean(one.name), time=f"{one.seconds:.3f}"
            )
            if one.problem:
                first = _clean(one.problem).splitlines()[0]
                ElementTree.SubElement(case, "failure", message=first).text = _clean(one.problem)
            elif one.skipped:
                ElementTree.SubElement(case, "skipped", message=_clean(one.skipped))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
