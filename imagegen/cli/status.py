"""``imagegen status``: how far the cluster on this machine is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagegen.cli.options import cluster_argument, format_option, profiles_option
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb

if TYPE_CHECKING:
    from imagegen.lab.watch import Watch


@click.command("status", cls=Verb)
@cluster_argument()
@click.option("--watch", "watching", is_flag=True, help="Go on until every node is ready; Ctrl-C ends it.")
@profiles_option
@format_option()
@click.pass_context
def command(
    ctx: click.Context, cluster: Path, watching: bool, profile_dirs: tuple[Path, ...], form: str
) -> None:
    """Show how far each node of CLUSTER is: boot, cloud-init, services, certificate, Ready.

    Times are seconds since the node was switched on. Exit code 1 when a node is not where it should be.
    """
    from imagegen.cli.labview import LabView
    from imagegen.emit import emit_json
    from imagegen.lab.cluster import open_lab
    from imagegen.lab.timeline import render_table
    from imagegen.run import Runner

    terminal: Terminal = ctx.obj
    lab = open_lab(cluster, profile_dirs=profile_dirs, runner=Runner(log=terminal.detail))
    watch = lab.watch()
    watch.look()
    with LabView(terminal) as view:
        while watching and not watch.is_complete and not watch.has_trouble:
            view.on_change(watch)
            time.sleep(1.0)
            watch.look()
    watch.ask_units()
    watch.save()
    if form == "json":
        terminal.data(emit_json(watch.timeline().as_dict()))
    else:
        terminal.data(render_table(watch.nodes.values()))
        terminal.data(f"{_summarize(watch)}\n")
    ctx.exit(0 if watch.is_complete else 1)


def _summarize(watch: Watch) -> str:
    """One line about the whole: the API, everything, and what runs it."""
    api, ready = watch.api_seconds, watch.ready_seconds
    words = ["the API server is not ready" if api is None else f"API ready after {api:.0f} s"]
    if ready is not None:
        words.append(f"everything after {ready:.0f} s")
    return f"{watch.lab.cluster.name}: {', '.join(words)}; runs with {watch.lab.engine.describe()}"
