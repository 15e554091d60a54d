"""Outcomes as JUnit's XML and as rows, whatever words are in them."""

from __future__ import annotations

from xml.etree import ElementTree

from imagegen.verify.outcomes import Outcome, count_failed, emit_junit, list_rows

OUTCOMES = [
    Outcome(place="worker-0", name="file /etc/x", seconds=0.25),
    Outcome(
        place="worker-0", name="unit <kubelet>", problem='not active: "dead" & gone\nsecond line\x00\x1b'
    ),
    Outcome(place="smoke", name="dns", skipped="needs what failed"),
]


def test_junit_counts_and_escapes() -> None:
    root = ElementTree.fromstring(emit_junit("test", OUTCOMES))
    suites = {suite.get("name"): suite for suite in root}
    assert {name: (s.get("tests"), s.get("failures"), s.get("skipped")) for name, s in suites.items()} == {
        "worker-0": ("2", "1", "0"),
        "smoke": ("1", "0", "1"),
    }
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("message") == 'not active: "dead" & gone'
    assert (failure.text or "").endswith("second line??")


def test_rows_and_count() -> None:
    assert count_failed(OUTCOMES) == 1
    assert [row["passed"] for row in list_rows(OUTCOMES)] == [True, False, False]
