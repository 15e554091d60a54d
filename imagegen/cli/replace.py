"""``imagegen replace``: a new machine in the place of a node."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagegen.cli.inputs import find_output, find_secrets, read_cluster
from imagegen.cli.options import (
    cluster_argument,
    force_option,
    format_option,
    profiles_option,
    require_known,
    secrets_option,
    timeout_option,
)
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import Report
from imagegen.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagegen.backends.replacement import Step
    from imagegen.model.cluster import Cluster

#: a new machine in emulation on two busy processors
_TIMEOUT_SECONDS = 1200


@click.command("replace", cls=Verb)
@cluster_argument()
@click.argument("node", metavar="NODE")
@click.option(
    "-o",
    "--output",
    "out",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Where the new seed goes, as with imagegen seed.",
)
@click.option("--lab", "in_lab", is_flag=True, help="Do it, with the node that imagegen up has started.")
@timeout_option(_TIMEOUT_SECONDS, "With --lab: how long to wait for the new machine.")
@secrets_option
@profiles_option
@force_option
@format_option()
@click.pass_obj
def command(
    terminal: Terminal,
    cluster: Path,
    node: str,
    out: Path | None,
    in_lab: bool,
    timeout: float,
    secrets_dir: Path | None,
    profile_dirs: tuple[Path, ...],
    force: bool,
    form: str,
) -> None:
    """Make a new seed for NODE of CLUSTER, with a new identity, and say what to do with it.

    Nodes are replaced, never repaired. The node gets new keys, certificates and a new bootstrap token; all
    others keep theirs. The steps that follow are printed in their order: what the cluster must forget, what
    it must be told, and what to start. With --lab they are done, for the cluster on this machine.
    """
    model = read_cluster(cluster, profile_dirs, Report())
    require_known("node", node, [one.name for one in model.nodes])
    if in_lab == (out is not None):
        raise UsageError(
            "replace wants to know where: -o OUT for a new seed, or --lab for the cluster on this machine"
        )
    secrets = find_secrets(cluster, secrets_dir)
    if not secrets.is_dir():
        raise UsageError(f"there is no secret store {secrets}: {node} was never made, so render or seed it")
    if out is None:
        _replace_in_lab(cluster, node, timeout, secrets, profile_dirs, form, terminal)
        return
    steps = _write_seed(model, node, find_output(out), secrets, force, terminal)
    _tell(model, node, steps, form, terminal)


def _write_seed(
    model: Cluster, name: str, out: Path, secrets: Path, force: bool, terminal: Terminal
) -> Sequence[Step]:
    from imagegen.backends.epoch import read_epoch
    from imagegen.backends.render import render_cluster
    from imagegen.backends.replacement import (
        TOKEN_FILE,
        check_replaceable,
        emit_token_secret,
        has_new_token,
        list_steps,
    )
    from imagegen.fetch import lock_path, read_lock
    from imagegen.pki import inventory
    from imagegen.pki.expiry import replace_identity
    from imagegen.pki.store import open_store
    from imagegen.plan.build import build_plan
    from imagegen.plan.profiles import load_profiles

    node = model.node(name)
    check_replaceable(model, node)
    now, report = datetime.now(UTC), Report()
    plan = build_plan(model.rejoin(name), load_profiles(model.profile_dirs, report), report)
    if plan is None or report.has_errors:
        raise InputError(report)
    store = open_store(model.file, secrets, os.environ)
    token, former = inventory.bootstrap_token_name(name), ""
    if has_new_token(model, node) and store.exists(token):
        former = store.read(token).decode("ascii")
    progress = terminal.progress()
    with progress.step("issuing certificates"):
        replace_identity(model, store, report, name, now=now)
    files: dict[str, bytes] = {}
    if has_new_token(model, node):
        body = emit_token_secret(model, node, store.read(token).decode("ascii"), now)
        files[f"nodes/{name}/{TOKEN_FILE}"] = body
    render_cluster(
        plan,
        store,
        out,
        report,
        now=now,
        epoch=read_epoch(os.environ),
        with_iso=True,
        nodes=(name,),
        checksums=read_lock(lock_path(Path(model.file))).checksums,
        force=force,
        secret_files=files,
        progress=progress,
    )
    terminal.show_report(report)
    return list(list_steps(model, node, str(out / "nodes" / name), former))


def _tell(model: Cluster, name: str, steps: Sequence[Step], form: str, terminal: Terminal) -> None:
    from imagegen.emit import emit_json

    if form == "json":
        rows = [{"what": step.what, "command": step.command} for step in steps]
        terminal.data(emit_json({"cluster": model.name, "node": name, "steps": rows}))
        return
    for number, step in enumerate(steps, start=1):
        terminal.data(f"{number}. {step.what}\n")
        if step.command:
            terminal.data(f"     {step.command}\n")


def _replace_in_lab(
    cluster: Path,
    name: str,
    timeout: float,
    secrets: Path,
    profile_dirs: tuple[Path, ...],
    form: str,
    terminal: Terminal,
) -> None:
    from imagegen.cli.labview import LabView
    from imagegen.emit import emit_json
    from imagegen.lab.cluster import open_lab
    from imagegen.lab.replacing import replace_node
    from imagegen.lab.timeline import render_table
    from imagegen.lab.watch import watch_lab
    from imagegen.run import Runner

    lab = open_lab(cluster, profile_dirs=profile_dirs, runner=Runner(log=terminal.detail))
    require_known("running node", name, [one.name for one in lab.nodes])
    report = Report()
    replace_node(lab, name, report, secrets=secrets, progress=terminal.progress())
    terminal.show_report(report)
    watch = lab.watch()
    with LabView(terminal, nodes=(name,)) as view:
        timeline = watch_lab(watch, timeout, nodes=[name], on_change=view.on_change)
    if form == "json":
        terminal.data(
            emit_json({"cluster": lab.cluster.name, "node": name, **timeline.nodes[name].as_dict()})
        )
    else:
        terminal.data(render_table([timeline.nodes[name]]))
