"""From command-line words to a cluster, a plan and a secret store; findings are shown on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.diagnostics import Report, Severity
from imagegen.errors import InputError, UsageError

if TYPE_CHECKING:
    from imagegen.cli.terminal import Terminal
    from imagegen.model.cluster import Cluster
    from imagegen.plan.plan import Plan


def read_cluster(path: Path, profile_dirs: Sequence[Path], report: Report) -> Cluster:
    """The cluster of a file; raises InputError with every finding."""
    from imagegen.model.load import load_cluster

    cluster = load_cluster(path, report, profile_dirs=tuple(str(d.resolve()) for d in profile_dirs))
    if cluster is None or report.has_errors:
        raise InputError(report)
    return cluster


def read_plan(path: Path, profile_dirs: Sequence[Path], report: Report) -> Plan:
    """The Plan of a cluster file; raises InputError with every finding."""
    from imagegen.plan.build import build_plan
    from imagegen.plan.profiles import load_profiles

    cluster = read_cluster(path, profile_dirs, report)
    profiles = load_profiles(cluster.profile_dirs, report)
    plan = None if report.has_errors else build_plan(cluster, profiles, report)
    if plan is None or report.has_errors:
        raise InputError(report)
    return plan


def read_plan_aloud(
    path: Path, profile_dirs: Sequence[Path], terminal: Terminal, *, with_notes: bool = False
) -> Plan:
    """``read_plan`` that shows warnings, and notes when asked for; errors travel in the InputError."""
    report = Report()
    plan = read_plan(path, profile_dirs, report)
    if not with_notes and not terminal.verbose:
        report.findings = [f for f in report.findings if f.severity is not Severity.NOTE]
    terminal.show_report(report)
    return plan


def find_secrets(cluster_file: Path, secrets_dir: Path | None) -> Path:
    """The folder of the secret store; raises UsageError when something else has its name."""
    folder = secrets_dir if secrets_dir is not None else cluster_file.parent / "secrets"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the secret store {folder} is not a folder", hint="name another with --secrets DIR")
    return folder


def find_output(out: Path) -> Path:
    """The output folder; raises UsageError when something else has its name."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"the output {out} is not a folder", hint="name a folder with -o OUT")
    return out
