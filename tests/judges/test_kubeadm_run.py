"""kubeadm, etcd and the control plane that it describes, on our files: a cluster that nodes are let into."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagegen.fetch.archive import extract_members
from imagegen.kubernetes.apiserver import limits_anonymous
from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import load_releases
from imagegen.model.version import Version
from tests.judges.test_flags import MIRROR
from tests.judges.test_flags_run import find_programs
from tests.judges.test_kubeadm import VERSIONS, find_kubeadm, make_layout, needs_kubeadm, place_node
from tests.judges.tools import Tool

pytestmark = [pytest.mark.judge, pytest.mark.slow]


def place_crictl(version: Version, root: Path) -> None:
    """Older versions want to find it before they complain that no runtime answers."""
    part = load_releases(version).part("crictl")
    (root / "usr/bin").mkdir(parents=True)
    archive = MIRROR / part.url.removeprefix("https://")
    extract_members(archive, {part.member("crictl"): root / "usr/bin/crictl"})


@needs_kubeadm
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_a_cluster_of_kubeadm_lets_its_nodes_in(
    tmp_path: Path, etcd: Tool, etcdctl: Tool, version: Version
) -> None:
    """Discovery by a node's own token, what the token may read, and no key that has to be uploaded."""
    plan = make_layout(tmp_path, version)
    for node in ("etcd-0", "master-0", "master-1", "worker-0"):
        place_node(plan, tmp_path, node)
        place_crictl(version, tmp_path / node)
    programs = find_programs(version, tmp_path / "programs", etcd, etcdctl)
    programs["kubeadm"] = str(find_kubeadm(version))
    user = ["--map-root-user"] if os.geteuid() else []
    driver = [sys.executable, "-m", "tests.judges.kubeadm_cluster", str(tmp_path), json.dumps(programs)]
    done = subprocess.run(
        ["unshare", *user, "--net", *driver], capture_output=True, text=True, timeout=600, check=False
    )
    logs = "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(tmp_path.glob("*.log")))
    assert done.returncode == 0, done.stderr + logs
    said = json.loads(done.stdout)
    assert said.pop("ready") is not None, logs
    failed = {name: seen for name, seen in said.items() if ":" in name and seen[0] != 0}
    assert failed == {}, logs
    assert said["node"] == 201
    role = "master" if version.minor < 24 else "control-plane"
    assert f"node-role.kubernetes.io/{role}" in said["labels"]
    assert said["taints"] == [f"node-role.kubernetes.io/{role}"]
    assert said["anonymous"] == [200, 401 if limits_anonymous(load_gates(version)) else 403]
    assert (
        'the existing "apiserver" certificate' in said["master-1: join phase control-plane-prepare certs"][1]
    )
    assert "Reading configuration from the" in said["worker-0: join phase preflight"][1]
