"""A release site on loopback that can misbehave in every way that a test asks for."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imagegen.fetch import Download, FetchResult, Lock, read_lock
from imagegen.fetch.engine import fetch_downloads
from imagegen.fetch.http import HttpClient


@dataclass
class Answers:
    """How the site treats one path: what it holds, and the troubles of its next answers, used up one by one.

    A trouble is a status, ``stop:N`` (close after N bytes), ``redirect:URL``, ``challenge:URL``,
    ``no-range``, ``wrong-range`` or ``stall``.
    """

    body: bytes
    troubles: list[int | str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """``requests`` lists every request as path and Range header."""

    base: str
    files: dict[str, Answers] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[tuple[str, Message]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, body: bytes, *troubles: int | str, **headers: str) -> str:
        """Hold a file; returns its URL."""
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        self.files[path] = Answers(body, list(troubles), named)
        return self.base + path

    def put_part(self, name: str, body: bytes, *troubles: int | str) -> Download:
        """Hold a part and its checksum file."""
        url = self.put(f"/{name}", body, *troubles)
        self.put(f"/{name}.sha256", f"{sha256(body)}  {name}\n".encode())
        return Download(name=name, version="1.0.0", url=url, checksum_url=f"{url}.sha256")

    def shown(self, header: str, part_of_path: str) -> list[str]:
        """What each request for such a path said in a header."""
        return [headers.get(header, "") for path, headers in self.headers if part_of_path in path]

    def count(self, path: str) -> int:
        return sum(path == p for p, _ in self.requests)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def make_handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            site.requests.append((self.path, asked))
            site.headers.append((self.path, self.headers))
            answers = site.files.get(self.path)
            if answers is None:
                self.send_error(404)
                return
            trouble = answers.troubles.pop(0) if answers.troubles else ""
            if trouble == "stall":
                site.stopped.wait(60)
            elif isinstance(trouble, int):
                self.send_error(trouble)
            elif trouble.startswith("challenge:"):
                self._challenge(trouble.removeprefix("challenge:"))
            elif trouble.startswith("redirect:"):
                self.send_response(302)
                self.send_header("Location", trouble.removeprefix("redirect:"))
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._send(answers, asked, trouble)

        def _challenge(self, realm: str) -> None:
            """Like a registry that hands out tokens to anybody."""
            self.send_response(401)
            self.send_header(
                "WWW-Authenticate", f'Bearer realm="{realm}",service="here",scope="repository:a:pull"'
            )
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, answers: Answers, asked: str, trouble: str) -> None:
            body, start = answers.body, 0
            if asked and trouble != "no-range":
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(body):
                    self.send_error(416)
                    return
                shown = start + 1 if trouble == "wrong-range" else start
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            for name, value in answers.headers.items():
                self.send_header(name, value)
            rest = body[start:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if trouble.startswith("stop:"):
                self.wfile.write(rest[: int(trouble.removeprefix("stop:"))])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(rest)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


def serve(server: ThreadingHTTPServer, scheme: str) -> Site:
    site = Site(f"{scheme}://localhost:{server.server_address[1]}")
    server.RequestHandlerClass = make_handler(site)
    # clients that are killed hang up in the middle
    server.handle_error = lambda *request: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return site


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("localhost", 0), BaseHTTPRequestHandler)
    served = serve(server, "http")
    try:
        yield served
    finally:
        served.stopped.set()
        server.shutdown()
        server.server_close()


@dataclass
class Fetcher:
    """Fetches into folders of its own, patient for milliseconds only."""

    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def lock(self) -> Lock:
        return read_lock(self.root / "imagegen.lock")

    def __call__(
        self, *downloads: Download, mirror: str | Path | None = None, offline: bool = False
    ) -> FetchResult:
        return fetch_downloads(
            downloads,
            lock=self.lock,
            mirror=str(mirror) if mirror else None,
            cache_dir=self.cache,
            offline=offline,
            client=HttpClient(backoff_s=0.002, connect_timeout_s=2, read_timeout_s=2),
        )

    def files(self) -> list[str]:
        """What lies in the cache as parts and as unfinished downloads."""
        return sorted(
            str(p.relative_to(self.cache))
            for folder in ("sha256", "partial")
            for p in (self.cache / folder).iterdir()
        )


@pytest.fixture
def fetch(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path)
