"""The lab's own seeds: those of the cluster file, plus the lab's throw-away key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from imagegen.backends.epoch import read_epoch
from imagegen.backends.render import render_cluster
from imagegen.diagnostics import Report
from imagegen.errors import InputError
from imagegen.fetch import lock_path, read_lock
from imagegen.lab.access import make_ssh_key
from imagegen.lab.folder import LabFolder
from imagegen.model.cluster import Cluster
from imagegen.pki.store import open_store
from imagegen.plan.build import build_plan
from imagegen.plan.profiles import load_profiles
from imagegen.progress import SILENT, Progress


def write_seeds(
    cluster: Cluster,
    folder: LabFolder,
    report: Report,
    *,
    secrets: Path | None,
    now: datetime,
    nodes: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> None:
    """Write the seeds of all nodes, or of these, into the lab's folder, with certificates of ``now``. Golden
    images never see the key.

    Raises InputError when the cluster has errors, ImagegenError when writing fails.
    """
    opened = cluster.admit(make_ssh_key(folder.ssh_key))
    plan = build_plan(opened, load_profiles(cluster.profile_dirs, report), report)
    if plan is None or report.has_errors:
        raise InputError(report)
    render_cluster(
        plan,
        open_store(cluster.file, secrets, os.environ),
        folder.seeds,
        report,
        now=now,
        epoch=read_epoch(os.environ),
        with_iso=True,
        nodes=nodes,
        checksums=read_lock(lock_path(Path(cluster.file))).checksums,
        progress=progress,
    )
