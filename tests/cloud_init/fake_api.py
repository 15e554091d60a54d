"""A small Kubernetes API over TLS on loopback: objects with versions, conflicts, watches, and faults on
request.

It answers as the real one does for what imagegen's programs ask; ``tests/cloud_init/test_real_api.py`` asks
the real one.
"""

from __future__ import annotations

import json
import queue
import socket
import ssl
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
KUBE_SYSTEM = "/api/v1/namespaces/kube-system"
_COLLECTIONS = (CSRS, f"{KUBE_SYSTEM}/configmaps", f"{KUBE_SYSTEM}/secrets")
_KINDS = {
    "/api/v1": (("ConfigMap", "configmaps", True), ("Namespace", "namespaces", False)),
    "/apis/apps/v1": (("Deployment", "deployments", True), ("Scale", "deployments/scale", True)),
}
APPLY = "application/apply-patch+yaml"

#: An HTTP status to answer with, ``drop`` to cut the connection, ``garbage`` for bytes that are no JSON.
Fault = int | str


@dataclass
class Identity:
    """A certificate and its key as PEM."""

    certificate: str
    key: str


def _issue(
    name: str,
    issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None,
    usage: x509.ObjectIdentifier | None,
) -> tuple[Identity, x509.Name, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_name, issuer_key = issuer or (subject, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("kubernetes")]
            ),
            critical=False,
        )
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Identity(certificate.public_bytes(Encoding.PEM).decode(), pem), subject, key


@dataclass
class FakeApi:
    """The server's state. ``faults`` are used up in order, one a matching request."""

    ca: str = ""
    #: the server's own, as PEM
    certificate: str = ""
    client: Identity = field(default_factory=lambda: Identity("", ""))
    port: int = 0
    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    reviews: list[dict[str, Any]] = field(default_factory=list)
    faults: list[tuple[str, str, Fault]] = field(default_factory=list)
    ready: Callable[[], bool] = lambda: True
    allowed: Callable[[dict[str, Any]], bool] = lambda review: True
    #: starts the tested program, where a test wants to say when
    start: Callable[[], None] = lambda: None
    before_put: Callable[[str], None] = lambda path: None
    version: int = 100
    #: list pages are cut to this size
    page: int = 1000
    watchers: list[queue.Queue[dict[str, Any] | None]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    watched: threading.Event = field(default_factory=threading.Event)
    headers: list[dict[str, str]] = field(default_factory=list)
    #: path and body of every object that somebody applied, and the query of the last
    applied: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    apply_query: dict[str, str] = field(default_factory=dict)
    #: content types of PATCH that are understood
    patches: tuple[str, ...] = (APPLY, "application/merge-patch+json")

    def collection(self, path: str) -> dict[str, dict[str, Any]]:
        return self.objects.setdefault(path, {})

    def store(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Put an object in, as a client other than the tested one; watchers see it."""
        with self.lock:
            self.version += 1
            metadata = body.setdefault("metadata", {})
            known = metadata["name"] in self.collection(path)
            metadata["resourceVersion"] = str(self.version)
            metadata.setdefault("uid", f"uid-{self.version}")
            if "stringData" in body:
                body = {**body, "data": body["stringData"]}
            self.collection(path)[metadata["name"]] = json.loads(json.dumps(body))
            if path == CSRS:
                self.tell({"type": "MODIFIED" if known else "ADDED", "object": body})
            return body

    def tell(self, event: dict[str, Any] | None) -> None:
        """Send an event to every watch; None ends them."""
        with self.lock:
            for watcher in self.watchers:
                watcher.put(event)

    def conditions(self, name: str) -> list[str]:
        """The condition types of a request."""
        with self.lock:
            status = self.collection(CSRS)[name].get("status") or {}
            return [condition["type"] for condition in status.get("conditions", [])]

    def count(self, method: str, prefix: str) -> int:
        with self.lock:
            return sum(1 for m, p in self.requests if m == method and p.startswith(prefix))

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for index, (wanted, prefix, fault) in enumerate(self.faults):
                if wanted == method and path.startswith(prefix):
                    del self.faults[index]
                    return fault
        return None

    def write_kubeconfig(self, path: Path) -> Path:
        def encode(text: str) -> str:
            return b64encode(text.encode()).decode()

        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": f"https://127.0.0.1:{self.port}",
                        "certificate-authority-data": encode(self.ca),
                    },
                }
            ],
            "users": [
                {
                    "name": "u",
                    "user": {
                        "client-certificate-data": encode(self.client.certificate),
                        "client-key-data": encode(self.client.key),
                    },
                }
            ],
        }
        path.write_text(yaml.safe_dump(document))
        return path


@contextmanager
def serve(*, anonymous: bool = False) -> Iterator[FakeApi]:
    """A running server; ends with the block. ``anonymous`` lets clients without a certificate in."""
    api = FakeApi()
    ca, name, key = _issue("fake-ca", None, None)
    server, _, _ = _issue("fake-api", (name, key), ExtendedKeyUsageOID.SERVER_AUTH)
    api.client, _, _ = _issue("client", (name, key), ExtendedKeyUsageOID.CLIENT_AUTH)
    api.ca, api.certificate = ca.certificate, server.certificate
    httpd = _QuietServer(("127.0.0.1", 0), _handler(api))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
        pem.write(server.certificate + server.key)
        pem.flush()
        context.load_cert_chain(pem.name)
    context.load_verify_locations(cadata=api.ca)
    context.verify_mode = ssl.CERT_OPTIONAL if anonymous else ssl.CERT_REQUIRED
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
    api.port = httpd.server_address[1]
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.tell(None)
        httpd.shutdown()
        httpd.server_close()
        thread.join(5)


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave or do not trust us are part of the tests."""


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def do_PUT(self) -> None:
            self._serve("PUT")

        def do_PATCH(self) -> None:
            self._serve("PATCH")

        def _serve(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query).items()}
            with api.lock:
                api.requests.append((method, parts.path))
                api.headers.append(dict(self.headers))
            fault = api.take_fault(method, "WATCH" if "watch" in query else parts.path)
            if fault == "drop":
                self.close_connection = True
                self.connection.close()
            elif fault == "garbage":
                self._send(200, b"<html>not json</html>")
            elif isinstance(fault, int):
                self._fail(fault, "a fault of the test")
            elif method == "GET" and "watch" in query:
                self._watch(query)
            else:
                getattr(self, f"_{method.lower()}")(parts.path, query, body)

        def _get(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
            if path == "/readyz":
                self._send(200 if api.ready() else 500, b"ok")
            elif path in _KINDS:
                names = ("kind", "name", "namespaced")
                kinds = [dict(zip(names, kind, strict=True)) for kind in _KINDS[path]]
                self._answer(200, {"kind": "APIResourceList", "resources": kinds})
            elif path in _COLLECTIONS:
                self._list(path, query)
            else:
                collection, _, name = path.rpartition("/")
                with api.lock:
                    found = api.collection(collection).get(unquote(name))
                if found is None:
                    self._fail(404, f"{name} not found")
                else:
                    self._answer(200, found)

        def _list(self, path: str, query: dict[str, str]) -> None:
            with api.lock:
                items = list(api.collection(path).values())
                start = int(query.get("continue", 0))
                size = min(api.page, int(query.get("limit", api.page)))
                metadata = {"resourceVersion": str(api.version)}
                if start + size < len(items):
                    metadata["continue"] = str(start + size)
                stripped = [
                    {k: v for k, v in item.items() if k not in {"kind", "apiVersion"}}
                    for item in items[start : start + size]
                ]
                self._answer(200, {"metadata": metadata, "items": stripped})

        def _post(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
            if path == REVIEWS:
                with api.lock:
                    api.reviews.append(body)
                self._answer(201, {**body, "status": {"allowed": api.allowed(body)}})
                return
            with api.lock:
                if body["metadata"]["name"] in api.collection(path):
                    self._fail(409, "already exists")
                else:
                    self._answer(201, api.store(path, body))

        def _put(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
            api.before_put(path)
            path = path.removesuffix("/approval")
            collection, _, name = path.rpartition("/")
            with api.lock:
                found = api.collection(collection).get(unquote(name))
                sent = body["metadata"]
                if found is None:
                    self._fail(404, "not found")
                elif sent.get("resourceVersion") != found["metadata"]["resourceVersion"] or sent.get(
                    "uid"
                ) != found["metadata"].get("uid"):
                    self._fail(409, "the object has been modified")
                else:
                    self._answer(200, api.store(collection, body))

        def _patch(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
            if self.headers.get("Content-Type") not in api.patches:
                self._fail(415, "the body of the request was in an unknown format")
                return
            collection, _, name = path.rpartition("/")
            with api.lock:
                api.applied.append((path, body))
                api.apply_query = query
                known = api.collection(collection).get(unquote(name)) or {"metadata": {"name": unquote(name)}}
                metadata = {**known["metadata"], **body["metadata"]}
                self._answer(200, api.store(collection, {**known, **body, "metadata": metadata}))

        def _watch(self, query: dict[str, str]) -> None:
            events: queue.Queue[dict[str, Any] | None] = queue.Queue()
            with api.lock:
                late = [
                    item
                    for item in api.collection(CSRS).values()
                    if int(item["metadata"]["resourceVersion"]) > int(query["resourceVersion"])
                ]
                for item in late:
                    events.put({"type": "ADDED", "object": item})
                api.watchers.append(events)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            api.watched.set()
            limit = time.monotonic() + float(query["timeoutSeconds"])
            try:
                while (event := events.get(timeout=max(0, limit - time.monotonic()))) is not None:
                    if event.get("type") == "RAW":
                        self.wfile.write(event["bytes"])
                        self.wfile.flush()
                        self.connection.shutdown(socket.SHUT_RDWR)
                        self.close_connection = True
                        return
                    line = json.dumps(event).encode() + b"\n"
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            except queue.Empty:
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True
            finally:
                with api.lock:
                    api.watchers.remove(events)

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            self._send(status, json.dumps(body).encode())

        def _fail(self, status: int, message: str) -> None:
            self._answer(status, {"kind": "Status", "code": status, "message": message})

        def _send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
