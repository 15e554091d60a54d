"""Clusters for tests of the Kubernetes room: one of each minor, read the real way."""

from __future__ import annotations

from pathlib import Path

from imagegen.kubernetes.gates import Gates, load_gates
from imagegen.kubernetes.releases import known_minors, newest_patch
from imagegen.model.cluster import Cluster
from tests.plan.plans import QUICKSTART, read_cluster, write_cluster

MINORS = known_minors()


def make_cluster(
    folder: Path,
    minor: str = "1.36",
    *,
    nodes: tuple[str, ...] = QUICKSTART,
    network: str = "",
    more: str = "",
    flags: str = "",
) -> tuple[Cluster, Gates]:
    """A cluster and its gates; ``flags`` is a flow mapping for ``kubernetes.extra_args``."""
    version = f"{newest_patch(minor)}" + (f", extra_args: {flags}" if flags else "")
    path = write_cluster(folder, nodes, version=version, network=network, more=more)
    cluster = read_cluster(path)
    return cluster, load_gates(cluster.kubernetes.version)
