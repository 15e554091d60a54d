"""Cluster models for the tests of the lab."""

from __future__ import annotations

from pathlib import Path

from imagegen.diagnostics import Report
from imagegen.model.cluster import Cluster
from imagegen.model.load import load_cluster

HEAD = """\
version: 1
name: lab
kubernetes: {version: 1.36.4}
"""

SMALL = (
    HEAD
    + """\
network: {nodes: 10.240.0.0/24, gateway: 10.240.0.1, nameservers: [10.240.0.1]}
nodes:
  - {name: etcd-0, roles: [etcd], address: 10.240.0.10}
  - {name: master-0, roles: [master], address: 10.240.0.11}
  - {name: worker-0, roles: [worker], address: 10.240.0.21}
  - {name: worker-1, roles: [worker], address: dhcp, mac: "52:54:00:00:00:22"}
"""
)


def write_cluster(folder: Path, text: str = SMALL) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def load_text(folder: Path, text: str = SMALL) -> Cluster:
    report = Report()
    cluster = load_cluster(write_cluster(folder, text), report)
    assert cluster is not None, report.render_text()
    return cluster
