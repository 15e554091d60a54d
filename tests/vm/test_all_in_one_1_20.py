"""One node of Kubernetes 1.20.2, the oldest that is built from source: it comes up and works like the newest.

Built with a newer reflect2 than it was released with, so that no daemon of it may panic.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from imagegen.lab.cluster import LabCluster
from tests.vm.labs import boot, find_mirror, list_versions, require_lab, wait_until, write_example

pytestmark = [pytest.mark.vm, pytest.mark.cluster]

VERSION = "1.20.2"
NODE_DAEMONS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet")
#: what a daemon says of a file or a flag that it does not like
COMPLAINT = re.compile(r"lenient|unknown (?:field|flag)|strict decoding", re.IGNORECASE)


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LabCluster, Any]]:
    require_lab()
    if VERSION not in list_versions(find_mirror()):
        pytest.skip(f"no Kubernetes {VERSION} in the mirror; make mirror builds it from Debian's sources")
    cluster = write_example(tmp_path_factory.mktemp("old"), "all-in-one", VERSION)
    with boot(cluster) as running:
        yield running


@pytest.fixture
def old(booted: tuple[LabCluster, Any]) -> LabCluster:
    return booted[0]


def read_journal(lab: LabCluster, unit: str) -> str:
    return lab.ssh(
        lab.nodes[0].name, f"sudo journalctl --boot --no-pager --output cat -u {unit}.service"
    ).stdout


def test_the_node_is_ready_and_runs_this_version(booted: tuple[LabCluster, Any]) -> None:
    lab, timeline = booted
    print(f"\nboot to Ready: {timeline['ready_seconds']} s with {timeline['runs_on']}")
    (node,) = json.loads(lab.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    assert node["status"]["nodeInfo"]["kubeletVersion"] == f"v{VERSION}"
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://1.6.")


def test_dns_pods_run_and_their_logs_can_be_read(old: LabCluster) -> None:
    """A pod network, and a serving certificate that our approver has approved."""

    def is_ready() -> bool:
        shown = old.kubectl("-n", "kube-system", "get", "deployment", "coredns", "-o", "json", check=False)
        return shown.returncode == 0 and json.loads(shown.stdout)["status"].get("readyReplicas") == 2

    wait_until("both pods of CoreDNS are ready", is_ready, patience=240)
    logs = old.kubectl("-n", "kube-system", "logs", "deployment/coredns").stdout
    assert "CoreDNS-1.7.0" in logs


def test_secrets_are_encrypted_and_anonymous_requests_refused(old: LabCluster) -> None:
    old.kubectl("create", "secret", "generic", "canary", "--from-literal=word=yellow-bird")
    node = old.nodes[0].name
    read = (
        "sudo ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/pki/ca.crt "
        "--cert=/etc/etcd/pki/healthcheck-client.crt --key=/etc/etcd/pki/healthcheck-client.key "
        "get /registry/secrets/default/canary | head -c 400 | base64 -w0"
    )
    stored = base64.b64decode(old.ssh(node, read).stdout)
    assert b"k8s:enc:secretbox:v1:key1:" in stored
    assert b"yellow-bird" not in stored
    asked = (
        "curl --silent --insecure --output /dev/null --write-out '%{http_code}' https://127.0.0.1:6443/api"
    )
    if old.ssh(node, "command -v curl", check=False).returncode == 0:
        assert old.ssh(node, asked).stdout.strip() == "401"


@pytest.mark.parametrize("daemon", NODE_DAEMONS)
def test_no_daemon_panicked_or_disliked_its_files(old: LabCluster, daemon: str) -> None:
    journal = read_journal(old, daemon)
    assert len(journal) > 1000, journal
    assert "Observed a panic" not in journal
    assert "goroutine 1 [running]" not in journal
    assert not [line for line in journal.splitlines() if COMPLAINT.search(line)]


def test_nothing_in_plain_http_is_open_to_the_network(old: LabCluster) -> None:
    """10251 and 10252 were the ports of the scheduler and the controller manager."""
    shown = old.ssh(old.nodes[0].name, "ss --no-header --listening --tcp --numeric").stdout
    open_ports = {
        line.split()[3].rpartition(":")[2] for line in shown.splitlines() if "127.0.0.1:" not in line
    }
    assert not {"8080", "10251", "10252", "10255"} & open_ports, shown
