"""The booted quickstart cluster as an attacker, an auditor and the benchmark see it.

``IMAGEGEN_LAB=CLUSTER-FILE`` runs these against a lab that is running already.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from imagegen.lab.cluster import LabCluster, open_lab
from imagegen.model.cluster import Node, Role
from imagegen.plan.items import Port
from imagegen.plan.plan import Plan
from imagegen.verify.cis import list_cis_checks
from imagegen.verify.cisfacts import judge_node
from imagegen.verify.journal import find_faults
from tests.plan.plans import make_plan
from tests.vm.labs import run_imagegen

pytestmark = [pytest.mark.vm, pytest.mark.long]

CANARY = "yellow-bird-in-a-coal-mine"
DAEMONS = {
    Role.ETCD: ("etcd",),
    Role.MASTER: ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "csr-approver"),
    Role.WORKER: ("kubelet", "kube-proxy", "containerd"),
    Role.LB: ("haproxy",),
}
#: answers without being in the port table: DHCP's client hears its own lease
CLIENT_PORTS = {("udp", 68)}


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> LabCluster:
    if file := os.environ.get("IMAGEGEN_LAB"):
        return open_lab(Path(file))
    booted: tuple[LabCluster, object] = request.getfixturevalue("quickstart")
    return booted[0]


@pytest.fixture(scope="module")
def plan(lab: LabCluster) -> Plan:
    return make_plan(Path(lab.cluster.file))


def run_as_root(lab: LabCluster, node: str, script: str, *, check: bool = True) -> str:
    """What a shell script prints on a node."""
    encoded = base64.b64encode(script.encode()).decode()
    return lab.ssh(node, f"echo {encoded} | base64 -d | sudo sh", check=check).stdout


def run_python(lab: LabCluster, node: str, program: str, *arguments: str) -> str:
    words = " ".join(map(shlex.quote, arguments))
    encoded = base64.b64encode(program.encode()).decode()
    return run_as_root(lab, node, f"echo {encoded} | base64 -d | python3 - {words}\n")


def test_cis_benchmark(lab: LabCluster, plan: Plan) -> None:
    problems = []
    for node in lab.nodes:
        checks = list_cis_checks(plan.node_plan(node.name), lab.cluster.kubernetes.version)
        verdicts = judge_node(checks, lambda script, node=node: run_as_root(lab, node.name, script))
        problems += [
            f"{node.name} {v.check.id} {v.check.title}: {v.problem}" for v in verdicts if not v.passed
        ]
    assert problems == []


def test_journals_hold_no_fault(lab: LabCluster) -> None:
    version = lab.cluster.kubernetes.version
    faults = []
    for node in lab.nodes:
        for unit in itertools.chain.from_iterable(DAEMONS[role] for role in node.roles if role in DAEMONS):
            text = run_as_root(lab, node.name, f"journalctl --no-pager --output=cat --unit={unit}.service\n")
            assert text.strip(), f"{node.name}: {unit} has no journal"
            faults += [f"{node.name}: {fault}" for fault in find_faults(unit, version, text)]
    assert faults == []


_LISTENERS = """
import socket, subprocess
for line in subprocess.run(["ss", "-Hltun"], capture_output=True, text=True).stdout.splitlines():
    words = line.split()
    address, port = words[4].rsplit(":", 1)
    print(words[0], address.split("%")[0].strip("[]"), port)
"""
_SCAN = """
import concurrent.futures, socket, sys
def is_open(port):
    try:
        socket.create_connection((sys.argv[1], port), 3).close()
        return True
    except OSError:
        return False
ports = [int(word) for word in sys.argv[2:]]
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    print(*(port for port, found in zip(ports, pool.map(is_open, ports)) if found))
"""


def read_listeners(lab: LabCluster, node: str) -> set[tuple[str, int]]:
    """Protocol and port of what listens beyond loopback."""
    lines = [line.split() for line in run_python(lab, node, _LISTENERS).splitlines()]
    return {(kind, int(port)) for kind, address, port in lines if not address.startswith(("127.", "::1"))}


def list_ports(plan: Plan, node: Node) -> list[Port]:
    return [item for item in plan.role_plan(node.roles).items if isinstance(item, Port)]


def is_listed(ports: Sequence[Port], kind: str, number: int) -> bool:
    return any(port.protocol == kind and port.first <= number <= port.last for port in ports)


def test_open_ports_equal_the_port_table(lab: LabCluster, plan: Plan) -> None:
    """What listens, less what the packet filter hides: asked from another node."""
    wrong = []
    for node, other in zip(lab.nodes, (*lab.nodes[1:], lab.nodes[0]), strict=True):
        ports, listeners = list_ports(plan, node), read_listeners(lab, node.name)
        single = {p.first for p in ports if p.protocol == "tcp" and p.first == p.last}
        asked = sorted(single | {port for kind, port in listeners if kind == "tcp"})
        words = [lab.address_of(node.name), *map(str, asked)]
        reached = {int(word) for word in run_python(lab, other.name, _SCAN, *words).split()}
        wrong += [f"{node.name} answers on {n}" for n in reached if not is_listed(ports, "tcp", n)]
        wrong += [f"{node.name} does not listen on {n}" for n in single - {n for _, n in listeners}]
        wrong += [
            f"{node.name} hears {kind}/{n}"
            for kind, n in listeners - CLIENT_PORTS
            if kind == "udp" and not is_listed(ports, "udp", n)
        ]
    assert wrong == []


_ANONYMOUS = """
import ssl, sys, urllib.error, urllib.request
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, context=context, timeout=20).status, url)
    except urllib.error.HTTPError as error:
        print(error.code, url)
    except OSError as error:
        print(0, url)
"""
KUBELET_PATHS = (
    *(
        "/",
        "/pods",
        "/runningpods/",
        "/metrics",
        "/metrics/cadvisor",
        "/metrics/resource",
        "/configz",
        "/logs/",
    ),
    *("/exec/a/b/c", "/run/a/b/c", "/attach/a/b/c", "/portForward/a/b", "/containerLogs/a/b/c", "/healthz"),
    *("/debug/pprof/", "/stats/summary", "/checkpoint/a/b/c", "/statusz", "/flagz"),
)


def ask_anonymously(lab: LabCluster, node: str, urls: Sequence[str]) -> dict[str, int]:
    lines = run_python(lab, node, _ANONYMOUS, *urls).splitlines()
    return {url: int(status) for status, url in (line.split(" ", 1) for line in lines)}


def test_strangers_reach_no_kubelet(lab: LabCluster) -> None:
    workers = [node for node in lab.nodes if Role.WORKER in node.roles]
    asker = lab.nodes[0].name
    for node in workers:
        address = lab.address_of(node.name)
        urls = [f"https://{address}:10250{path}" for path in KUBELET_PATHS]
        seen = ask_anonymously(lab, asker, urls)
        # what this version does not have it says without looking at who asks
        assert {url: status for url, status in seen.items() if status not in (401, 404)} == {}
        assert {seen[f"https://{address}:10250{path}"] for path in ("/pods", "/metrics", "/exec/a/b/c")} == {
            401
        }
        closed = [
            f"http://{address}:10255/pods",
            f"http://{address}:10248/healthz",
            f"http://{address}:10249/",
        ]
        assert set(ask_anonymously(lab, asker, closed).values()) == {0}
        assert ask_anonymously(lab, node.name, ["http://127.0.0.1:10248/healthz"]).popitem()[1] == 200


def test_strangers_reach_no_etcd(lab: LabCluster) -> None:
    for node in (node for node in lab.nodes if Role.ETCD in node.roles):
        address = lab.address_of(node.name)
        urls = [f"https://{address}:{port}/{path}" for port in (2379, 2380) for path in ("health", "version")]
        urls += [f"http://{address}:2381/metrics"]
        asker = next(
            other.name for other in (*lab.nodes[1:], node) if other.name != node.name or len(lab.nodes) == 1
        )
        seen = ask_anonymously(lab, asker, urls)
        assert set(seen.values()) == {0}, seen


def test_a_secret_is_not_plain_text_in_etcd(lab: LabCluster) -> None:
    """Read by etcdctl on a member, and looked for in its files."""
    lab.kubectl("create", "secret", "generic", "canary", f"--from-literal=word={CANARY}")
    try:
        member = next(node.name for node in lab.nodes if Role.ETCD in node.roles)
        pki = "/etc/etcd/pki"
        raw = run_as_root(
            lab,
            member,
            f"etcdctl --endpoints=https://127.0.0.1:2379 --cacert={pki}/ca.crt"
            f" --cert={pki}/healthcheck-client.crt --key={pki}/healthcheck-client.key"
            " get --print-value-only /registry/secrets/default/canary | base64 -w 0\n"
            f"echo; grep -rlF {CANARY} /var/lib/etcd || echo nowhere\n",
        )
        stored, found = raw.splitlines()
        assert base64.b64decode(stored).startswith(b"k8s:enc:secretbox:v1:key1:")
        assert CANARY.encode() not in base64.b64decode(stored)
        assert found == "nowhere"
    finally:
        lab.kubectl("delete", "secret", "canary", check=False)


def test_workers_got_no_key_from_outside(lab: LabCluster) -> None:
    """Their images and seeds hold none; the keys on the running machines are those that kubelets made."""
    for node in (node for node in lab.nodes if node.roles == (Role.WORKER,)):
        seed = lab.folder.seed(node.name)
        for place in (seed / "seed.iso", lab.image_of(node.name)):
            (found,) = json.loads(run_imagegen("scan", str(place), "--format", "json", check=False))["images"]
            assert {f["kind"] for f in found["findings"]} <= {"bootstrap token"}, place
            assert found["unread"] == []
        text = run_as_root(
            lab,
            node.name,
            "grep -rlE 'PRIVATE KEY|client-key-data' /etc /var/lib/kubelet /usr/local || true\n",
        )
        own = ("/var/lib/kubelet/pki/", "/etc/ssh/ssh_host_")
        assert [path for path in text.splitlines() if not path.startswith(own)] == []


def test_every_certificate_request_was_an_own_one(lab: LabCluster) -> None:
    """Client and serving certificates of kubelets, approved by our approver; nothing pending or denied."""
    items = json.loads(lab.kubectl("get", "csr", "-o", "json").stdout)["items"]
    assert items
    for item in items:
        (condition,) = item["status"]["conditions"]
        assert (condition["type"], condition["reason"]) == ("Approved", "ImagegenPolicy")
