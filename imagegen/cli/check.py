"""``imagegen check``: every finding about a cluster file at once."""

from __future__ import annotations

from pathlib import Path

import click

from imagegen.cli.inputs import read_plan
from imagegen.cli.options import cluster_argument, format_option, profiles_option
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import Report, Severity
from imagegen.errors import InputError


@click.command("check", cls=Verb)
@cluster_argument()
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
@format_option()
@profiles_option
@click.pass_context
def command(
    ctx: click.Context, cluster: Path, strict: bool, form: str, profile_dirs: tuple[Path, ...]
) -> None:
    """Check the cluster file CLUSTER and show every finding at once.

    Findings go to stdout, with file, line, column and a hint. Exit code 2 when there are errors (with
    --strict: errors or warnings).
    """
    terminal: Terminal = ctx.obj
    report = Report()
    summary = ""
    try:
        plan = read_plan(cluster, profile_dirs, report)
        nodes, sets = count(len(plan.cluster.nodes), "node"), count(len(plan.cluster.role_sets), "set")
        summary = f"{nodes} in {sets} of roles, Kubernetes {plan.cluster.kubernetes.version}"
    except InputError as error:
        report = error.report
    if form == "json":
        terminal.data(report.render_json())
    else:
        terminal.show_report(report, to_stdout=True)
    tally = {s: sum(f.severity is s for f in report.sorted()) for s in Severity}
    failed = report.has_errors or (strict and report.has_warnings)
    if failed or report.has_warnings:
        terminal.say(
            f"{cluster}: {count(tally[Severity.ERROR], 'error')}, {count(tally[Severity.WARNING], 'warning')}"
        )
    if not failed:
        terminal.say(f"{cluster}: fine, {summary}")
    ctx.exit(InputError.exit_code if failed else 0)


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 node``, ``2 nodes``; ``plural`` where an s is not enough."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
