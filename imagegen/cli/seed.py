"""``imagegen seed``: seed ISOs."""

from __future__ import annotations

from pathlib import Path

import click

from imagegen.cli.inputs import read_cluster
from imagegen.cli.options import (
    cluster_argument,
    force_option,
    format_option,
    node_option,
    output_option,
    profiles_option,
    require_known,
    secrets_option,
)
from imagegen.cli.output import Job, run_job
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import Report


@click.command("seed", cls=Verb)
@cluster_argument()
@node_option(multiple=True)
@output_option
@secrets_option
@profiles_option
@force_option
@format_option()
@click.pass_obj
def command(
    terminal: Terminal,
    cluster: Path,
    nodes: tuple[str, ...],
    out: Path,
    secrets_dir: Path | None,
    profile_dirs: tuple[Path, ...],
    force: bool,
    form: str,
) -> None:
    """Write a seed ISO for every node of CLUSTER, or only for each --node, into OUT.

    Does all that "imagegen render" does, and adds nodes/NODE/seed.iso: a NoCloud ISO to attach to that
    machine. With --node, the files of other nodes stay as they are.
    """
    if nodes:
        known = [node.name for node in read_cluster(cluster, profile_dirs, Report()).nodes]
        for name in nodes:
            require_known("node", name, known)
    job = Job(
        cluster_file=cluster,
        out=out,
        secrets_dir=secrets_dir,
        profile_dirs=profile_dirs,
        force=force,
        with_iso=True,
        nodes=nodes or None,
    )
    run_job(job, form, terminal)
