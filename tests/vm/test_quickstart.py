"""The quickstart example on four machines: it comes up by itself, works, and comes back."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any

import pytest

from imagegen.lab.cluster import LabCluster
from imagegen.lab.errors import LabError
from imagegen.lab.progress import Event
from tests.vm.labs import run_imagegen, wait_until

pytestmark = [pytest.mark.vm, pytest.mark.cluster]

WORKERS = ("worker-0", "worker-1")

#: one pod a worker, from the image that every worker has already: CoreDNS can serve, log and answer HTTP
POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: probe-{node}, labels: {{app: probe}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  dnsPolicy: Default
  containers:
    - name: probe
      image: {image}
      imagePullPolicy: Never
      args: [-dns.port=1053]
"""


def test_every_worker_became_ready_and_the_times_are_kept(quickstart: tuple[LabCluster, Any]) -> None:
    lab, timeline = quickstart
    assert json.loads(lab.folder.timeline.read_text())["ready_seconds"] == timeline["ready_seconds"]
    assert timeline["kubernetes"] == str(lab.cluster.kubernetes.version)
    for name in WORKERS:
        events = timeline["nodes"][name]["events"]
        assert events["kernel"] < events["cloud-init"] < events["Ready"] <= timeline["ready_seconds"], name
        assert events["CSR"] <= events["Ready"], name
    print(f"\nboot to Ready: {timeline['ready_seconds']} s with {timeline['runs_on']}")
    nodes = json.loads(lab.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    assert {node["metadata"]["name"] for node in nodes} == set(WORKERS)


def test_the_worker_with_dhcp_has_the_address_that_the_lab_gave(lab: LabCluster) -> None:
    shown = lab.kubectl(
        "get", "node", "worker-1", "-o", "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}"
    ).stdout
    assert shown == lab.address_of("worker-1") == "10.240.0.100"


def test_the_clock_of_every_node_follows_the_labs_time_server(lab: LabCluster) -> None:
    for node in lab.nodes:
        tracking = lab.ssh(node.name, "sudo chronyc -n tracking").stdout
        assert "0AF00001" in tracking, tracking
        assert "Leap status     : Normal" in tracking, tracking


@pytest.fixture(scope="module")
def pods(quickstart: tuple[LabCluster, Any]) -> dict[str, str]:
    """A running pod on each worker: node to address."""
    lab = quickstart[0]
    image = lab.kubectl(
        "get", "deployment", "-n", "kube-system", "coredns", "-o", "jsonpath={..containers[0].image}"
    ).stdout
    folder = lab.folder.root
    for node in WORKERS:
        file = folder / f"probe-{node}.yaml"
        file.write_text(POD.format(node=node, image=image))
        lab.kubectl("apply", "-f", str(file))
    lab.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=probe", "--timeout=120s", timeout=150)
    shown = lab.kubectl("get", "pods", "-l", "app=probe", "-o", "json").stdout
    return {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in json.loads(shown)["items"]}


def test_logs_come_from_both_kubelets(lab: LabCluster, pods: dict[str, str]) -> None:
    """A node is Ready some seconds before its kubelet has its serving certificate."""
    for node in pods:
        wait_until(
            f"the words of the pod on {node}",
            lambda name=node: "CoreDNS-" in lab.kubectl("logs", f"probe-{name}", check=False).stdout,
        )


def test_a_command_runs_in_a_pod(lab: LabCluster, pods: dict[str, str]) -> None:
    for node in pods:
        done = lab.kubectl("exec", f"probe-{node}", "--", "/coredns", "-version")
        assert "CoreDNS-" in done.stdout, done.stderr


def test_a_port_is_forwarded_to_a_pod(lab: LabCluster, pods: dict[str, str]) -> None:
    log = lab.folder.root / "port-forward.log"
    program = str(lab.folder.kubectl)
    for node in pods:
        argv = [program, "--kubeconfig", str(lab.folder.kubeconfig), "port-forward", f"pod/probe-{node}"]
        forward = lab.runner.start([*argv, ":1053"], output=log)
        try:
            found = wait_until(
                f"a local port that leads to {node}",
                lambda: re.search(r"127\.0\.0\.1:(\d+) -> 1053", log.read_text()),
                patience=60.0,
            )
            question = (
                b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06whoami\x03lab\x00\x00\x01\x00\x01"
            )
            with socket.create_connection(("127.0.0.1", int(found[1])), 30) as link:
                link.settimeout(30)
                link.sendall(len(question).to_bytes(2) + question)
                answer = link.recv(512)
            assert answer[2:4] == b"\x00\x01", answer
        finally:
            forward.end()
            log.unlink()


def test_metrics_come_through_verified_serving_certificates(lab: LabCluster) -> None:
    """The API server knows the authority of the kubelets' serving certificates and refuses any other."""
    flags = lab.ssh("master-0", "ps -o args= -C kube-apiserver").stdout
    assert "--kubelet-certificate-authority=" in flags
    for node in WORKERS:
        summary = json.loads(lab.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary").stdout)
        assert summary["node"]["nodeName"] == node
        assert summary["node"]["memory"]["workingSetBytes"] > 50 << 20
        issued = [r for r in lab.api.list_requests() if r.node == node and r.kind == "serving"]
        assert any(request.issued for request in issued), node


def test_pods_of_different_nodes_reach_each_other(lab: LabCluster, pods: dict[str, str]) -> None:
    """From each worker's own network to the pod on the other one; the pod answers HTTP at its health port."""
    for here, there in (WORKERS, WORKERS[::-1]):
        done = lab.ssh(here, f"timeout 20 bash -c '</dev/tcp/{pods[there]}/1053' && echo open", check=False)
        assert done.stdout.strip() == "open", f"{here} to {there}: {done.stderr}"


def test_people_see_what_the_lab_sees(lab: LabCluster) -> None:
    file = lab.cluster.file
    status = json.loads(run_imagegen("status", file, "--format", "json"))
    assert {name: node["trouble"] for name, node in status["nodes"].items()} == {
        node.name: "" for node in lab.nodes
    }
    assert status["nodes"]["etcd-0"]["units"]["etcd.service"] > 0
    assert all(not node["failed_units"] for node in status["nodes"].values()), status
    assert run_imagegen("ssh", file, "worker-0", "--", "hostname").strip() == "worker-0"


def test_only_in_emulation_does_go_collect_garbage_less_often(quickstart: tuple[LabCluster, Any]) -> None:
    lab, timeline = quickstart
    for node, daemon in (("etcd-0", "etcd"), ("master-0", "kube-apiserver"), ("worker-0", "kubelet")):
        shown = lab.ssh(node, f"sudo cat /proc/$(pidof -s {daemon})/environ | tr '\\0' '\\n'").stdout
        assert ("GOGC=400" in shown.split()) == timeline["runs_on"].startswith("tcg"), daemon


def test_a_second_up_changes_nothing(lab: LabCluster) -> None:
    processes = {name: machine.process for name, machine in lab.machines.items()}
    again = json.loads(run_imagegen("up", lab.cluster.file, "--format", "json", "--quiet"))
    assert set(again["nodes"]) == set(processes)
    assert all(machine.is_alive() for machine in lab.machines.values())


def test_nothing_failed_and_nothing_panicked(lab: LabCluster) -> None:
    for node in lab.nodes:
        failed = lab.ssh(node.name, "systemctl --failed --no-legend --plain").stdout
        assert failed.strip() == "", f"{node.name}: {failed}"
        panics = lab.ssh(
            node.name, "sudo journalctl -b --no-pager | grep -c 'Observed a panic' || true"
        ).stdout
        assert panics.strip() == "0", node.name


@pytest.mark.long
def test_a_rebooted_worker_comes_back(lab: LabCluster, pods: dict[str, str]) -> None:
    before = lab.api.list_nodes()["worker-1"].boot_id
    lab.reboot("worker-1")
    timeline = lab.wait_ready(300.0)
    assert timeline.nodes["worker-1"].has(Event.READY)
    assert lab.api.list_nodes()["worker-1"].boot_id != before
    assert pods


@pytest.mark.long
def test_everything_comes_back_after_a_power_cut_of_all(lab: LabCluster, pods: dict[str, str]) -> None:
    lab.kubectl("create", "configmap", "kept", "--from-literal=key=value")
    # etcd has it on its disk when it says so; the guest's own journals may lose their last lines
    lab.restart_all(cleanly=False)
    start = time.monotonic()
    timeline = lab.wait_ready(420.0)
    print(f"\nall four after a power cut: {time.monotonic() - start:.0f} s")
    assert all(timeline.nodes[name].has(Event.READY) for name in WORKERS)
    assert lab.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.key}").stdout == "value"
    lab.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=probe", "--timeout=180s", timeout=200)
    assert pods


def test_a_lab_that_runs_is_not_started_twice(lab: LabCluster) -> None:
    from pathlib import Path

    from imagegen.lab.cluster import LabOptions, start_lab

    with pytest.raises(LabError, match="is running already"):
        start_lab(Path(lab.cluster.file), LabOptions(out=Path(lab.state.out)))
