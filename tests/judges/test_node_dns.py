"""The real CoreDNS of the mirror answers for the nodes; the real metrics-server knows its flags."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from imagegen.fetch.archive import extract_members
from imagegen.fetch.images import parse_reference
from imagegen.kubernetes import node_dns
from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.manifests.metrics_server import metrics_server_arguments
from imagegen.kubernetes.releases import load_releases
from imagegen.model.version import parse_version
from imagegen.resources import find_resource
from tests.judges.test_flags import MIRROR
from tests.plan.plans import read_cluster

pytestmark = pytest.mark.judge

ADDRESS = "10.240.0.40"
ASK = """
import sys, time
from imagegen.verify.dnsquery import DnsError, ask_dns
for attempt in range(50):
    try:
        print(*ask_dns(sys.argv[1], 53, sys.argv[2], "A"))
        break
    except (DnsError, OSError):
        time.sleep(0.1)
"""


def test_coredns_answers_for_the_nodes(tmp_path: Path) -> None:
    cluster = read_cluster(find_resource("examples", "lb-dns", "cluster.yaml"))
    part = load_releases(cluster.kubernetes.version).part("coredns")
    archive = MIRROR / part.url.removeprefix("https://")
    if not archive.exists():
        pytest.skip(f"no {part.file_name} in {MIRROR}; make mirror builds it")
    extract_members(archive, {part.member("coredns"): tmp_path / "coredns"})
    (tmp_path / "hosts").write_text(node_dns.render_hosts(cluster))
    corefile = node_dns.render_corefile(cluster).replace(node_dns.FOLDER, str(tmp_path))
    (tmp_path / "Corefile").write_text(corefile)
    script = f"""set -eu
ip link set lo up
ip address add {ADDRESS}/24 dev lo
NODE_ADDRESS={ADDRESS} {tmp_path}/coredns -conf {tmp_path}/Corefile >{tmp_path}/log 2>&1 &
for name in master-0 lb-0; do {sys.executable} -c '{ASK}' {ADDRESS} $name; done
"""
    user = ["--map-root-user"] if os.geteuid() else []
    done = subprocess.run(
        ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    assert done.stdout.split() == ["10.240.0.11", ADDRESS], (tmp_path / "log").read_text()


def test_metrics_server_knows_its_flags(tmp_path: Path) -> None:
    version = parse_version("1.36.4")
    reference = parse_reference(load_releases(version).image("metrics-server"))
    host, _, rest = reference.base.removeprefix("https://").partition("/")
    blobs = MIRROR / host / rest / "blobs"
    layers = sorted(blobs.glob("sha256:*"), key=lambda path: path.stat().st_size) if blobs.is_dir() else []
    if not layers:
        pytest.skip(f"no {reference.text} in {MIRROR}; make mirror builds it")
    with tarfile.open(layers[-1]) as archive:
        archive.extract("metrics-server", tmp_path)
    program = tmp_path / "metrics-server"
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^ +--([a-z0-9-]+)", done.stdout + done.stderr, re.MULTILINE))
    words = metrics_server_arguments(load_gates(version))
    rendered = {word.removeprefix("--").partition("=")[0] for word in words}
    assert rendered <= known
    assert "kubelet-insecure-tls" in known - rendered
