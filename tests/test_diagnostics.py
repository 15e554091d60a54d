"""Findings: order, excerpt, machine form, codes."""

from __future__ import annotations

import json

import pytest

from imagegen import diagnostics
from imagegen.diagnostics import Diagnostic, Report, Severity, Span, register_code, render_finding


def test_a_finding_looks_like_a_compilers() -> None:
    report = Report(sources={"cluster.yaml": "a: 1\nnetwork:\n  services: 10.240.0.0/16\n"})
    report.error(
        "IMG104",
        "services 10.240.0.0/16 overlaps nodes 10.240.0.0/24",
        Span("cluster.yaml", 3, 13, 26),
        hint="choose another range",
        also=[Span("cluster.yaml", 1, 1)],
    )
    assert report.render_text() == (
        "cluster.yaml:3:13: error[IMG104]: services 10.240.0.0/16 overlaps nodes 10.240.0.0/24\n"
        "3 |   services: 10.240.0.0/16\n"
        "  |             ^^^^^^^^^^^^^\n"
        "  = also: cluster.yaml:1:1\n"
        "  = help: choose another range\n"
    )


def test_findings_come_by_place_and_once() -> None:
    report = Report()
    report.error("IMG101", "second", Span("f", 9, 1))
    report.warning("IMG102", "first", Span("f", 1, 7))
    report.error("IMG101", "second", Span("f", 9, 1))
    report.note("IMG103", "no place")
    assert [f.message for f in report.sorted()] == ["no place", "first", "second"]
    assert report.has_errors
    assert report.has_warnings


def test_a_note_is_neither_error_nor_warning() -> None:
    report = Report()
    report.note("IMG143", "nobody can log in")
    assert not report.has_errors
    assert not report.has_warnings
    assert report.render_text() == "note[IMG143]: nobody can log in\n"


def test_the_machine_form_has_every_part() -> None:
    report = Report()
    report.error(
        "IMG110", "twice", Span("f", 2, 3), hint="rename", also=[Span("f", 1, 3)], path="nodes[1].name"
    )
    assert json.loads(report.render_json()) == [
        {
            "code": "IMG110",
            "severity": "error",
            "message": "twice",
            "file": "f",
            "line": 2,
            "column": 3,
            "hint": "rename",
            "also": [{"file": "f", "line": 1, "column": 3}],
            "path": "nodes[1].name",
        }
    ]


@pytest.mark.parametrize("bad", ["\x1b[31m", "\x07", "\u202e", "\u2066", "\x85", "\u2028", "\u200b"])
def test_nothing_in_a_finding_can_drive_the_terminal(bad: str) -> None:
    finding = Diagnostic(
        code="IMG105",
        severity=Severity.ERROR,
        message=f"got {bad}",
        span=Span(f"f{bad}.yaml", 1, 1),
        hint=f"not {bad}",
    )
    assert bad not in render_finding(finding, {f"f{bad}.yaml": f"name: {bad}"})


def test_a_long_line_is_cut_around_the_place() -> None:
    text = "x" * 5000 + "HERE" + "y" * 5000
    finding = Diagnostic(code="IMG105", severity=Severity.ERROR, message="m", span=Span("f", 1, 5001, 5005))
    _, excerpt, carets = render_finding(finding, {"f": text}).splitlines()
    assert len(excerpt) < 200
    assert excerpt[carets.index("^") :].startswith("HERE")
    assert carets.count("^") == 4


def test_a_place_outside_the_text_has_no_excerpt() -> None:
    finding = Diagnostic(code="IMG105", severity=Severity.ERROR, message="m", span=Span("f", 9, 1))
    assert render_finding(finding, {"f": "one line"}) == "f:9:1: error[IMG105]: m\n"


def test_codes_are_documented_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "CODES", {})
    assert register_code("IMG698", "a title", "an explanation") == "IMG698"
    register_code("IMG698", "a title", "an explanation")
    with pytest.raises(ValueError, match="taken"):
        register_code("IMG698", "another title", "an explanation")
    with pytest.raises(ValueError, match="IMG104"):
        register_code("IMG1", "a title", "an explanation")
