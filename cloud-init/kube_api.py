"""A small client of the Kubernetes API for imagegen's own programs on masters: standard library, and PyYAML
of cloud-init.

Knows kubeconfigs with embedded certificates, JSON requests and watches. Decides nothing.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

#: libyaml's reader where PyYAML has it: many times as fast
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: One API object or list, as the server sent it.
Object = dict[str, Any]

#: Longer answers and watch lines are refused: a request is below 1.5 MiB, a page of 500 requests below this.
MAX_ANSWER = 256 << 20
MAX_WATCH_LINE = 8 << 20


class ApiError(Exception):
    """The server answered, but not with success. ``status`` is the HTTP status, ``message`` the
    server's own words.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message


#: What a request may raise when the server is away, starting or broken; trying again later is the answer.
CONNECTION_ERRORS = (OSError, http.client.HTTPException, ssl.SSLError)


@dataclass(frozen=True)
class Kubeconfig:
    """Where the API is and who we are there: the owner of a certificate, or of a bearer token."""

    host: str
    port: int
    ca_pem: str
    certificate_pem: str = ""
    key_pem: str = ""
    token: str = ""


def read_kubeconfig(path: str) -> Kubeconfig:
    """The current context of a kubeconfig with embedded credentials; raises OSError, ValueError."""
    with open(path, encoding="utf-8") as stream:
        try:
            document = yaml.load(stream, Loader=SAFE_LOADER)  # noqa: S506
        except yaml.YAMLError:
            raise ValueError(f"{path}: not YAML") from None
    try:
        context = _named(document, "contexts", "context", document["current-context"])
        cluster = _named(document, "clusters", "cluster", context["cluster"])
        user = _named(document, "users", "user", context["user"])
        server = urlsplit(cluster["server"])
        if server.scheme != "https" or not server.hostname:
            raise ValueError(f"{path}: wanted an https server")
        ca_pem = _decode(cluster["certificate-authority-data"])
        if "token" in user:
            return Kubeconfig(server.hostname, server.port or 443, ca_pem, token=str(user["token"]))
        return Kubeconfig(
            host=server.hostname,
            port=server.port or 443,
            ca_pem=ca_pem,
            certificate_pem=_decode(user["client-certificate-data"]),
            key_pem=_decode(user["client-key-data"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a kubeconfig with embedded credentials ({error!r})") from error


def _named(document: Object, collection: str, kind: str, name: str) -> Object:
    for entry in document[collection]:
        if entry["name"] == name:
            found: Object = entry[kind]
            return found
    raise KeyError(f"{kind} {name}")


def _decode(text: str) -> str:
    return base64.b64decode(text, validate=True).decode("ascii")


def make_tls_context(config: Kubeconfig) -> ssl.SSLContext:
    """TLS 1.2 or newer, this CA only, our certificate if we have one. The key touches no disk."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=config.ca_pem)
    if not config.key_pem:
        return context
    # The ssl module loads keys from files only, so it gets one that exists in memory alone.
    descriptor = os.memfd_create("client", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "w", encoding="ascii", closefd=False) as stream:
            stream.write(config.certificate_pem + "\n" + config.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


class ApiClient:
    """One keep-alive connection for requests; every watch has its own. Not for use by several threads."""

    def __init__(self, config: Kubeconfig, *, timeout_seconds: float = 30) -> None:
        self._config = config
        self._context = make_tls_context(config)
        self._timeout = timeout_seconds
        self._connection: http.client.HTTPSConnection | None = None

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """The decoded answer; raises ApiError, and CONNECTION_ERRORS when there is none."""
        try:
            answer = self._send(method, path, body, query, content_type)
            status, data = answer.status, answer.read(MAX_ANSWER + 1)
        except CONNECTION_ERRORS:
            self.close()
            raise
        if len(data) > MAX_ANSWER:
            self.close()
            raise http.client.HTTPException("the answer is too long")
        if status >= 300:
            raise ApiError(status, _message_of(data))
        return _decode_object(data)

    def is_ready(self) -> bool:
        """Whether /readyz says so, or /healthz where that is not known (before Kubernetes 1.16).

        Anything else, no answer included, is False.
        """
        status = 404
        for path in ("/readyz", "/healthz"):
            try:
                answer = self._send("GET", path, None, None)
                answer.read(MAX_ANSWER)
            except CONNECTION_ERRORS:
                self.close()
                return False
            status = answer.status
            if status != 404:
                break
        return status == 200

    def watch(self, path: str, query: dict[str, str], timeout_seconds: int) -> Iterator[Object]:
        """Events until the server ends the watch; raises ApiError, and CONNECTION_ERRORS when it breaks."""
        query = query | {"watch": "true", "timeoutSeconds": str(timeout_seconds)}
        connection = self._connect(timeout_seconds + 30)
        try:
            connection.request("GET", f"{path}?{urlencode(query)}", headers=self._headers())
            answer = connection.getresponse()
            if answer.status >= 300:
                raise ApiError(answer.status, _message_of(answer.read(MAX_WATCH_LINE)))
            while line := answer.readline(MAX_WATCH_LINE + 1):
                if not line.endswith(b"\n"):
                    raise http.client.HTTPException("the watch broke off, or a line of it is too long")
                yield _decode_object(line)
        finally:
            connection.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self._config.token:
            headers["Authorization"] = f"Bearer {self._config.token}"
        return headers

    def _connect(self, timeout_seconds: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self._config.host, self._config.port, timeout=timeout_seconds, context=self._context
        )

    def _send(
        self,
        method: str,
        path: str,
        body: Object | None,
        query: dict[str, str] | None,
        content_type: str = "application/json",
    ) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._connect(self._timeout)
        headers = self._headers()
        payload = None
        if body is not None:
            payload = json.dumps(body)
            headers["Content-Type"] = content_type
        self._connection.request(method, f"{path}?{urlencode(query)}" if query else path, payload, headers)
        return self._connection.getresponse()


CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"
MANAGED_BY = {"app.kubernetes.io/managed-by": "imagegen"}


def read_config_map(api: ApiClient, name: str) -> Object:
    """The ConfigMap of that name in ``kube-system``, or a new one that is not written yet."""
    try:
        return api.request("GET", f"{CONFIG_MAPS}/{name}")
    except ApiError as error:
        if error.status != 404:
            raise
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": dict(MANAGED_BY)},
    }


def write_config_map(api: ApiClient, config_map: Object) -> bool:
    """Write back what ``read_config_map`` gave; False when somebody else wrote first, so that one
    reads again.
    """
    metadata = config_map["metadata"]
    try:
        if "resourceVersion" in metadata:
            api.request("PUT", f"{CONFIG_MAPS}/{metadata['name']}", config_map)
        else:
            api.request("POST", CONFIG_MAPS, config_map)
    except ApiError as error:
        if error.status not in (404, 409):
            raise
        return False
    return True


def _decode_object(data: bytes) -> Object:
    try:
        decoded = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise http.client.HTTPException(f"the answer is not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise http.client.HTTPException("the answer is not an object")
    return decoded


def _message_of(data: bytes) -> str:
    try:
        message = _decode_object(data).get("message", "")
    except http.client.HTTPException:
        message = data[:200].decode("utf-8", "replace")
    return str(message)[:500]


def log(event: str, **fields: object) -> None:
    """One line for the journal: words and JSON values, so that no value can forge a line."""
    words = [event]
    for name, value in fields.items():
        text = value if isinstance(value, (int, float)) else str(value)[:500]
        words.append(f"{name}={json.dumps(text)}")
    print(" ".join(words), file=sys.stderr, flush=True)


class Backoff:
    """Pauses that double from ``first`` to ``longest`` seconds."""

    def __init__(self, first: float = 0.5, longest: float = 15) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def reset(self) -> None:
        self._next = self._first

    def pause(self) -> None:
        time.sleep(self._next)
        self._next = min(self._longest, self._next * 2)
