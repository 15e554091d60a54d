"""Cluster file → Cluster. Reports every finding of one run: spelling, shape, meaning."""

from __future__ import annotations

from pathlib import Path

from imagegen.diagnostics import Report, Severity
from imagegen.errors import InputError
from imagegen.model.checks import check_cluster
from imagegen.model.cluster import Cluster
from imagegen.model.draft import read_draft
from imagegen.model.folders import find_profile_dirs
from imagegen.model.resolve import resolve_cluster
from imagegen.source import display_name, parse_yaml, read_source


def load_cluster(path: Path, report: Report, *, profile_dirs: tuple[str, ...] = ()) -> Cluster | None:
    """The cluster that ``path`` describes, or None with at least one error in ``report``.

    Reads the file and looks at the profile folders that it names; starts nothing and writes nothing.
    ``profile_dirs`` are further profile folders (``--profiles``); they come after those of the file.
    """
    text = read_source(path, report)
    if text is None:
        return None
    return load_text(text, path, report, profile_dirs=profile_dirs)


def load_text(text: str, path: Path, report: Report, *, profile_dirs: tuple[str, ...] = ()) -> Cluster | None:
    """As ``load_cluster``, for a text that was read already; ``path`` gives it its name and its folder."""
    file = display_name(path)
    earlier = len(report.findings)
    root = parse_yaml(text, file, report)
    if root is None:
        return None
    draft = read_draft(root, report)
    if draft is None:
        return None
    folders = find_profile_dirs(draft, path, profile_dirs, report)
    resolved = resolve_cluster(draft, file, folders)
    check_cluster(resolved, draft, report)
    if any(finding.severity is Severity.ERROR for finding in report.findings[earlier:]):
        return None
    return resolved.cluster


def read_cluster(path: Path, *, profile_dirs: tuple[str, ...] = ()) -> Cluster:
    """As ``load_cluster``; raises InputError with the report when there is an error."""
    report = Report()
    cluster = load_cluster(path, report, profile_dirs=profile_dirs)
    if cluster is None:
        raise InputError(report)
    return cluster
