"""``imagegen diff``: what changes on which node."""

from __future__ import annotations

from pathlib import Path

import click

from imagegen.cli.inputs import read_plan_aloud
from imagegen.cli.options import CLUSTER_FILE, format_option, profiles_option
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.emit import emit_json
from imagegen.plan.diff import PlanDocument, diff_plans, plan_document, read_plan_document


@click.command("diff", cls=Verb)
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--exit-code", is_flag=True, help="Exit code 1 when something changes.")
@format_option()
@profiles_option
@click.pass_context
def command(
    ctx: click.Context, a: Path, b: Path, exit_code: bool, form: str, profile_dirs: tuple[Path, ...]
) -> None:
    """Show what changes on which node from A to B.

    A and B are cluster files, files plan.json, or output folders.
    """
    terminal: Terminal = ctx.obj
    old, new = (_read_side(path, profile_dirs, terminal) for path in (a, b))
    found = diff_plans(old, new)
    terminal.data(emit_json(found.as_dict()) if form == "json" else found.render_text())
    ctx.exit(1 if exit_code and not found.is_empty else 0)


def _read_side(path: Path, profile_dirs: tuple[Path, ...], terminal: Terminal) -> PlanDocument:
    if path.is_dir() and not (path / "plan.json").exists() and (path / CLUSTER_FILE).exists():
        path = path / CLUSTER_FILE
    if path.is_dir() or path.suffix == ".json":
        return read_plan_document(path)
    return plan_document(read_plan_aloud(path, profile_dirs, terminal))
