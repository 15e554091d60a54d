"""Three etcd members and three API servers behind the real load balancer, killed under writes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import load_releases
from imagegen.model.cluster import OperatingSystem, Role
from imagegen.model.systems import SYSTEMS
from imagegen.plan.component import Context
from tests.cloud_init.real_cluster import (
    RealCluster,
    Unavailable,
    make_machine,
    run_control_plane,
)
from tests.conftest import require_judge
from tests.judges import api_writer
from tests.pki.clusters import make_cluster, make_node

HAPROXY_CONFIG = SYSTEMS[OperatingSystem.DEBIAN_13].haproxy_config

pytestmark = [pytest.mark.process, pytest.mark.slow]

MASTERS = {f"master-{n}": f"10.240.0.2{n + 1}" for n in range(3)}
MEMBERS = {f"etcd-{n}": f"10.240.0.1{n + 1}" for n in range(3)}
CLUSTER = make_cluster(
    [
        make_node("lb-0", [Role.LB], "10.240.0.5"),
        *(make_node(name, [Role.ETCD], address) for name, address in MEMBERS.items()),
        *(make_node(name, [Role.MASTER], address) for name, address in MASTERS.items()),
        make_node("worker-0", [Role.WORKER], "10.240.0.31"),
    ],
    endpoint="10.240.0.5",
)
WRITES = f"{CLUSTER.endpoint.url}/api/v1/namespaces/default/configmaps"
METRICS = "http://127.0.0.1:2381"
_ASK = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[2]) if sys.argv[2] else None
print(urllib.request.urlopen(sys.argv[1], context=context, timeout=5).read().decode())
"""


@dataclass
class Quorum:
    """The running cluster; daemons by node."""

    real: RealCluster
    daemons: dict[str, subprocess.Popen[bytes]]

    def is_up(self, node: str) -> bool:
        """Whether the member or the API server of a node says that it is ready."""
        if node in MEMBERS:
            return self._ask(node, f"{METRICS}/readyz") != ""
        ca = self.real.machines[node].path("/etc/kubernetes/pki/ca.crt")
        return self._ask(node, f"https://{MASTERS[node]}:6443/readyz", str(ca)) == "ok"

    def leader(self) -> str:
        """The member that leads, by its own metrics."""
        for node in MEMBERS:
            if re.search(r"^etcd_server_is_leader 1$", self._ask(node, f"{METRICS}/metrics"), re.MULTILINE):
                return node
        raise AssertionError("no member leads")

    def _ask(self, node: str, url: str, ca: str = "") -> str:
        return self.real.run([sys.executable, "-c", _ASK, url, ca], node=node).stdout.strip()

    def start(self, node: str) -> None:
        unit = "etcd.service" if node in MEMBERS else "kube-apiserver.service"
        self.daemons[node] = self.real.start_unit(node, unit)

    def kill(self, node: str) -> None:
        self.daemons[node].kill()
        self.daemons[node].wait()

    def wait_up(self, *nodes: str) -> None:
        for node in nodes:
            self.real.wait_for(f"{node} is up", lambda node=node: self.is_up(node), 90)


@pytest.fixture(scope="module")
def quorum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quorum]:
    haproxy = require_judge("haproxy")
    try:
        with run_control_plane(CLUSTER, tmp_path_factory.mktemp("ha"), separate=True) as real:
            config = real.machines["lb-0"].path(HAPROXY_CONFIG)
            # what needs the package's own user
            text = re.sub(r"^ +(chroot|user|group) .*\n", "", config.read_text(), flags=re.MULTILINE)
            config.write_text(text)
            command = [*haproxy.argv, "-db", "-f", str(config)]
            real.start("haproxy.service", command, "lb-0", **haproxy.environment())
            servers = (process for process in real.running if "kube-controller" not in str(process.args))
            names = (*MEMBERS, *MASTERS)
            quorum = Quorum(real, dict(zip(names, servers, strict=False)))
            quorum.wait_up(*names)
            for suffix in ("crt", "key"):
                (real.folder / f"admin.{suffix}").write_bytes(real.store.read(f"pki/super-admin.{suffix}"))
            yield quorum
    except Unavailable as reason:
        pytest.skip(str(reason))


@dataclass
class Writer:
    process: subprocess.Popen[str]

    def stop(self) -> dict[str, Any]:
        out, _ = self.process.communicate("stop\n", timeout=60)
        result: dict[str, Any] = json.loads(out)
        return result


def start_writer(quorum: Quorum) -> Writer:
    real = quorum.real
    ca = real.machines["worker-0"].path("/etc/kubernetes/pki/ca.crt")
    files = [str(ca), str(real.folder / "admin.crt"), str(real.folder / "admin.key")]
    command = real.enter([sys.executable, api_writer.__file__, WRITES, *files])
    return Writer(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=0)
    )


def stored(quorum: Quorum) -> set[str]:
    names = quorum.real.kubectl("get", "configmaps", "-o", "name")
    return {line.partition("/")[2] for line in names.splitlines()}


def test_writes_go_on_when_a_member_and_a_master_die(quorum: Quorum) -> None:
    writer = start_writer(quorum)
    time.sleep(3)
    leader = quorum.leader()
    quorum.kill(leader)
    quorum.kill("master-0")
    time.sleep(20)
    result = writer.stop()
    acknowledged = set(result["acknowledged"])
    assert len(acknowledged) > 50
    # an election of etcd, a health check of the load balancer and a client's time-out, on a loaded machine
    assert result["longest"] < 15
    quorum.start(leader)
    quorum.start("master-0")
    quorum.wait_up(leader, "master-0")
    assert acknowledged <= stored(quorum)


def test_nothing_is_lost_when_members_die_in_turn(quorum: Quorum) -> None:
    writer = start_writer(quorum)
    for member, master in (("etcd-0", "master-1"), ("etcd-1", "master-2"), ("etcd-2", "master-0")):
        quorum.kill(member)
        quorum.kill(master)
        time.sleep(3)
        quorum.start(member)
        quorum.start(master)
        quorum.wait_up(member, master)
    result = writer.stop()
    assert set(result["acknowledged"]) <= stored(quorum)
    assert result["longest"] < 30


def test_a_master_is_replaced_by_a_new_machine_with_its_seed(quorum: Quorum) -> None:
    """Nothing of the old machine is needed: all that it knows is in its seed and in etcd."""
    real = quorum.real
    before = stored(quorum)
    quorum.kill("master-2")
    old = real.machines["master-2"]
    shutil.rmtree(old.root)
    cluster = real.cluster
    version = cluster.kubernetes.version
    ctx = Context(cluster=cluster, gates=load_gates(version), releases=load_releases(version))
    machine = make_machine(ctx, cluster.node("master-2"), real.store, old.root)
    machine.path("/var/log/kubernetes").mkdir(parents=True)
    real.machines["master-2"] = machine
    quorum.start("master-2")
    quorum.wait_up("master-2")
    assert real.run_first_boot("master-2").returncode == 0
    assert before <= stored(quorum)


def test_nothing_panicked(quorum: Quorum) -> None:
    for log in quorum.real.folder.glob("*.log"):
        assert "Observed a panic" not in log.read_text(errors="replace"), log.name
