"""Clocks that are wrong, on machines: a battery that is empty, and a year that is over.

Containers have no clock of their own, so these are for QEMU alone. Two machines, two and a half starts each:
about a quarter of an hour in emulation on two cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from imagegen.backends.image.layers import remove_tree
from imagegen.diagnostics import Report
from imagegen.lab.cluster import LabCluster, LabOptions, start_lab
from imagegen.pki.expiry import renew_material
from imagegen.pki.store import open_store
from tests.vm.labs import find_mirror, list_versions, require_lab, run_imagegen

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.long]

CLUSTER = """\
version: 1
name: clocks
kubernetes: {{version: {version}}}
network:
  nodes: 10.242.0.0/24
  gateway: 10.242.0.1
  nameservers: [10.242.0.1]
  services: 10.34.0.0/16
  pods: 10.202.0.0/16
nodes:
  - {{name: control, roles: [etcd, master], address: 10.242.0.10}}
  - {{name: worker-0, roles: [worker], address: 10.242.0.21}}
"""
PATIENCE = 1200.0
YEAR_AND_A_DAY = timedelta(days=366)
#: seconds that the clocks of this machine and of a node may differ: a question takes a while
TOLERANCE = 15.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster file with its golden images beside it."""
    require_lab()
    mirror = find_mirror()
    path = tmp_path_factory.mktemp("clock") / "cluster.yaml"
    path.write_text(CLUSTER.format(version=list_versions(mirror)[0]))
    where = ["--mirror", str(mirror), "--offline"]
    run_imagegen("build", str(path), "-o", str(path.parent / "out"), "--format", "qcow2", *where)
    return path


@pytest.fixture
def started(cluster: Path) -> Iterator[Path]:
    """The cluster file; whatever the test starts of it is ended."""
    try:
        yield cluster
    finally:
        run_imagegen("down", str(cluster), "--quiet", check=False)


def make_options(cluster: Path, *, ahead: timedelta = timedelta(), rtc: str = "utc") -> LabOptions:
    return LabOptions(out=cluster.parent / "out", clock_offset=ahead.total_seconds(), rtc_base=rtc)


def read_clock(lab: LabCluster, node: str) -> float:
    """Seconds since 1970, as the node has it."""
    return float(lab.ssh(node, "date +%s.%N").stdout)


def assert_ready(lab: LabCluster) -> None:
    """Asked of the API by a client that does not mind what our own clock says of the server's certificate."""
    nodes = lab.api.list_nodes()
    assert {name: node.ready for name, node in nodes.items()} == {"worker-0": True}


def test_clocks_at_1970_are_set_before_anything_looks_at_a_certificate(started: Path) -> None:
    """Every certificate is of tomorrow for such a machine, until the time server has answered."""
    lab = start_lab(started, make_options(started, rtc="1970-01-01T00:00:00"))
    lab.wait_ready(PATIENCE)
    assert_ready(lab)
    for node in lab.nodes:
        assert abs(read_clock(lab, node.name) - datetime.now(UTC).timestamp()) < TOLERANCE, node.name
        assert "Leap status     : Normal" in lab.ssh(node.name, "sudo chronyc -n tracking").stdout
        journal = lab.ssh(node.name, "sudo journalctl --no-pager | grep -c 'is not yet valid' || true").stdout
        assert journal.strip() == "0", node.name


def test_a_year_and_a_day_later_the_stated_action_brings_everything_back(started: Path) -> None:
    """The machines slept for a year: docs/security.md says what to do, and this does it."""
    lab = start_lab(started, LabOptions(out=started.parent / "out", fresh=True))
    lab.wait_ready(PATIENCE)
    lab.kubectl("create", "configmap", "memory", "--from-literal=word=elephant")
    lab.down(keep_disks=True)

    then = datetime.now(UTC) + YEAR_AND_A_DAY
    renew(started, then)
    # a worker that was off for longer than its certificate lives is made anew
    remove_tree(lab.folder.machine("worker-0"))
    (started.parent / "secrets" / "nodes" / "worker-0" / "bootstrap-token").unlink()
    rtc = then.strftime("%Y-%m-%dT%H:%M:%S")
    lab = start_lab(started, make_options(started, ahead=YEAR_AND_A_DAY, rtc=rtc))
    lab.wait_ready(PATIENCE)
    assert_ready(lab)
    for node in lab.nodes:
        ahead = read_clock(lab, node.name) - datetime.now(UTC).timestamp()
        assert abs(ahead - YEAR_AND_A_DAY.total_seconds()) < TOLERANCE, node.name
    kept = lab.api.get("/api/v1/namespaces/default/configmaps/memory")
    assert kept["data"] == {"word": "elephant"}


def renew(cluster: Path, now: datetime) -> None:
    """``imagegen pki renew``, on that day."""
    from tests.plan.plans import read_cluster

    store = open_store(str(cluster), cluster.parent / "secrets", os.environ)
    result = renew_material(read_cluster(cluster), store, Report(), now=now)
    renewed = {change.name for change in result.changes}
    assert any("apiserver" in name for name in renewed), renewed
