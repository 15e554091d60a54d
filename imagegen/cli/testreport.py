"""Tells what a test of running nodes found: text for people, JSON or JUnit's XML for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagegen.cli.check import count
from imagegen.cli.terminal import Terminal
from imagegen.diagnostics import printable

if TYPE_CHECKING:
    from imagegen.verify.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Findings:
    """The checks of the nodes' plans, of the CIS benchmark, and of the smoke test."""

    suite: list[Outcome] = field(default_factory=list)
    benchmark: list[Outcome] = field(default_factory=list)
    smoke: list[Outcome] = field(default_factory=list)

    @property
    def all(self) -> list[Outcome]:
        return [*self.suite, *self.benchmark, *self.smoke]


def tell_findings(cluster: str, found: Findings, form: str, terminal: Terminal) -> None:
    """Data on stdout in the form that was asked for, one line about everything on stderr."""
    from imagegen.emit import emit_json
    from imagegen.verify.outcomes import count_failed, emit_junit, list_rows

    outcomes = found.all
    if form == "json":
        terminal.data(emit_json({"cluster": cluster, "checks": list_rows(outcomes)}))
    elif form == "junit":
        terminal.data(emit_junit(f"imagegen test {cluster}", outcomes))
    else:
        show_all = terminal.verbose
        terminal.data("".join(_list_suite(found.suite, show_all=show_all)))
        alone = not found.suite and not found.smoke
        terminal.data("".join(list_benchmark(found.benchmark, show_all=show_all or alone)))
        terminal.data("".join(_render_line(one, f"{one.seconds:6.1f} s") for one in found.smoke))
    failed, skipped = count_failed(outcomes), sum(1 for one in outcomes if one.skipped)
    passed = len(outcomes) - failed - skipped
    total = count(len(outcomes), "check")
    terminal.say(f"{cluster}: {total}, {passed:,} passed, {failed:,} failed, {skipped:,} skipped")


def _list_suite(outcomes: Sequence[Outcome], *, show_all: bool) -> Iterator[str]:
    """One line a node; what failed in full, what was skipped by reason."""
    for place in dict.fromkeys(one.place for one in outcomes):
        own = [one for one in outcomes if one.place == place]
        passed = sum(1 for one in own if one.passed)
        yield f"{place}: {passed} of {count(len(own), 'check')} passed\n"
        yield from (_render_line(one, "") for one in own if one.problem or (show_all and not one.skipped))
        reasons = Counter(one.skipped for one in own if one.skipped)
        yield from (f"  skipped {number}: {printable(why)}\n" for why, number in reasons.most_common())


def list_benchmark(outcomes: Sequence[Outcome], *, show_all: bool) -> Iterator[str]:
    """The benchmark as a table: a line a check, with the nodes where it was made; without ``show_all`` only
    what failed and what is waived.
    """
    if not outcomes:
        return
    rows = {one.name: [other for other in outcomes if other.name == one.name] for one in outcomes}
    lines = [(_judge(own), name, own) for name, own in rows.items()]
    words = Counter(word for word, _, _ in lines)
    told = ", ".join(f"{words[word]} {word}" for word in ("passed", "waived", "failed") if words[word])
    nodes = count(len({one.place for one in outcomes}), "node")
    yield f"CIS benchmark: {count(len(lines), 'check')} on {nodes}: {told}\n"
    shown = [line for line in lines if show_all or line[0] != "passed"]
    width = max((len(name) for _, name, _ in shown), default=0)
    for word, name, own in shown:
        yield f"  {word:6}  {printable(name):{width}}  {', '.join(one.place for one in own)}\n"
        told_already: set[str] = set()
        for one in own:
            reason = f"{one.place}: {one.problem}" if one.problem else one.skipped.removeprefix("waived: ")
            if reason and reason not in told_already:
                told_already.add(reason)
                yield f"          {printable(reason)}\n"


def _judge(outcomes: Sequence[Outcome]) -> str:
    if any(one.problem for one in outcomes):
        return "failed"
    return "waived" if any(one.skipped for one in outcomes) else "passed"


def _render_line(one: Outcome, note: str) -> str:
    if one.problem:
        return f"FAILED {one.place}: {printable(one.name)}: {printable(one.problem)}\n"
    word, tail = ("skipped", f": {one.skipped}") if one.skipped else ("ok", note and f"  {note.strip()}")
    return f"  {word:7} {printable(one.name)}{printable(tail)}\n"
