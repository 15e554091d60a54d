"""HTTP with patience: retries with backoff, resume by Range, no redirects away from https, bounded sizes."""

from __future__ import annotations

import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlencode, urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError, SSLError

from imagegen import __version__
from imagegen.fetch.failures import REFUSED, TransferError
from imagegen.fetch.space import check_space
from imagegen.fetch.tokens import MANIFEST_TYPES, read_challenge, read_token, token_scope

_CHUNK = 1 << 18
_MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_DELAY_S = 30.0
_MAX_TOKEN_ANSWER = 1 << 16
#: tries of one file in all, however much each of them brings
_MAX_TRIES = 50
#: tries of a host that does not take a connection
_CONNECT_TRIES = 3

#: told the number of bytes that are there, from the start of the file
OnBytes = Callable[[int], None]


class Cancelled(Exception):
    """The run is being stopped."""


class _Retry(Exception):
    def __init__(self, message: str, delay_s: float = 0.0, *, connected: bool = True) -> None:
        super().__init__(message)
        self.delay_s = delay_s
        self.connected = connected


def redact(url: str) -> str:
    """``url`` without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class HttpClient:
    """Thread-safe. Setting ``cancel`` stops every transfer; ``backoff_s`` doubles with each useless try."""

    def __init__(
        self,
        *,
        tries: int = 5,
        backoff_s: float = 0.5,
        connect_timeout_s: float = 15.0,
        read_timeout_s: float = 60.0,
    ) -> None:
        self.cancel = threading.Event()
        self._tries = tries
        self._backoff_s = backoff_s
        self._timeout = urllib3.Timeout(connect=connect_timeout_s, read=read_timeout_s)
        self._proxies = urllib.request.getproxies_environment()
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._pools_lock = threading.Lock()
        #: hosts that could not be connected to: the next part does not wait for them again
        self._unreachable: dict[str, str] = {}
        #: registry tokens by the part of the URL that they open
        self._tokens: dict[str, str] = {}

    def read_text(self, url: str, limit: int) -> str:
        """The body of a small file. Raises TransferError, also when it is longer than ``limit`` bytes."""
        body = bytearray()

        def attempt() -> None:
            body.clear()
            with self._open(url, 0) as response:
                for chunk in self._chunks(response):
                    body.extend(chunk)
                    _check_limit(url, len(body), limit)

        self._retry(url, attempt, lambda: 0)
        return body.decode("utf-8", "replace")

    def download(self, url: str, partial: Path, *, limit: int, on_bytes: OnBytes) -> bool:
        """Fill ``partial`` with the body of ``url``, going on where it ends; returns whether it was resumed.

        ``limit`` bounds the size in bytes. Raises TransferError, and then what came so far stays in
        ``partial``; OSError when the disk refuses.
        """
        resumed = False

        def attempt() -> None:
            nonlocal resumed
            resumed |= self._append(url, partial, limit, on_bytes)

        self._retry(url, attempt, lambda: _size_of(partial))
        return resumed

    def _append(self, url: str, partial: Path, limit: int, on_bytes: OnBytes) -> bool:
        offset = _size_of(partial)
        with self._open(url, offset) as response:
            if response.status == 416:
                # What lies here is at least as long as the file: it is complete, or it is not this file.
                return True
            if response.status == 206 and _range_start(response) != offset:
                partial.unlink(missing_ok=True)
                raise _Retry(f"{redact(url)}: answered with another range than was asked for")
            start = offset if response.status == 206 else 0
            length = response.headers.get("Content-Length", "")
            if length.isdigit():
                _check_limit(url, start + int(length), limit)
                check_space(partial, int(length))
            with partial.open("ab" if start else "wb") as stream:
                size = start
                for chunk in self._chunks(response):
                    size += len(chunk)
                    _check_limit(url, size, limit)
                    stream.write(chunk)
                    on_bytes(size)
        return start > 0

    def _chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        for chunk in response.stream(_CHUNK, decode_content=False):
            if self.cancel.is_set():
                raise Cancelled
            yield chunk

    def _retry(self, url: str, attempt: Callable[[], None], size: Callable[[], int]) -> None:
        """Run ``attempt`` until it succeeds. A try that brought bytes does not count as a useless one."""
        host = urlsplit(url).netloc
        useless = 0
        for _ in range(_MAX_TRIES):
            if host in self._unreachable:
                raise TransferError(f"{redact(url)}: {self._unreachable[host]}")
            before = size()
            try:
                return attempt()
            except _Retry as error:
                failure = error
            except HTTPError as error:
                failure = _as_retry(url, error)
            useless = 0 if size() > before else useless + 1
            if not failure.connected and useless >= _CONNECT_TRIES:
                self._unreachable[host] = str(failure).partition(": ")[2]
                break
            if useless >= self._tries:
                break
            delay = max(failure.delay_s, self._backoff_s * 2.0 ** max(0, useless - 1))
            if self.cancel.wait(min(delay, _MAX_DELAY_S)):
                raise Cancelled
        raise TransferError(str(failure))

    @contextmanager
    def _open(self, url: str, offset: int) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer with the body: status 200, or 206 and 416 when ``offset`` asked for the rest."""
        place = url
        for _ in range(_MAX_REDIRECTS):
            if self.cancel.is_set():
                raise Cancelled
            response = self._request(place, offset, login=url if _same_host(place, url) else "")
            try:
                if self._needs_token(place, url, response):
                    continue
                if response.status in _REDIRECTS and "Location" in response.headers:
                    place = _follow(url, place, response.headers["Location"])
                    continue
                _check_status(url, response, offset)
                yield response
                return
            finally:
                response.close()
        raise TransferError(
            f"{redact(url)}: redirected more than {_MAX_REDIRECTS} times", code=REFUSED, permanent=True
        )

    def _request(self, url: str, offset: int, *, login: str) -> urllib3.BaseHTTPResponse:
        """Ask for ``url``; ``login`` is the URL whose token, or user and password, may be shown to it."""
        # Parts are compared byte by byte, so no server may compress them on the way.
        headers = {"User-Agent": f"imagegen/{__version__}", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        parts = urlsplit(url)
        if "/manifests/" in parts.path:
            headers["Accept"] = ", ".join(MANIFEST_TYPES)
        owner = urlsplit(login)
        if token := self._tokens.get(token_scope(login)):
            headers["Authorization"] = f"Bearer {token}"
        elif owner.username is not None:
            words = f"{unquote(owner.username)}:{unquote(owner.password or '')}"
            headers |= urllib3.make_headers(basic_auth=words)
        return self._pool(parts.scheme, parts.hostname or "").request(
            "GET",
            redact(url),
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=self._timeout,
        )

    def _needs_token(self, place: str, url: str, response: urllib3.BaseHTTPResponse) -> bool:
        """Whether a registry asked for a token that is there now; registries want one even from anybody."""
        challenge = read_challenge(response.headers.get("WWW-Authenticate", ""))
        scope = token_scope(url)
        if response.status != 401 or not challenge or scope in self._tokens or not _same_host(place, url):
            return False
        realm = challenge.pop("realm", "")
        _follow(place, place, realm)
        answer = self.read_text(f"{realm}?{urlencode(challenge)}", _MAX_TOKEN_ANSWER)
        self._tokens[scope] = read_token(answer)
        return True

    def _pool(self, scheme: str, host: str) -> urllib3.PoolManager:
        proxy = "" if urllib.request.proxy_bypass(host) else self._proxies.get(scheme, "")
        with self._pools_lock:
            if proxy not in self._pools:
                context = ssl.create_default_context()
                if proxy:
                    address = urlsplit(proxy)
                    login = (
                        f"{unquote(address.username)}:{unquote(address.password or '')}"
                        if address.username
                        else None
                    )
                    self._pools[proxy] = urllib3.ProxyManager(
                        redact(proxy),
                        proxy_headers=urllib3.make_headers(proxy_basic_auth=login) if login else None,
                        ssl_context=context,
                    )
                else:
                    self._pools[proxy] = urllib3.PoolManager(ssl_context=context)
            return self._pools[proxy]


def _as_retry(url: str, error: HTTPError) -> _Retry:
    """Raises TransferError when another try cannot help."""
    if isinstance(error, SSLError):
        raise TransferError(f"{redact(url)}: {_reason(error)}", permanent=True) from error
    connected = not isinstance(error, NewConnectionError | ConnectTimeoutError | ProxyError)
    return _Retry(f"{redact(url)}: {_reason(error)}", connected=connected)


def _reason(error: HTTPError) -> str:
    text = str(error)
    # urllib3 puts the repr of its own objects in front: "HTTPSConnection(host='…', port=443): Failed to …"
    text = text.partition("): ")[2] or text
    return text[:1].lower() + text[1:]


def _check_status(url: str, response: urllib3.BaseHTTPResponse, offset: int) -> None:
    status = response.status
    if status == 200 or (offset and status in {206, 416}):
        return
    message = f"{redact(url)}: answered {status} {response.reason or ''}".rstrip()
    if status in _TRANSIENT:
        after = response.headers.get("Retry-After", "")
        raise _Retry(message, float(after) if after.isdigit() else 0.0)
    raise TransferError(message, permanent=True, absent=status in {404, 410})


def _check_limit(url: str, size: int, limit: int) -> None:
    if size > limit:
        raise TransferError(
            f"{redact(url)}: wanted at most {limit} bytes, got {size} or more", permanent=True
        )


def _follow(first: str, place: str, location: str) -> str:
    target = urljoin(place, location)
    scheme = urlsplit(target).scheme
    allowed = {"https"} if urlsplit(first).scheme == "https" else {"http", "https"}
    if urlsplit(place).scheme == "https":
        allowed = {"https"}
    if scheme not in allowed:
        raise TransferError(
            f"{redact(first)}: redirects to {redact(target)}, which is not https",
            code=REFUSED,
            permanent=True,
        )
    return target


def _same_host(one: str, other: str) -> bool:
    a, b = urlsplit(one), urlsplit(other)
    return (a.scheme, a.hostname, a.port) == (b.scheme, b.hostname, b.port)


def _range_start(response: urllib3.BaseHTTPResponse) -> int:
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else -1


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
