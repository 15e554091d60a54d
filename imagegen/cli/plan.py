"""``imagegen plan``: what will be on every machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from imagegen.cli.inputs import read_plan_aloud
from imagegen.cli.options import cluster_argument, format_option, node_option, profiles_option, role_option
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.errors import UsageError
from imagegen.model.cluster import Node
from imagegen.plan.dump import iter_plan_json
from imagegen.plan.outline import find_node_plan, find_role_plan, iter_plan_text
from imagegen.plan.plan import Plan


@click.command("plan", cls=Verb)
@cluster_argument()
@node_option(multiple=False)
@role_option
@format_option()
@profiles_option
@click.pass_obj
def command(
    terminal: Terminal,
    cluster: Path,
    node: str | None,
    role: str | None,
    form: str,
    profile_dirs: tuple[Path, ...],
) -> None:
    """Show what will be on every machine of CLUSTER, on one node, or on one set of roles.

    "bake" is in the golden image, "boot" comes with the seed. Secrets are named, never shown.
    """
    if node is not None and role is not None:
        raise UsageError("--node and --role cannot be given together")
    plan = read_plan_aloud(cluster, profile_dirs, terminal)
    if form == "text":
        pieces = iter_plan_text(plan, node=node, role=role)
    else:
        pieces = iter_plan_json(_narrow(plan, node, role))
    for piece in pieces:
        terminal.data(piece)


def _narrow(plan: Plan, node: str | None, role: str | None) -> Plan:
    """The same plan with one node, or with one set of roles and its nodes."""
    nodes: tuple[Node, ...]
    if node is not None:
        found = find_node_plan(plan, node)
        nodes, role_plan = (found.node,), found.role_plan
    elif role is not None:
        role_plan = find_role_plan(plan, role)
        nodes = tuple(n for n in plan.cluster.nodes if n.roles == role_plan.roles)
    else:
        return plan
    return replace(plan, cluster=replace(plan.cluster, nodes=nodes), role_plans=(role_plan,))
