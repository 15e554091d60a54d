"""``imagegen upgrade-check``: what a newer Kubernetes changes for a cluster, and its new cluster file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from imagegen.cli.inputs import read_cluster
from imagegen.cli.options import cluster_argument, format_option, profiles_option
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import Report
from imagegen.emit import emit_json
from imagegen.errors import UsageError
from imagegen.kubernetes.upgrade import Change, Effect, Step, list_untouched, plan_upgrade
from imagegen.model.cluster import Cluster
from imagegen.model.version import Version, parse_version


@click.command("upgrade-check", cls=Verb)
@cluster_argument()
@click.option("--to", "target", required=True, metavar="VERSION", help="The exact version to go to.")
@click.option("--all", "everything", is_flag=True, help="Tell what this cluster does not use, too.")
@click.option(
    "--write",
    "new_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a cluster file for that version, without the flags that are gone.",
)
@format_option()
@profiles_option
@click.pass_obj
def command(
    terminal: Terminal,
    cluster: Path,
    target: str,
    everything: bool,
    new_file: Path | None,
    form: str,
    profile_dirs: tuple[Path, ...],
) -> None:
    """Say what changes for CLUSTER on the way to another Kubernetes version, minor by minor.

    That is: flags, feature gates, admission plug-ins and choices that the cluster file names; with --all
    everything that the version table knows. The rest imagegen renders for the new version by itself. Nodes
    are replaced, one minor after the other.
    """
    try:
        version = parse_version(target)
    except ValueError as error:
        raise UsageError(str(error)) from error
    model = read_cluster(cluster, profile_dirs, Report())
    steps = plan_upgrade(model, version)
    if form == "json":
        terminal.data(emit_json([_as_dict(step, everything) for step in steps]))
    else:
        terminal.data("".join(_render(step, everything) for step in steps))
        stays = list_untouched(model, steps)
        if stays:
            names = ", ".join(f"{component} {item}" for component, item in stays)
            terminal.data(f"stays as it is: {names}\n")
        yours = [change for step in steps for change in step.changes if change.concerns_the_user]
        terminal.say(f"{model.name}: {len(steps)} steps, {len(yours)} changes to what the cluster file names")
    if new_file is not None:
        _write(model, cluster, version, steps, new_file, terminal)


def _wanted(step: Step, everything: bool) -> list[Change]:
    chosen = [change for change in step.changes if everything or change.concerns_the_user]
    return sorted(chosen, key=lambda change: (not change.concerns_the_user, change.component, change.item))


def _as_dict(step: Step, everything: bool) -> dict[str, object]:
    return {
        "version": str(step.version),
        "companions": [{"part": part, "from": old, "to": new} for part, old, new in step.companions],
        "changes": [asdict(change) for change in _wanted(step, everything)],
    }


def _render(step: Step, everything: bool) -> str:
    lines = [f"to {step.version}"]
    for change in _wanted(step, everything):
        says = f": {change.says}" if change.says else ""
        place = f" ({change.path})" if change.path else ""
        lines.append(f"  {change.component} {change.item} {change.effect.value}{says}{place}")
        if change.instead:
            lines.append(f"    instead: {change.instead}")
        if change.evidence and everything:
            lines.append(f"    evidence: {change.evidence}")
    if step.companions:
        lines.append("  parts: " + ", ".join(f"{part} {old} -> {new}" for part, old, new in step.companions))
    return "\n".join([*lines, ""])


def _write(
    model: Cluster, source: Path, version: Version, steps: tuple[Step, ...], target: Path, terminal: Terminal
) -> None:
    """The cluster file with the new version and without the lines of removed flags, comments and all."""
    if target.exists():
        raise UsageError(f"{target} is there already", hint="name a file that does not exist")
    lines = source.read_text("utf-8").splitlines(keepends=True)
    span = model.span_of("kubernetes.version")
    assert span is not None
    old = str(model.kubernetes.version)
    line = lines[span.line - 1]
    lines[span.line - 1] = line[: span.column - 1] + line[span.column - 1 :].replace(old, str(version), 1)
    gone: set[int] = set()
    for change in (change for step in steps for change in step.changes):
        place = model.span_of(change.path) if change.path.startswith("kubernetes.extra_args.") else None
        name = change.path.rpartition(".")[2]
        if change.effect is not Effect.REMOVED or place is None or change.item != f"--{name}":
            continue
        if lines[place.line - 1].lstrip().startswith(f"{name}:"):
            gone.add(place.line - 1)
        else:
            terminal.say(f"{place}: take --{name} out by hand; it shares its line")
    target.write_text("".join(text for number, text in enumerate(lines) if number not in gone), "utf-8")
    terminal.say(f"{target}: Kubernetes {version}, {len(gone)} flags left out; now: imagegen check {target}")
