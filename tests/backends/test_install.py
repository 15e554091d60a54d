"""The script that brings a stock image to its state, run against a release site of our own."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import shutil
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imagegen.resources import find_resource

pytestmark = pytest.mark.process

RAW = b"#!/bin/sh\necho raw\n"


def _make_archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in ("./bridge", "bin/ctr", "readme"):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid = len(name), 0o644, 4242
            archive.addfile(info, io.BytesIO(name.encode()))
    return out.getvalue()


ARCHIVE = _make_archive()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Site:
    """A release site: HTTPS with a certificate of its own, counting requests."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                body = site.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                if body.startswith(b"http:"):
                    self.send_response(302)
                    self.send_header("Location", body.decode())
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.authority = folder / "site.pem"
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_write_certificate(self.authority))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def _write_certificate(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.server.shutdown()


@pytest.fixture
def machine(tmp_path: Path, site: Site) -> Machine:
    site.files = {"/v1/raw": RAW, "/v1/a.tgz": ARCHIVE}
    site.requests.clear()
    return Machine(tmp_path, site)


class Machine:
    def __init__(self, folder: Path, site: Site) -> None:
        self.root, self.tables, self.site = folder / "root", folder / "tables", site
        self.tables.mkdir()

    def write(self, table: str, *rows: tuple[str, ...]) -> None:
        (self.tables / table).write_text("".join("\t".join(row) + "\n" for row in rows))

    def install(self, path: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(find_resource("cloud-init", "install"))],
            env={
                "PATH": path or os.environ["PATH"],
                "IMAGEGEN_ROOT": str(self.root),
                "IMAGEGEN_TABLES": str(self.tables),
                "CURL_CA_BUNDLE": str(self.site.authority),
                # the test must not wait for the pauses between attempts
                "no_proxy": "*",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()


BIN = "/usr/local/bin"


def test_parts_are_installed_once(machine: Machine) -> None:
    url = machine.site.url
    machine.write(
        "parts",
        (f"{url}/v1/a.tgz", sha256(ARCHIVE), "tar.gz", "./bridge", "/opt/cni/bin/bridge"),
        (f"{url}/v1/a.tgz", sha256(ARCHIVE), "tar.gz", "bin/ctr", f"{BIN}/ctr"),
        (f"{url}/v1/raw", sha256(RAW), "raw", "-", f"{BIN}/raw"),
    )
    for _ in range(2):
        done = machine.install()
        assert done.returncode == 0, done.stderr
    assert machine.read("usr/local/bin/raw") == RAW
    assert machine.read("usr/local/bin/ctr") == b"bin/ctr"
    assert machine.read("opt/cni/bin/bridge") == b"./bridge"
    assert machine.site.requests == ["/v1/a.tgz", "/v1/raw"]
    state = (machine.root / "usr/local/bin/ctr").stat()
    assert state.st_mode & 0o7777 == 0o755
    assert state.st_uid == os.getuid()
    assert not list(machine.root.rglob("*.partial"))
    assert not (machine.root / "var/lib/imagegen/download").exists()


def test_another_version_replaces(machine: Machine) -> None:
    url = machine.site.url
    machine.write("parts", (f"{url}/v1/raw", sha256(RAW), "raw", "-", f"{BIN}/raw"))
    assert machine.install().returncode == 0
    machine.site.files["/v2/raw"] = b"two"
    machine.write("parts", (f"{url}/v2/raw", sha256(b"two"), "raw", "-", f"{BIN}/raw"))
    assert machine.install().returncode == 0
    assert machine.read("usr/local/bin/raw") == b"two"


def test_a_wrong_checksum_installs_nothing(machine: Machine) -> None:
    url = machine.site.url
    machine.write("parts", (f"{url}/v1/raw", sha256(b"other"), "raw", "-", f"{BIN}/raw"))
    done = machine.install()
    assert done.returncode == 1
    assert f"wanted {sha256(b'other')}, got {sha256(RAW)}" in done.stderr
    assert not (machine.root / "usr").exists()
    assert not (machine.root / "var/lib/imagegen/install.done").exists()


@pytest.mark.parametrize(
    "text",
    ["{sum}\n", "{sum}  raw\n", "{sum} *raw\n", "{other}  raw2\n{sum}  ./dist/raw\n{other}  x/raw.sig\n"],
)
def test_the_sum_that_the_site_publishes_is_found(machine: Machine, text: str) -> None:
    url = machine.site.url
    machine.site.files["/v1/SUMS"] = text.format(sum=sha256(RAW), other="0" * 64).encode()
    machine.write("parts", (f"{url}/v1/raw", f"{url}/v1/SUMS", "raw", "-", f"{BIN}/raw"))
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert machine.read("usr/local/bin/raw") == RAW


@pytest.mark.parametrize("text", ["", "<html>not found</html>\n", "{other}  raw2\n", "{other}\n"])
def test_without_the_right_sum_nothing_is_installed(machine: Machine, text: str) -> None:
    url = machine.site.url
    machine.site.files["/v1/SUMS"] = text.format(other="0" * 64).encode()
    machine.write("parts", (f"{url}/v1/raw", f"{url}/v1/SUMS", "raw", "-", f"{BIN}/raw"))
    assert machine.install().returncode == 1
    assert not (machine.root / "usr").exists()


def test_what_is_missing_is_named_and_the_next_run_goes_on(machine: Machine) -> None:
    url = machine.site.url
    del machine.site.files["/v1/raw"]
    machine.write(
        "parts",
        (f"{url}/v1/a.tgz", sha256(ARCHIVE), "tar.gz", "bin/ctr", f"{BIN}/ctr"),
        (f"{url}/v1/raw", sha256(RAW), "raw", "-", f"{BIN}/raw"),
    )
    done = machine.install()
    assert done.returncode == 1
    assert f"cannot download {url}/v1/raw" in done.stderr
    machine.site.files["/v1/raw"] = RAW
    machine.site.requests.clear()
    assert machine.install().returncode == 0
    assert machine.site.requests == ["/v1/raw"]


def test_a_redirect_to_plain_http_is_refused(machine: Machine) -> None:
    url = machine.site.url
    machine.site.files["/v1/raw"] = b"http://127.0.0.1:1/raw"
    machine.write("parts", (f"{url}/v1/raw", sha256(RAW), "raw", "-", f"{BIN}/raw"))
    assert machine.install().returncode == 1


@pytest.mark.parametrize(
    ("manager", "query", "wanted"),
    [
        (
            "apt-get",
            "dpkg-query",
            "--quiet --yes --no-install-recommends -o Dpkg::Options::=--force-confold install",
        ),
        ("dnf", "rpm", "--assumeyes install"),
        ("yum", "rpm", "--assumeyes install"),
    ],
)
def test_packages_that_cloud_init_could_not_install(
    machine: Machine, tmp_path: Path, manager: str, query: str, wanted: str
) -> None:
    """On a system of each family, made of scripts that write down how they are called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    installed = (
        '[ "$name" != curl ]'
        if query == "rpm"
        else 'if [ "$name" = curl ]; then exit 1; else echo installed; fi'
    )
    (programs / query).write_text(f"#!/bin/sh\nfor name; do :; done\n{installed}\n")
    (programs / manager).write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/log\n')
    for name in ("sh", "mkdir", "cat", "awk", "tr", "install", "mv", "rm", "ln"):
        (programs / name).symlink_to(shutil.which(name) or name)
    for program in (query, manager):
        (programs / program).chmod(0o755)
    machine.write("packages", ("chrony",), ("curl",))
    done = machine.install(path=str(programs))
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "log").read_text().splitlines()
    assert calls[-1] == f"{wanted} curl"


def test_directories_and_links(machine: Machine) -> None:
    user = str(os.getuid())
    group = str(os.getgid())
    machine.write("directories", ("0700", user, group, "/var/lib/with space"), ("0755", user, group, "/srv"))
    machine.write("links", ("/srv/$(x)", "/a/b/link"))
    for _ in range(2):
        done = machine.install()
        assert done.returncode == 0, done.stderr
    assert (machine.root / "var/lib/with space").stat().st_mode & 0o7777 == 0o700
    assert os.readlink(machine.root / "a/b/link") == "/srv/$(x)"
    assert (machine.root / "var/lib/imagegen/install.done").exists()
