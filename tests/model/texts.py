"""Cluster files for tests, and findings in one line each."""

from __future__ import annotations

from pathlib import Path

from imagegen.diagnostics import Diagnostic, Report
from imagegen.model.cluster import Cluster
from imagegen.model.load import load_text

BASE = """\
version: 1
name: demo
kubernetes:
  version: 1.36.4
network:
  nodes: 10.240.0.0/24
access:
  ssh_authorized_keys:
    - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ops@example
nodes:
  - {name: etcd-0, roles: [etcd], address: 10.240.0.10}
  - {name: master-0, roles: [master], address: 10.240.0.11}
  - {name: worker-0, roles: [worker], address: 10.240.0.21}
"""


def edit(*pairs: tuple[str, str], text: str = BASE) -> str:
    """``text`` with each old part replaced by its new part; the old part must be there."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def add(section: str, line: str) -> tuple[str, str]:
    """The edit that adds ``line`` as first line of ``section``."""
    return f"{section}:\n", f"{section}:\n  {line}\n"


def load(text: str, folder: Path = Path("/nonexistent")) -> tuple[Cluster | None, Report]:
    report = Report()
    return load_text(text, folder / "cluster.yaml", report), report


def findings(text: str, folder: Path = Path("/nonexistent")) -> list[Diagnostic]:
    return load(text, folder)[1].sorted()


def lines(text: str) -> list[str]:
    """``LINE:COLUMN CODE message`` of every finding."""
    return [f"{f.span.line}:{f.span.column} {f.code} {f.message}" for f in findings(text) if f.span]


def resolve(text: str) -> Cluster:
    """The cluster of a text without errors."""
    cluster, report = load(text)
    assert cluster is not None, report.render_text()
    return cluster
