"""``imagegen down``: end the cluster on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from imagegen.cli.options import cluster_argument
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.errors import UsageError


@click.command("down", cls=Verb)
@cluster_argument()
@click.option("--keep-disks", is_flag=True, help="Shut the nodes down cleanly and keep their disks.")
@click.option("--purge", is_flag=True, help="Remove the lab's folder, with consoles and timeline.")
@click.pass_obj
def command(terminal: Terminal, cluster: Path, keep_disks: bool, purge: bool) -> None:
    """End the machines of CLUSTER and everything that belongs to them.

    Their disks go; consoles and the timeline stay in the lab's folder. The golden images and the secret store
    are not touched. Also cleans up after a run that was killed, and needs no valid cluster file.
    """
    if keep_disks and purge:
        raise UsageError("--keep-disks and --purge want opposite things")

    from imagegen.lab.cluster import end_lab
    from imagegen.run import Runner

    ended = end_lab(cluster, keep_disks=keep_disks, purge=purge, runner=Runner(log=terminal.detail))
    if not ended:
        terminal.say(f"the lab of {cluster} was not running")
    elif keep_disks:
        terminal.say(f"stopped; the disks are kept, imagegen up {cluster} goes on with them")
    else:
        terminal.say("stopped; nothing of it runs any more")
