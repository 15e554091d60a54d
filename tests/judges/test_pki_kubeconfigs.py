"""kubectl reads every kubeconfig, and connects with one to a server with the API server's certificate."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagegen.content import Content
from imagegen.model.cluster import Cluster
from imagegen.pki import kubeconfigs
from imagegen.pki.resolve import resolve_content
from imagegen.pki.store import SecretStore
from tests.judges.tools import Tool
from tests.pki.clusters import E, M, W, make_cluster, make_node
from tests.pki.workshop import issue_store

pytestmark = pytest.mark.judge


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    # 127.0.0.1 is the endpoint, so that the certificate fits where the test listens
    return make_cluster([make_node("solo", [E, M, W], "10.240.0.10")], endpoint="127.0.0.1")


@pytest.fixture(scope="module")
def store(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> SecretStore:
    return issue_store(cluster, tmp_path_factory.mktemp("kubectl") / "secrets", now=datetime.now(UTC))


def list_bodies(cluster: Cluster) -> dict[str, Content]:
    node = cluster.nodes[0]
    return {
        "admin": kubeconfigs.admin_kubeconfig(cluster),
        "super-admin": kubeconfigs.super_admin_kubeconfig(cluster),
        "controller-manager": kubeconfigs.controller_manager_kubeconfig(cluster, node),
        "scheduler": kubeconfigs.scheduler_kubeconfig(cluster, node),
        "csr-approver": kubeconfigs.csr_approver_kubeconfig(cluster, node),
        "first-boot": kubeconfigs.first_boot_kubeconfig(cluster, node),
        "kube-proxy": kubeconfigs.kube_proxy_kubeconfig(cluster, node),
        "kubelet": kubeconfigs.kube_proxy_worker_kubeconfig(cluster),
        "kubelet-bootstrap": kubeconfigs.bootstrap_kubeconfig(cluster, node),
    }


def write_body(body: Content, store: SecretStore, folder: Path) -> Path:
    target = folder / "kubeconfig"
    target.write_bytes(resolve_content(body, store))
    target.chmod(0o600)
    return target


@pytest.mark.parametrize(
    "user",
    [
        "admin",
        "super-admin",
        "controller-manager",
        "scheduler",
        "csr-approver",
        "first-boot",
        "kube-proxy",
        "kubelet",
        "kubelet-bootstrap",
    ],
)
def test_kubectl_reads(
    user: str, cluster: Cluster, store: SecretStore, kubectl: Tool, tmp_path: Path
) -> None:
    file = write_body(list_bodies(cluster)[user], store, tmp_path)
    done = kubectl.run("--kubeconfig", file, "config", "view", "--raw", "--minify", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    view = json.loads(done.stdout)
    assert view["current-context"] == f"{user}@{cluster.name}"
    assert view["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    ca = base64.b64decode(view["clusters"][0]["cluster"]["certificate-authority-data"])
    assert ca == store.read("pki/ca.crt")
    account = view["users"][0]["user"]
    if user == "kubelet-bootstrap":
        assert account == {"token": store.read("nodes/solo/bootstrap-token").decode()}
    elif user == "kubelet":
        path = "/var/lib/kubelet/pki/kubelet-client-current.pem"
        assert account == {"client-certificate": path, "client-key": path}
    else:
        assert set(account) == {"client-certificate-data", "client-key-data"}


@pytest.fixture
def api_server(store: SecretStore) -> Iterator[tuple[int, list[str]]]:
    """Answers every request with 403 and remembers the client's common name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    base = store.root
    context.load_cert_chain(base / "nodes/solo/apiserver.crt", base / "nodes/solo/apiserver.key")
    context.load_verify_locations(base / "pki/ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    seen: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def serve() -> None:
            with listener.accept()[0] as raw, context.wrap_socket(raw, server_side=True) as connection:
                certificate = connection.getpeercert() or {}
                subject = dict(part[0] for part in certificate["subject"])  # type: ignore[index,misc]
                seen.append(subject["commonName"])
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield (listener.getsockname()[1], seen)
        thread.join(5)


def test_kubectl_connects(
    cluster: Cluster, store: SecretStore, kubectl: Tool, tmp_path: Path, api_server: tuple[int, list[str]]
) -> None:
    port, seen = api_server
    file = write_body(kubeconfigs.admin_kubeconfig(cluster), store, tmp_path)
    file.write_text(file.read_text().replace(":6443", f":{port}"))
    done = kubectl.run("--kubeconfig", file, "get", "--raw", "/readyz", "--request-timeout=10s")
    assert "orbidden" in done.stderr, done.stderr
    assert "certificate" not in done.stderr
    assert seen == ["kubernetes-admin"]
