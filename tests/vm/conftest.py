"""Clusters that several tests share: booted once a run, by the first test that asks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagegen.lab.cluster import LabCluster, open_lab
from tests.vm.labs import boot, require_lab, write_newest


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LabCluster, Any]]:
    """The quickstart example with the newest Kubernetes of the mirror, Ready, and its timeline.

    IMAGEGEN_LAB names the cluster file of one that is up already, for whoever writes tests.
    """
    running = os.environ.get("IMAGEGEN_LAB")
    if running:
        lab = open_lab(Path(running))
        yield lab, json.loads(lab.folder.timeline.read_text())
        return
    require_lab()
    cluster = write_newest(tmp_path_factory.mktemp("quickstart"), "quickstart")
    with boot(cluster) as booted:
        yield booted


@pytest.fixture
def lab(quickstart: tuple[LabCluster, Any]) -> LabCluster:
    """The running quickstart cluster. A test that breaks something mends it before it ends."""
    return quickstart[0]
