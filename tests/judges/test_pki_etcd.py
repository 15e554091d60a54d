"""A real etcd cluster of three members runs from the generated PKI, with etcdctl as its client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagegen.emit import emit_yaml
from imagegen.kubernetes.etcd import etcd_config
from imagegen.kubernetes.gates import load_gates
from imagegen.model.cluster import Cluster, KeyAlgorithm, Node
from imagegen.model.version import Version
from imagegen.pki import inventory, paths, spec
from imagegen.pki.store import SecretStore
from tests.judges.tools import Tool
from tests.pki.clusters import E, M, make_cluster, make_node
from tests.pki.workshop import issue_store

pytestmark = pytest.mark.judge

#: the last minor whose companion is etcd 3.5, the judge's version
_GATES = Version(1, 33, 0)
_HEALTHY_WITHIN = 10.0


@dataclass(frozen=True)
class Running:
    cluster: Cluster
    store: SecretStore
    root: Path
    endpoints: str
    healthy_after: float

    def flags(self, stem: str) -> list[str]:
        """How etcdctl shows the certificate ``stem`` and trusts the etcd CA."""
        base = self.store.root
        return [
            f"--endpoints={self.endpoints}",
            f"--cacert={base / spec.ETCD_CA}.crt",
            f"--cert={base / stem}.crt",
            f"--key={base / stem}.key",
            "--dial-timeout=2s",
            "--command-timeout=4s",
        ]


def make_etcd_cluster(key: KeyAlgorithm, network: int) -> Cluster:
    """Three members and a master on loopback addresses of their own."""
    nodes = [make_node(f"etcd-{i}", [E], f"127.77.{network}.{10 + i}") for i in range(3)]
    nodes.append(make_node("master-0", [M], f"127.77.{network}.20"))
    return make_cluster(nodes, endpoint=f"127.77.{network}.20", key=key)


def write_member(cluster: Cluster, store: SecretStore, node: Node, root: Path) -> Path:
    """The node's part of the PKI below ``root``, where its placement says; returns the configuration file."""
    for each in inventory.list_node_certificates(cluster, node):
        assert each.placement is not None
        stem = root / each.placement.stem.lstrip("/")
        stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("crt", "key"):
            target = stem.parent / f"{stem.name}.{suffix}"
            target.write_bytes(store.read(f"{each.name}.{suffix}"))
            target.chmod(0o600)
    (root / paths.ETCD_CA.lstrip("/")).write_bytes(store.read(f"{spec.ETCD_CA}.crt"))
    config = dict(etcd_config(cluster, load_gates(_GATES), node))
    config |= {
        "data-dir": str(root / "data"),
        # on real machines also loopback and metrics, which three members cannot share here
        "listen-client-urls": f"https://{node.address}:2379",
        "listen-metrics-urls": f"http://{node.address}:2381",
        "log-outputs": [str(root / "etcd.log")],
        "unsafe-no-fsync": True,
        "quota-backend-bytes": 64 << 20,
    }
    target = root / "etcd.yaml"
    target.write_text(emit_yaml(config).replace(paths.ETCD_PKI, f"{root}{paths.ETCD_PKI}"))
    return target


def wait_healthy(running: Running, etcdctl: Tool, stem: str, deadline: float) -> None:
    while True:
        done = etcdctl.run(*running.flags(stem), "endpoint", "health", "--write-out=json")
        if done.returncode == 0:
            assert all(each["health"] for each in json.loads(done.stdout))
            return
        if time.monotonic() > deadline:
            logs = "".join(path.read_text()[-2000:] for path in running.root.glob("*/etcd.log"))
            pytest.fail(f"etcd is not healthy: {done.stdout}{done.stderr}\n{logs}")
        time.sleep(0.1)


@pytest.fixture(
    scope="module",
    params=[KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ECDSA_P521, KeyAlgorithm.RSA_2048, KeyAlgorithm.ED25519],
    ids=str,
)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, etcd: Tool, etcdctl: Tool
) -> Iterator[Running]:
    key: KeyAlgorithm = request.param
    root = tmp_path_factory.mktemp("etcd")
    # an address range of this run's own, for runs side by side
    cluster = make_etcd_cluster(key, 1 + os.getpid() % 250)
    store = issue_store(cluster, root / "secrets", now=datetime.now(UTC))
    members = cluster.nodes_with(E)
    endpoints = ",".join(f"https://{node.address}:2379" for node in members)
    configs = [write_member(cluster, store, node, root / node.name) for node in members]
    start = time.monotonic()
    processes = [
        subprocess.Popen(
            [*etcd.argv, "--config-file", str(config)],
            env=etcd.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for config in configs
    ]
    try:
        early = Running(cluster, store, root, endpoints, 0.0)
        wait_healthy(early, etcdctl, "nodes/etcd-0/etcd-healthcheck-client", start + 60)
        yield Running(cluster, store, root, endpoints, time.monotonic() - start)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait(10)


def test_three_members_are_healthy_in_ten_seconds(running: Running, etcdctl: Tool) -> None:
    assert running.healthy_after < _HEALTHY_WITHIN
    flags = running.flags("nodes/etcd-0/etcd-healthcheck-client")
    done = etcdctl.run(*flags, "member", "list", "--write-out=json")
    assert {each["name"] for each in json.loads(done.stdout)["members"]} == {"etcd-0", "etcd-1", "etcd-2"}


def test_api_server_reads_what_it_wrote(running: Running, etcdctl: Tool) -> None:
    flags = running.flags("nodes/master-0/apiserver-etcd-client")
    assert etcdctl.run(*flags, "put", "/registry/test", "value").returncode == 0
    assert etcdctl.run(*flags, "get", "/registry/test", "--print-value-only").stdout.strip() == "value"


def test_members_refuse_nobody_of_theirs(running: Running) -> None:
    """Runs before the strangers come: peers and the gateway use one certificate in both directions."""
    for path in sorted(running.root.glob("*/etcd.log")):
        text = path.read_text()
        assert "ready to serve client requests" in text
        assert [line for line in text.splitlines() if "rejected connection" in line] == []


def read_log(running: Running) -> str:
    return (running.root / "etcd-0" / "etcd.log").read_text()


@pytest.mark.parametrize("stem", ["pki/admin", "nodes/master-0/front-proxy-client", None])
def test_strangers_are_refused(running: Running, etcdctl: Tool, stem: str | None) -> None:
    """Certificates of the cluster CA and of the front-proxy CA, and none at all."""
    before = read_log(running).count("rejected connection")
    flags = [
        "--endpoints=" + running.endpoints.split(",")[0],
        *(f for f in running.flags(stem or "pki/admin") if f.startswith(("--cacert", "--cert", "--key"))),
        "--command-timeout=1s",
    ]
    if stem is None:
        flags = [flag for flag in flags if not flag.startswith(("--cert", "--key"))]
    assert etcdctl.run(*flags, "get", "/registry/test").returncode != 0
    log = read_log(running)
    assert log.count("rejected connection") > before
    assert ("unknown authority" if stem else "didn't provide a certificate") in log
