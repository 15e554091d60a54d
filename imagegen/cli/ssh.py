"""``imagegen ssh``: log in to a node of the cluster on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from imagegen.cli.options import cluster_argument, complete_nodes, profiles_option, require_known
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb


@click.command("ssh", cls=Verb, context_settings={"ignore_unknown_options": True})
@cluster_argument()
@click.argument("node", metavar="NODE", shell_complete=complete_nodes)
@click.argument("words", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@profiles_option
@click.pass_context
def command(
    ctx: click.Context, cluster: Path, node: str, words: tuple[str, ...], profile_dirs: tuple[Path, ...]
) -> None:
    """Log in to NODE of CLUSTER, or run COMMAND there, as the access user of the cluster file.

    The lab's own key opens the door; sudo asks for no password. The exit code is the command's.
    """
    from imagegen.lab.access import SSH
    from imagegen.lab.cluster import open_lab
    from imagegen.run import Runner, require_tools

    terminal: Terminal = ctx.obj
    lab = open_lab(cluster, profile_dirs=profile_dirs, runner=Runner(log=terminal.detail))
    require_known("node", node, [one.name for one in lab.nodes])
    require_tools([SSH])
    argv = [SSH.name, "-F", str(lab.folder.ssh_config), node]
    ctx.exit(lab.runner.attach([*argv, "--", *words] if words else argv))
