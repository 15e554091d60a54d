"""Asks the cluster's API server what the lab wants to know: is it ready, who asked to join, who is Ready."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from socket import socket
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from imagegen.errors import ImagegenError
from imagegen.lab.access import read_kubeconfig

Connect = Callable[[float], socket]

#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python has no name for
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
_BOOTSTRAP = "system:bootstrap:"
_NODE = "system:node:"
#: what a request fails with while the server is not there or not ready to talk
_NOT_YET = (OSError, http.client.HTTPException, ValueError)


class ApiError(ImagegenError):
    """The API server cannot be reached, or refused; ``status`` is its HTTP status, 0 when there is none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCondition:
    """Condition Ready of a node. ``heartbeat_age``: seconds by the API server's own clock."""

    ready: bool
    heartbeat_age: float
    message: str
    boot_id: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A certificate request of a kubelet. ``kind`` is ``client`` or ``serving``; ``age`` is in seconds by the
    API server's own clock.
    """

    node: str
    kind: str
    approved: bool
    issued: bool
    age: float = 0.0


class ApiClient:
    """One kept connection to the API server as the admin. ``connect`` opens it, given a time limit in
    seconds. ``checks_time``: whether its certificate must be valid by our clock, which a lab may not share.
    """

    def __init__(
        self, kubeconfig: Path, connect: Connect, *, timeout: float = 10.0, checks_time: bool = True
    ) -> None:
        data = read_kubeconfig(kubeconfig)
        cluster, user = data["clusters"][0]["cluster"], data["users"][0]["user"]
        self._connect = connect
        self._timeout = timeout
        self._context = _make_context(cluster, user, checks_time=checks_time)
        server: str = cluster["server"]
        self._name: str = cluster.get("tls-server-name", server.split("://")[1].rpartition(":")[0])
        self._link: http.client.HTTPConnection | None = None
        #: seconds that the API server's clock is ahead of ours, as of its last answer
        self.clock_offset = 0.0

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and body of one request. Raises ApiError when there is no answer."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        kept = self._link is not None
        try:
            try:
                return self._send(method, path, data, headers)
            except _NOT_YET:
                self.close()
                if not kept or method != "GET":
                    raise
                # the server may have closed a connection that was idle
                return self._send(method, path, data, headers)
        except _NOT_YET as error:
            self.close()
            raise ApiError(f"the API server does not answer: {error or type(error).__name__}") from error

    def get(self, path: str) -> Any:
        """An object or a list. Raises ApiError when the answer is not 200."""
        status, body = self.request("GET", path)
        if status != 200:
            raise ApiError(f"GET {path}: status {status}: {body[:300].decode(errors='replace')}", status)
        return json.loads(body)

    def is_ready(self) -> bool:
        """Whether ``/readyz`` says ok; before 1.16 it was ``/healthz``."""
        with contextlib.suppress(ApiError):
            status, _ = self.request("GET", "/readyz")
            if status == 404:
                status, _ = self.request("GET", "/healthz")
            return status == 200
        return False

    def list_nodes(self) -> dict[str, NodeCondition]:
        """Every registered node by name. Raises ApiError."""
        now = None
        out = {}
        for item in self.get("/api/v1/nodes")["items"]:
            now = now if now is not None else _now() + self.clock_offset
            out[item["metadata"]["name"]] = _read_condition(item, now)
        return out

    def list_requests(self) -> list[Request]:
        """The kubelets' certificate requests that are still kept. Raises ApiError."""
        for version in ("v1", "v1beta1"):
            try:
                items = self.get(f"/apis/certificates.k8s.io/{version}/certificatesigningrequests")["items"]
            except ApiError as error:
                if error.status != 404:
                    raise
                continue
            now = _now() + self.clock_offset
            return [request for item in items if (request := _read_request(item, now)) is not None]
        return []

    def _send(self, method: str, path: str, data: str | None, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._link is None:
            raw = self._connect(self._timeout)
            try:
                raw.settimeout(self._timeout)
                secured = self._context.wrap_socket(raw, server_hostname=self._name)
            except BaseException:
                raw.close()
                raise
            self._link = http.client.HTTPConnection(self._name, timeout=self._timeout)
            self._link.sock = secured
        self._link.request(method, path, data, headers)
        answer = self._link.getresponse()
        body = answer.read()
        with contextlib.suppress(TypeError, ValueError):
            self.clock_offset = parsedate_to_datetime(answer.headers["Date"]).timestamp() - _now()
        if answer.will_close:
            self.close()
        return answer.status, body


def _now() -> float:
    return datetime.now().timestamp()


def _make_context(cluster: dict[str, str], user: dict[str, str], *, checks_time: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]).decode())
    if not checks_time:
        context.verify_flags |= _NO_CHECK_TIME
    with _as_file(user["client-certificate-data"]) as chain, _as_file(user["client-key-data"]) as key:
        context.load_cert_chain(chain, key)
    return context


@contextlib.contextmanager
def _as_file(encoded: str) -> Iterator[str]:
    """The ssl module reads keys from files only; this one is private and gone at once."""
    with tempfile.NamedTemporaryFile() as handle:
        handle.write(_decode(encoded))
        handle.flush()
        yield handle.name


def _decode(encoded: str) -> bytes:
    return base64.b64decode(encoded)


def _read_time(text: str) -> float:
    """Seconds since 1970 of a time as the API writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _read_condition(item: dict[str, Any], now: float) -> NodeCondition:
    status = item.get("status", {})
    ready = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), None)
    info = status.get("nodeInfo", {})
    if ready is None:
        return NodeCondition(ready=False, heartbeat_age=1e9, message="no status yet", boot_id="", version="")
    beat = _read_time(ready["lastHeartbeatTime"])
    return NodeCondition(
        ready=ready["status"] == "True",
        heartbeat_age=now - beat,
        message=ready.get("message", ""),
        boot_id=info.get("bootID", ""),
        version=info.get("kubeletVersion", ""),
    )


def _read_request(item: dict[str, Any], now: float) -> Request | None:
    spec, status = item["spec"], item.get("status", {})
    user: str = spec.get("username", "")
    if not user.startswith((_BOOTSTRAP, _NODE)):
        return None
    try:
        parsed = x509.load_pem_x509_csr(_decode(spec["request"]))
        name = str(parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    except (ValueError, IndexError, KeyError):
        return None
    types = {condition["type"] for condition in status.get("conditions", ())}
    return Request(
        node=name.removeprefix(_NODE),
        kind="serving" if "server auth" in spec.get("usages", ()) else "client",
        approved="Approved" in types,
        issued=bool(status.get("certificate")),
        age=now - _read_time(item["metadata"]["creationTimestamp"]),
    )
