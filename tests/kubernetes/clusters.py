"""Clusters for tests of the Kubernetes room: one of each minor, read the real way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from imagegen.kubernetes.gates import Gates, load_gates
from imagegen.kubernetes.releases import known_minors, newest_patch
from imagegen.model.cluster import Cluster, Runtime
from imagegen.model.compatibility import CONTAINERD_FIRST
from imagegen.model.support import FIRST_BOOTED_MINOR
from tests.plan.plans import QUICKSTART, read_cluster, write_cluster

MINORS = known_minors()
#: the minors whose add-ons are rendered, and that a golden image boots
WHOLE_MINORS = tuple(minor for minor in MINORS if int(minor.split(".")[1]) >= FIRST_BOOTED_MINOR)
#: the oldest minor whose kubelet runs on the systems of golden images
OLDEST_BOOTABLE = "1.19"


def make_cluster(
    folder: Path,
    minor: str = "1.36",
    *,
    nodes: tuple[str, ...] = QUICKSTART,
    network: str = "",
    more: str = "",
    flags: str = "",
    layout: str = "",
) -> tuple[Cluster, Gates]:
    """A cluster and its gates; ``flags`` is a flow mapping for ``kubernetes.extra_args``."""
    wanted = newest_patch(minor)
    # older ones need cgroups of version 1, which no golden image has: their files are judged all the same
    readable = max(wanted, newest_patch(OLDEST_BOOTABLE))
    version = f"{readable}" + (f", extra_args: {flags}" if flags else "")
    version += f", layout: {layout}" if layout else ""
    path = write_cluster(folder, nodes, version=version, network=network, more=more)
    cluster = read_cluster(path)
    if wanted != readable:
        kubernetes = replace(cluster.kubernetes, version=wanted)
        runtime = Runtime.CONTAINERD if wanted.minor >= CONTAINERD_FIRST else Runtime.DOCKER
        cluster = replace(cluster, kubernetes=kubernetes, runtime=runtime)
    return cluster, load_gates(cluster.kubernetes.version)
