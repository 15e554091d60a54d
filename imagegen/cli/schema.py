"""``imagegen schema``: the JSON Schema for editors."""

from __future__ import annotations

import click

from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb


@click.command("schema", cls=Verb)
@click.option("--profile", is_flag=True, help="The schema of a profile file instead.")
@click.pass_obj
def command(terminal: Terminal, profile: bool) -> None:
    """Print the JSON Schema of the cluster file.

    Editors with the YAML language server complete and check a cluster file that begins with
    "# yaml-language-server: $schema=cluster.schema.json".
    """
    from imagegen.emit import emit_json
    from imagegen.model.schema import cluster_schema
    from imagegen.plan.profile_format import profile_schema

    terminal.data(emit_json(profile_schema() if profile else cluster_schema()))
