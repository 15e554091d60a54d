"""What a year does: certificates end under running daemons, and the stated action mends it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import load_releases
from imagegen.pki.store import SecretStore
from imagegen.plan.component import Context
from tests.cloud_init import requests
from tests.cloud_init.real_cluster import (
    RealCluster,
    Unavailable,
    find_version,
    make_machine,
    run_control_plane,
)
from tests.judges import asking
from tests.judges.asking import Question, Reply
from tests.plan.plans import make_plan, write_cluster

pytestmark = [pytest.mark.process, pytest.mark.slow]

NODES = (
    "{name: etcd-0, roles: [etcd], address: 10.240.0.10}",
    "{name: master-0, roles: [master], address: 10.240.0.11}",
    "{name: worker-0, roles: [worker], address: 10.240.0.21}",
)
API = "https://10.240.0.11:6443"
CSRS = f"{API}/apis/certificates.k8s.io/v1/certificatesigningrequests"
YEAR = timedelta(days=365)
#: how long the year still lasts when the cluster starts, in seconds
REST = 60


def ask(real: RealCluster, *questions: Question) -> list[Reply]:
    ca = real.machines["worker-0"].path("/etc/kubernetes/pki/ca.crt")
    lines = "\n".join(json.dumps(asdict(question)) for question in questions)
    done = real.run([sys.executable, asking.__file__, str(ca)], stdin=lines)
    assert done.returncode == 0, done.stderr
    return [Reply(**json.loads(line)) for line in done.stdout.splitlines()]


def admin(real: RealCluster) -> dict[str, str]:
    files = {}
    for name, suffix in (("certificate", "crt"), ("key", "key")):
        file = real.folder / f"admin.{suffix}"
        file.write_bytes(real.store.read(f"pki/super-admin.{suffix}"))
        files[name] = str(file)
    return files


def is_ready(real: RealCluster) -> bool:
    return ask(real, Question(url=f"{API}/readyz", **admin(real)))[0].status == 200


def join_worker(real: RealCluster) -> dict[str, str]:
    """The worker's client certificate, issued by TLS bootstrap."""
    token = real.store.read("nodes/worker-0/bootstrap-token").decode().strip()
    body = {
        "metadata": {"name": "join"},
        "spec": {
            "request": base64.b64encode(requests.client_request("worker-0").pem).decode(),
            "signerName": requests.CLIENT,
            "usages": ["digital signature", "client auth"],
        },
    }
    (sent,) = ask(real, Question(url=CSRS, method="POST", body=body, token=token))
    assert sent.status == 201, sent.text

    def look() -> str | None:
        (reply,) = ask(real, Question(url=f"{CSRS}/join", **admin(real)))
        return reply.json.get("status", {}).get("certificate") if reply.status == 200 else None

    pem = base64.b64decode(real.wait_for("the worker's certificate", look))
    key = requests.key("p256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for suffix, data in (("crt", pem), ("key", key)):
        (real.folder / f"worker.{suffix}").write_bytes(data)
    return {"certificate": str(real.folder / "worker.crt"), "key": str(real.folder / "worker.key")}


def imagegen(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imagegen", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    folder = tmp_path_factory.mktemp("expiry")
    try:
        version = find_version()
        path = write_cluster(folder, NODES, version=str(version))
        issued = datetime.now(UTC) - YEAR + timedelta(seconds=REST)
        with run_control_plane(make_plan(path).cluster, folder, version=version, issued=issued) as real:
            yield real
    except Unavailable as reason:
        pytest.skip(str(reason))


def reseed(real: RealCluster) -> None:
    """New seeds on the old disks: every node starts again with the files of the store, and with its data."""
    for process in real.running:
        process.kill()
        process.wait()
    version = real.cluster.kubernetes.version
    ctx = Context(cluster=real.cluster, gates=load_gates(version), releases=load_releases(version))
    for name, machine in list(real.machines.items()):
        real.machines[name] = make_machine(ctx, machine.node, real.store, machine.root)
    real.start_unit("etcd-0", "etcd.service")
    for unit in ("kube-apiserver.service", "kube-controller-manager.service", "csr-approver.service"):
        real.start_unit("master-0", unit)


def end_of(path: Path) -> datetime:
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc


def test_a_year_later_the_stated_action_mends_the_cluster(real: RealCluster) -> None:
    real.wait_for("the API", lambda: is_ready(real), REST - 15)
    assert real.run_first_boot().returncode == 0
    real.start_unit("master-0", "csr-approver.service")
    worker = join_worker(real)
    secret = {"metadata": {"name": "before"}, "stringData": {"word": "kept"}}
    url = f"{API}/api/v1/namespaces/default/secrets"
    (made,) = ask(real, Question(url=url, method="POST", body=secret, **admin(real)))
    assert made.status == 201

    # the kubelets' certificates come from the controller manager: they begin, and end, later than the others
    end = end_of(real.machines["master-0"].path("/etc/kubernetes/pki/apiserver.crt"))
    assert end_of(real.folder / "worker.crt") - end > YEAR - timedelta(days=2)
    time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()) + 2)

    (gone,) = ask(real, Question(url=f"{API}/readyz", **admin(real)))
    assert (gone.status, "expired" in gone.text) == (0, True)
    cluster_file = str(real.folder / "cluster.yaml")
    assert "expired" in imagegen("pki", "show", cluster_file).stdout
    assert imagegen("pki", "verify", cluster_file).returncode == 1

    authority = real.store.read("pki/ca.crt")
    renewed = imagegen("pki", "renew", cluster_file)
    assert renewed.returncode == 0, renewed.stderr
    assert "expired" not in imagegen("pki", "show", cluster_file).stdout
    assert imagegen("pki", "verify", cluster_file).returncode == 0
    # another process has written it
    real.store = SecretStore(real.folder / "secrets")
    assert real.store.read("pki/ca.crt") == authority
    reseed(real)

    real.wait_for("the API", lambda: is_ready(real), 90)
    before, node = ask(
        real,
        Question(url=f"{url}/before", **admin(real)),
        # nobody has touched the worker
        Question(url=f"{API}/api/v1/services", **worker),
    )
    assert base64.b64decode(before.json["data"]["word"]) == b"kept"
    assert node.status == 200
