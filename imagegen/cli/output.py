"""What ``render`` and ``seed`` share: the run itself, and the summary of what it made and what to do next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.cli.check import count
from imagegen.cli.inputs import find_output, find_secrets, read_plan_aloud
from imagegen.cli.terminal import Terminal
from imagegen.cli.tree import draw_tree, format_size
from imagegen.diagnostics import Report
from imagegen.emit import emit_json

if TYPE_CHECKING:
    from imagegen.backends.manifest import Manifest
    from imagegen.backends.packer.versions import PackerStyle
    from imagegen.backends.render import RenderResult
    from imagegen.model.cluster import Cluster

#: names of nodes that are listed one by one
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of ``render`` or ``seed``, as the command line asks for it."""

    cluster_file: Path
    out: Path
    secrets_dir: Path | None
    profile_dirs: tuple[Path, ...]
    force: bool
    with_iso: bool
    nodes: Sequence[str] | None = None
    #: None leaves the files of Packer builds as they are
    packer: PackerStyle | None = None


def run_job(job: Job, form: str, terminal: Terminal) -> None:
    """Render, and say what was made: a tree and next steps, or JSON on stdout."""
    from imagegen.backends.epoch import read_epoch
    from imagegen.backends.manifest import NAME, parse_manifest
    from imagegen.backends.render import render_cluster
    from imagegen.fetch import lock_path, read_lock
    from imagegen.pki.store import open_store

    epoch = read_epoch(os.environ)
    out, secrets = find_output(job.out), find_secrets(job.cluster_file, job.secrets_dir)
    plan = read_plan_aloud(job.cluster_file, job.profile_dirs, terminal, with_notes=True)
    report = Report()
    result = render_cluster(
        plan,
        open_store(str(job.cluster_file), secrets, os.environ),
        out,
        report,
        now=datetime.now(UTC),
        epoch=epoch,
        with_iso=job.with_iso,
        nodes=job.nodes,
        checksums=read_lock(lock_path(job.cluster_file)).checksums,
        force=job.force,
        packer=job.packer,
        progress=terminal.progress(),
    )
    terminal.show_report(report)
    manifest_file = out / NAME
    manifest = parse_manifest(manifest_file.read_bytes(), str(manifest_file))
    if form == "json":
        terminal.data(emit_json(_as_dict(job, result, manifest)))
    if not terminal.quiet:
        _tell(job, plan.cluster, secrets, result, manifest, terminal)


def _as_dict(job: Job, result: RenderResult, manifest: Manifest) -> dict[str, object]:
    return {
        "cluster": manifest.cluster,
        "out": str(job.out),
        "nodes": result.nodes,
        "written": result.output.written,
        "unchanged": result.output.unchanged,
        "removed": result.output.removed,
        "left": result.output.left,
        "issued": [{"name": change.name, "reason": change.reason} for change in result.issued.changes],
        "stale_nodes": list(result.issued.stale_nodes),
        "files": [
            {"path": a.path, "size": a.size, "sha256": a.sha256, "secret": a.secret}
            for a in sorted(manifest.artifacts.values(), key=lambda a: a.path)
        ],
    }


def _tell(
    job: Job, cluster: Cluster, secrets: Path, result: RenderResult, manifest: Manifest, terminal: Terminal
) -> None:
    files = [(artifact.path, artifact.size) for artifact in manifest.artifacts.values()]
    terminal.say(draw_tree(str(job.out), files).rstrip("\n"))
    done, issued = result.output, result.issued
    size = format_size(sum(size for _, size in files))
    terminal.say(
        f"\n{count(result.nodes, 'node')}, {count(len(files), 'file')}, {size}: "
        f"{done.written:,} written, {done.unchanged:,} unchanged, {done.removed:,} removed"
    )
    kept = f", {issued.kept:,} kept" if issued.kept else ""
    terminal.say(f"secret store {secrets}: {count(len(issued.changes), 'entry', 'entries')} issued{kept}")
    for change in issued.changes:
        terminal.detail(f"  {change.name}: {change.reason}")
    for path in done.left:
        terminal.say(f"left as it is, because somebody changed it: {job.out / path}")
    if issued.stale_nodes:
        names = _shorten(issued.stale_nodes)
        terminal.say(f"not in the cluster any more, but still in the secret store: {names}")
    terminal.say("\nnext:")
    for line in _next_steps(job, cluster, secrets, issued_something=bool(issued.changes)):
        terminal.say(f"  {line}")


def _next_steps(job: Job, cluster: Cluster, secrets: Path, *, issued_something: bool) -> list[str]:
    file, out = job.cluster_file, job.out
    is_baked = cluster.image.pki.value == "baked"
    steps = []
    if issued_something:
        steps.append(f"back up {secrets}, and keep it and {out} out of version control: they hold keys")
    if not job.with_iso:
        if not is_baked:
            steps.append(f"imagegen seed {file} -o {out}    makes the seed ISOs")
        return [*steps, f"imagegen pki verify {file}    proves every TLS edge"]
    image = f"a stock {cluster.image.os} image"
    if cluster.image.mode.value == "golden":
        image = "its golden image"
        made = "each node's image, with its seed inside" if is_baked else "the golden images"
        steps.append(f"imagegen build {file} -o {out}    makes {made}")
    seed = out / "nodes" / "NODE" / "seed.iso"
    if is_baked:
        steps.append(f"start each machine from its own {out / 'images' / cluster.name}-NODE, without a seed")
    else:
        steps.append(f"give each machine {image} and {seed} as a CD-ROM")
    admin = out / "kubeconfigs" / "admin.kubeconfig"
    steps.append(f"kubectl --kubeconfig {admin} get nodes    once {cluster.endpoint.host} answers")
    return steps


def _shorten(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
