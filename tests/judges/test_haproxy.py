"""haproxy reads our configuration, and keeps away from masters that are not ready or not ours."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import newest_patch
from imagegen.model.cluster import Cluster, OperatingSystem
from imagegen.model.systems import SYSTEMS
from imagegen.plan.components.load_balancer import CA, render_haproxy
from imagegen.plan.items import File
from tests.cloud_init.fake_api import FakeApi, serve
from tests.judges.tools import Tool
from tests.kubernetes.clusters import WHOLE_MINORS
from tests.plan.plans import make_plan, read_cluster, write_cluster

HAPROXY_CONFIG = SYSTEMS[OperatingSystem.DEBIAN_13].haproxy_config

pytestmark = pytest.mark.judge

MASTERS = 3
NODES = (
    "{name: etcd-0, roles: [etcd], address: 10.240.0.10}",
    *(f"{{name: master-{i}, roles: [master], address: 10.240.0.1{i + 1}}}" for i in range(MASTERS)),
    "{name: lb-0, roles: [lb], address: 10.240.0.30}",
    "{name: lb-1, roles: [lb], address: 10.240.0.31}",
    "{name: worker-0, roles: [worker], address: 10.240.0.41}",
)


def make_ha(folder: Path, minor: str = "1.36", flags: str = "{}") -> Cluster:
    version = f"{newest_patch(minor)}, extra_args: {{kube-apiserver: {flags}}}"
    more = 'control_plane: {endpoint: "api.example.com:8443"}\n'
    return read_cluster(write_cluster(folder, NODES, version=version, more=more))


def localize(text: str, folder: Path) -> str:
    """The configuration for a place without the package's user and folder."""
    text = re.sub(r"^ +(chroot|user|group) .*\n", "", text, flags=re.MULTILINE)
    return text.replace(CA, str(folder / "ca.crt"))


@pytest.mark.parametrize("minor", WHOLE_MINORS)
def test_haproxy_accepts_the_configuration(tmp_path: Path, haproxy: Tool, minor: str) -> None:
    cluster = make_ha(tmp_path, minor)
    with serve() as api:
        (tmp_path / "ca.crt").write_text(api.ca)
    path = tmp_path / "haproxy.cfg"
    path.write_text(localize(render_haproxy(cluster, load_gates(cluster.kubernetes.version)), tmp_path))
    done = haproxy.run("-c", "-f", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr + done.stdout
    assert path.read_text().count("    server master-") == MASTERS
    assert "bind 0.0.0.0:8443\n" in path.read_text()


def test_the_words_of_an_old_haproxy(tmp_path: Path, haproxy: Tool) -> None:
    """Oracle Linux 7 has 1.5; a new one still understands it, and only warns that some of it is old."""
    cluster = make_ha(tmp_path, "1.20")
    cluster = replace(cluster, image=replace(cluster.image, os=OperatingSystem.ORACLELINUX_7))
    with serve() as api:
        (tmp_path / "ca.crt").write_text(api.ca)
    path = tmp_path / "haproxy.cfg"
    path.write_text(localize(render_haproxy(cluster, load_gates(cluster.kubernetes.version)), tmp_path))
    done = haproxy.run("-c", "-f", path)
    assert done.returncode == 0, done.stdout + done.stderr
    text = path.read_text()
    newer = ("http-check send", "check-sni", "ssl-min-ver", "status 200,401", "default-server inter 1s check")
    assert not [word for word in newer if word in text]
    assert text.count("verify required verifyhost kubernetes ca-file") == MASTERS


def test_every_load_balancer_is_the_same_and_knows_no_secret(tmp_path: Path) -> None:
    make_ha(tmp_path)
    plan = make_plan(tmp_path / "cluster.yaml")
    first, second = (plan.node_plan(name) for name in ("lb-0", "lb-1"))
    assert first.role_plan is second.role_plan
    files = {item.path: item for item in first.role_plan.items if isinstance(item, File)}
    assert {HAPROXY_CONFIG, CA} <= set(files)


@pytest.mark.parametrize(
    ("minor", "flags", "codes"),
    [
        ("1.30", "{}", "200,401"),
        ("1.36", "{}", "200"),
        ("1.36", "{anonymous-auth: 'false'}", "200,401"),
        ("1.36", "{oidc-issuer-url: 'https://example.com', oidc-client-id: x}", "200,401"),
    ],
)
def test_a_server_without_anonymous_requests_counts_when_it_answers(
    tmp_path: Path, minor: str, flags: str, codes: str
) -> None:
    cluster = make_ha(tmp_path, minor, flags)
    text = render_haproxy(cluster, load_gates(cluster.kubernetes.version))
    assert f"    http-check expect status {codes}\n" in text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def run_haproxy(haproxy: Tool, folder: Path, servers: list[FakeApi], ca: str) -> Iterator[int]:
    """haproxy with our configuration before these servers; gives its port."""
    cluster = make_ha(folder)
    text = localize(render_haproxy(cluster, load_gates(cluster.kubernetes.version)), folder)
    port = free_port()
    text = text.replace("bind 0.0.0.0:8443", f"bind 127.0.0.1:{port}")
    text = text.replace("bind 127.0.0.1:8404", f"bind 127.0.0.1:{free_port()}")
    for number, server in enumerate(servers):
        text = text.replace(f"10.240.0.1{number + 1}:6443", f"127.0.0.1:{server.port}")
    (folder / "ca.crt").write_text(ca)
    (folder / "haproxy.cfg").write_text(text)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*haproxy.argv, "-db", "-f", str(folder / "haproxy.cfg")],
            env=haproxy.environment(),
            stdout=log,
            stderr=log,
        )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def who_answers(port: int) -> str:
    """The subject of the certificate behind the load balancer, or nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain) as secure,
        ):
            return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")
    except OSError:
        return ""


def wait_for_answers(port: int, wanted: set[str]) -> None:
    """Until ten connections in a row reach exactly the wanted servers."""
    limit = time.monotonic() + 20
    while True:
        seen = {who_answers(port) for _ in range(10)}
        if seen == wanted:
            return
        assert time.monotonic() < limit, f"wanted {len(wanted)} servers, reached {len(seen)}"
        time.sleep(0.2)


def test_only_ready_masters_of_our_authority_get_connections(tmp_path: Path, haproxy: Tool) -> None:
    with (
        serve(anonymous=True) as good,
        serve(anonymous=True) as foreign,
        serve(anonymous=True) as other,
    ):
        other.ready = lambda: False
        with run_haproxy(haproxy, tmp_path, [good, foreign, other], good.ca) as port:
            wait_for_answers(port, {good.certificate})
            good.ready = lambda: False
            wait_for_answers(port, {""})
            good.ready = lambda: True
            wait_for_answers(port, {good.certificate})
    assert "SSL handshake failure" in (tmp_path / "log").read_text()
