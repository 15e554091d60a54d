"""``imagegen pki``: shows, proves and renews the certificates of a cluster."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagegen.cli.check import count
from imagegen.cli.inputs import find_secrets, read_cluster
from imagegen.cli.options import (
    cluster_argument,
    format_option,
    node_option,
    profiles_option,
    require_known,
    secrets_option,
)
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb, VerbGroup
from imagegen.diagnostics import Report
from imagegen.emit import emit_json
from imagegen.errors import UsageError

if TYPE_CHECKING:
    from imagegen.model.cluster import Cluster
    from imagegen.pki.expiry import CertificateStatus
    from imagegen.pki.store import SecretStore


@click.group("pki", cls=VerbGroup)
def command() -> None:
    """Show, verify or renew the certificates of a cluster.

    They lie in the secret store, the folder "secrets" beside the cluster file. "imagegen render" makes them.
    """


@command.command("show", cls=Verb, short_help="List authorities and certificates.")
@cluster_argument()
@node_option(multiple=False)
@click.option(
    "--due", is_flag=True, help="Only what is missing, expired or due; exit code 1 if there is any."
)
@secrets_option
@profiles_option
@format_option()
@click.pass_context
def show(
    ctx: click.Context,
    cluster: Path,
    node: str | None,
    due: bool,
    secrets_dir: Path | None,
    profile_dirs: tuple[Path, ...],
    form: str,
) -> None:
    """List every authority and certificate of CLUSTER: names, usages, how long it lasts.

    States: ok, due (last 30 days, or last third of a shorter life), expired, early, missing, unreadable.
    """
    terminal: Terminal = ctx.obj
    found = _read_cluster(cluster, profile_dirs, terminal)
    if node is not None:
        require_known("node", node, [n.name for n in found.nodes])
    from imagegen.pki.expiry import list_expiry

    now = datetime.now(UTC)
    rows = [
        row
        for row in list_expiry(found, _open_store(cluster, secrets_dir), now)
        if _is_wanted(row, node, due)
    ]
    terminal.data(emit_json([r.as_dict() for r in rows]) if form == "json" else _draw_rows(rows, now))
    if due:
        terminal.say(f"{count(len(rows), 'certificate')} missing, expired or due")
    ctx.exit(1 if due and rows else 0)


def _is_wanted(row: CertificateStatus, node: str | None, due: bool) -> bool:
    return (node is None or row.name.startswith(f"nodes/{node}/")) and not (due and row.state == "ok")


def _draw_rows(rows: list[CertificateStatus], now: datetime) -> str:
    """One line a certificate, and what is in it below."""
    width = max((len(row.name) for row in rows), default=0)
    lines = []
    for row in rows:
        until = f"{(row.ends - now).days:>6,} days, until {row.ends:%Y-%m-%d}" if row.ends else ""
        lines.append(f"{row.state:10} {row.name:{width}}  {until}".rstrip())
        facts = [row.subject, f"by {row.issuer}", "+".join(row.usages), " ".join(row.names)]
        lines.append(f"{'':10}   {'; '.join(filter(None, facts))}")
    return "".join(f"{line}\n" for line in lines)


@command.command("verify", cls=Verb, short_help="Prove every TLS edge.")
@cluster_argument()
@secrets_option
@profiles_option
@format_option()
@click.pass_context
def verify(
    ctx: click.Context, cluster: Path, secrets_dir: Path | None, profile_dirs: tuple[Path, ...], form: str
) -> None:
    """Prove every TLS edge of CLUSTER with what is in the secret store.

    Who dials whom, trusting which authority, by which name, as whom: each edge is a real handshake in memory.
    Exit code 1 when an edge is broken.
    """
    from imagegen.pki.verify import verify_edges

    terminal: Terminal = ctx.obj
    found = _read_cluster(cluster, profile_dirs, terminal)
    report = Report()
    proof = verify_edges(found, _open_store(cluster, secrets_dir), datetime.now(UTC), report)
    if form == "json":
        findings = [finding.as_dict() for finding in report.sorted()]
        numbers = {"edges": proof.edges, "handshakes": proof.handshakes, "broken": proof.broken}
        terminal.data(emit_json({**numbers, "findings": findings}))
    else:
        terminal.show_report(report, to_stdout=True)
    state = f"{proof.broken:,} broken" if report.has_errors else "all of them hold"
    terminal.say(f"{count(proof.edges, 'TLS edge')}, {count(proof.handshakes, 'handshake')}: {state}")
    ctx.exit(1 if report.has_errors else 0)


@command.command("renew", cls=Verb, short_help="Issue certificates again.")
@cluster_argument()
@node_option(multiple=True)
@click.option("--all", "everything", is_flag=True, help="Renew what is not due as well.")
@secrets_option
@profiles_option
@format_option()
@click.pass_obj
def renew(
    terminal: Terminal,
    cluster: Path,
    nodes: tuple[str, ...],
    everything: bool,
    secrets_dir: Path | None,
    profile_dirs: tuple[Path, ...],
    form: str,
) -> None:
    """Issue certificates of CLUSTER again, with new keys: those that are due, or all.

    Authorities stay. Nodes that run keep what they have; render again and replace them.
    """
    from imagegen.pki.expiry import renew_material

    found = _read_cluster(cluster, profile_dirs, terminal)
    for name in nodes:
        require_known("node", name, [n.name for n in found.nodes])
    now = datetime.now(UTC)
    report = Report()
    store = _open_store(cluster, secrets_dir)
    with terminal.progress().step("issuing certificates"):
        result = renew_material(found, store, report, now=now, everything=everything, nodes=nodes)
    terminal.show_report(report)
    if form == "json":
        changes = [{"name": change.name, "reason": change.reason} for change in result.changes]
        terminal.data(emit_json({"issued": changes, "kept": result.kept}))
    else:
        terminal.data("".join(f"{change.name}: {change.reason}\n" for change in result.changes))
    terminal.say(f"{count(len(result.changes), 'entry', 'entries')} issued, {result.kept:,} kept")
    if result.changes:
        terminal.say("next: render again, and replace the nodes that hold them")


def _read_cluster(path: Path, profile_dirs: tuple[Path, ...], terminal: Terminal) -> Cluster:
    report = Report()
    cluster = read_cluster(path, profile_dirs, report)
    if terminal.verbose:
        terminal.show_report(report)
    return cluster


def _open_store(cluster_file: Path, secrets_dir: Path | None) -> SecretStore:
    """The store, which must be there; raises UsageError."""
    from imagegen.pki.store import open_store

    folder = find_secrets(cluster_file, secrets_dir)
    if not folder.is_dir():
        raise UsageError(
            f"there is no secret store {folder}",
            hint=f"imagegen render {cluster_file} -o OUT makes it; --secrets DIR names another",
        )
    return open_store(str(cluster_file), folder, os.environ)
