"""The quick tier: golden images' own root trees, as containers, come up as a cluster, pass ``imagegen test``
and refuse what must be refused; afterwards nothing is left.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imagegen.errors import ImagegenError
from imagegen.lab import nspawncgroups
from imagegen.lab.cluster import LabCluster
from imagegen.lab.nspawn import try_nspawn
from imagegen.run import Runner
from tests.vm.labs import boot, find_mirror, list_versions, require_lab, wait_until, write_example

pytestmark = [pytest.mark.vm, pytest.mark.long]

BRIDGED = """\
version: 1
name: bridged
kubernetes: {{version: {version}}}
network:
  nodes: 10.241.0.0/24
  gateway: 10.241.0.1
  nameservers: [10.241.0.1]
  services: 10.33.0.0/16
  pods: 10.201.0.0/16
  cni: bridge
nodes:
  - {{name: control, roles: [etcd, master], address: 10.241.0.10}}
  - {{name: worker-0, roles: [worker], address: 10.241.0.21}}
  - {{name: worker-1, roles: [worker], address: 10.241.0.22}}
"""
#: why a check may be skipped in the quick tier
EXCUSES = ("shares this machine's kernel", "differs on this engine", "--disruptive", "waived: ")


def _require_nspawn() -> str:
    """The newest Kubernetes of the mirror; skips with what the machine lacks."""
    require_lab()
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("not installed: systemd-container")
    try:
        try_nspawn(Runner())
    except ImagegenError as error:
        pytest.skip(str(error))
    return list_versions(find_mirror())[0]


def _test(cluster: Path, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    """Status, outcomes and words of ``imagegen test``."""
    argv = [sys.executable, "-m", "imagegen", "test", str(cluster), "--format", "json", *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    return done.returncode, json.loads(done.stdout)["checks"] if done.stdout else [], done.stderr


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LabCluster, Any]]:
    cluster = write_example(tmp_path_factory.mktemp("nspawn"), "quickstart", _require_nspawn())
    with boot(cluster, "--engine", "nspawn", patience=400) as booted:
        yield booted


def _failed(checks: list[dict[str, Any]]) -> dict[str, str]:
    return {f"{one['place']}: {one['check']}": one["problem"] for one in checks if one["problem"]}


def test_quickstart_comes_up_and_passes_its_own_checks(quick: tuple[LabCluster, Any]) -> None:
    lab, timeline = quick
    assert timeline["engine"] == "nspawn"
    print(f"\nboot to Ready: {timeline['ready_seconds']} s with {timeline['runs_on']}")
    # flannel and DNS need a moment after the nodes are ready
    lab.kubectl("rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=180s", timeout=200)
    status, checks, words = _test(Path(lab.cluster.file))
    assert (status, _failed(checks)) == (0, {}), words
    assert {one["place"] for one in checks} == {"etcd-0", "master-0", "worker-0", "worker-1", "smoke"}
    assert len(checks) > 400
    skipped = [one for one in checks if one["skipped"]]
    assert [one for one in skipped if not any(excuse in one["skipped"] for excuse in EXCUSES)] == []
    smoke = [one for one in checks if one["place"] == "smoke" and one["passed"]]
    # only the death of a node was not asked for
    assert len(smoke) == 14


def test_faults_on_a_node_are_found(quick: tuple[LabCluster, Any]) -> None:
    lab = quick[0]
    plant = (
        "sudo systemctl stop chrony && sudo chmod 0644 /etc/kubernetes/bootstrap.kubeconfig"
        " && echo '# mine' | sudo tee -a /etc/hosts"
        " && sudo sysctl -q net.ipv4.tcp_syncookies=0"
        " && sudo systemd-run --unit planted python3 -m http.server 8088"
        " && sudo systemd-run --unit broken /bin/false"
    )
    mend = (
        "sudo systemctl stop planted; sudo systemctl reset-failed; sudo sysctl -q net.ipv4.tcp_syncookies=1;"
        " sudo sed -i '/# mine/d' /etc/hosts; sudo chmod 0600 /etc/kubernetes/bootstrap.kubeconfig;"
        " sudo systemctl start chrony"
    )
    lab.ssh("worker-0", plant)
    try:
        time.sleep(2)
        status, checks, _ = _test(Path(lab.cluster.file), "--only", "suite", "--node", "worker-0")
    finally:
        lab.ssh("worker-0", mend)
    assert status == 1
    assert _failed(checks).keys() == {
        "worker-0: unit chrony.service",
        "worker-0: clock is synchronised",
        "worker-0: file /etc/kubernetes/bootstrap.kubeconfig",
        "worker-0: file /etc/hosts",
        "worker-0: sysctl net.ipv4.tcp_syncookies",
        "worker-0: no port open but those of the port table",
        "worker-0: no failed unit",
    }


#: run on a node as root: replaces what follows a key of the bootstrap kubeconfig; nothing is shown
REPLACE = """\
import re, sys
file = "/etc/kubernetes/bootstrap.kubeconfig"
text = open(file).read()
key, value = sys.argv[1:]
assert key + ": " in text
open(file, "w").write(re.sub(key + ": .*", key + ": " + value, text))
"""
FILE = "/etc/kubernetes/bootstrap.kubeconfig"


def test_a_wrong_token_and_a_wrong_authority_do_not_join(quick: tuple[LabCluster, Any]) -> None:
    """A node that forgot who it is may only come back with its own token, and only to its own cluster."""
    lab, node = quick[0], "worker-1"
    forget = "sudo rm -rf /var/lib/kubelet/kubelet.kubeconfig /var/lib/kubelet/pki"
    lab.ssh(node, f"sudo systemctl stop kubelet && sudo cp -a {FILE} /var/tmp/good && {forget}")
    lab.kubectl("delete", "node", node)
    try:
        _start_with(lab, node, "token", "zzzzzz.zzzzzzzzzzzzzzzz")
        _wait_for_journal(lab, node, "Unauthorized")
        assert node not in _list_nodes(lab)
        foreign = base64.b64encode(_make_authority()).decode()
        _start_with(lab, node, "certificate-authority-data", foreign)
        _wait_for_journal(lab, node, "certificate signed by unknown authority")
        assert node not in _list_nodes(lab)
    finally:
        lab.ssh(
            node, f"sudo systemctl stop kubelet; sudo mv /var/tmp/good {FILE}; sudo systemctl start kubelet"
        )
    wait_until("the node joins with its own token", lambda: node in _list_nodes(lab), patience=120)


def _start_with(lab: LabCluster, node: str, key: str, value: str) -> None:
    """Start the kubelet with its good bootstrap kubeconfig but for one value."""
    program = shlex.quote(REPLACE)
    lab.ssh(
        node,
        f"sudo systemctl stop kubelet; sudo cp -a /var/tmp/good {FILE}"
        f" && sudo python3 -c {program} {key} {value} && sudo systemctl start kubelet",
    )


def _make_authority() -> bytes:
    """The certificate of an authority that bears our authority's name and is another one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes-ca")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1))
    builder = builder.not_valid_after(now + timedelta(days=9))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _list_nodes(lab: LabCluster) -> set[str]:
    return set(lab.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").stdout.split())


def _wait_for_journal(lab: LabCluster, node: str, words: str) -> None:
    """Wait until the kubelet has said it since its last start, not in an earlier life."""
    run = "_SYSTEMD_INVOCATION_ID=$(systemctl show --property InvocationID --value kubelet)"
    command = f"sudo journalctl {run} --no-pager | grep -c '{words}' || true"
    wait_until(words, lambda: int(lab.ssh(node, command).stdout) > 0, patience=90)


def test_a_node_comes_back_after_a_power_cut_and_a_restart(quick: tuple[LabCluster, Any]) -> None:
    lab = quick[0]
    lab.power_cut("worker-0")
    lab.start_node("worker-0")
    lab.ssh("master-0", "sudo reboot", check=False)
    time.sleep(5)
    lab.wait_ready(240)
    assert "reboot" not in lab.ssh("worker-0", "cloud-init status --long").stdout


def test_nothing_is_left_after_a_kill(quick: tuple[LabCluster, Any]) -> None:
    lab = quick[0]
    groups = [nspawncgroups.name_group(lab.network.process, node.name) for node in lab.nodes]
    assert all(nspawncgroups.list_processes(group) for group in groups)
    processes = {pid for group in groups for pid in nspawncgroups.list_processes(group)}
    os.kill(lab.network.process.pid, 9)
    wait_until(
        "every process of the nodes has ended",
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes),
        patience=30,
    )
    name = groups[0].partition("/")[0]
    wait_until(
        "the cgroups are gone", lambda: not list(Path("/sys/fs/cgroup").glob(f"**/{name}")), patience=30
    )
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(lab.folder.root) not in mounts
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert "vb-" not in links


def test_static_routes_carry_pods_and_a_dead_nodes_pods_move(tmp_path: Path) -> None:
    version = _require_nspawn()
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(BRIDGED.format(version=version))
    with boot(cluster, "--engine", "nspawn", patience=400) as (lab, _):
        lab.kubectl(
            "rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=180s", timeout=200
        )
        status, checks, words = _test(cluster, "--only", "smoke", "--disruptive")
        assert (status, _failed(checks)) == (0, {}), words
        passed = {one["check"] for one in checks if one["passed"]}
        assert passed >= {"pod to pod", "eviction: a dead node's pods move"}
        routes = lab.ssh("worker-0", "ip route").stdout
        assert "via 10.241.0.22" in routes, routes
