"""The places a part may come from: a mirror folder, a mirror URL, the official release site; one layout.

In a mirror, the host name of the official URL is the first path element:
``https://dl.k8s.io/release/v1.36.4/…`` is ``MIRROR/dl.k8s.io/release/v1.36.4/…``.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import unquote, urlsplit

from imagegen.errors import UsageError
from imagegen.fetch.checksums import MAX_CHECKSUM_FILE
from imagegen.fetch.failures import TransferError
from imagegen.fetch.http import Cancelled, HttpClient, OnBytes, redact
from imagegen.fetch.space import check_space

_CHUNK = 1 << 20


class Source(Protocol):
    """A place. Both methods take the official URL and raise TransferError."""

    @property
    def origin(self) -> Literal["mirror", "release site"]: ...

    def place(self, url: str) -> str:
        """Where this source has ``url``, for people and as a key."""
        ...

    def read_text(self, url: str) -> str:
        """A checksum file."""
        ...

    def download(self, url: str, partial: Path, *, limit: int, on_bytes: OnBytes) -> bool:
        """Fill ``partial``; returns whether an older part of it was used."""
        ...


def mirror_path(url: str) -> str:
    """The path of an official URL below a mirror; raises ValueError for what has no safe one."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    pieces = path.strip("/").split("/")
    if (
        not parts.hostname
        or parts.query
        or any(piece in {"", ".", ".."} or "\0" in piece for piece in pieces)
    ):
        raise ValueError(f"{url} has no place in a mirror")
    return "/".join([parts.hostname, *pieces])


@dataclass(frozen=True, slots=True)
class ReleaseSite:
    client: HttpClient
    origin: Literal["mirror", "release site"] = "release site"

    def place(self, url: str) -> str:
        return url

    def read_text(self, url: str) -> str:
        return self.client.read_text(url, MAX_CHECKSUM_FILE)

    def download(self, url: str, partial: Path, *, limit: int, on_bytes: OnBytes) -> bool:
        return self.client.download(url, partial, limit=limit, on_bytes=on_bytes)


@dataclass(frozen=True, slots=True)
class UrlMirror:
    """``base`` is http or https and may hold a user and a password; only its host is told them."""

    base: str
    client: HttpClient
    origin: Literal["mirror", "release site"] = "mirror"

    def place(self, url: str) -> str:
        return redact(self._address(url))

    def _address(self, url: str) -> str:
        return f"{self.base.rstrip('/')}/{mirror_path(url)}"

    def read_text(self, url: str) -> str:
        return self.client.read_text(self._address(url), MAX_CHECKSUM_FILE)

    def download(self, url: str, partial: Path, *, limit: int, on_bytes: OnBytes) -> bool:
        return self.client.download(self._address(url), partial, limit=limit, on_bytes=on_bytes)


@dataclass(frozen=True, slots=True)
class FolderMirror:
    root: Path
    cancel: threading.Event
    origin: Literal["mirror", "release site"] = "mirror"

    def place(self, url: str) -> str:
        return str(self.root / mirror_path(url))

    def read_text(self, url: str) -> str:
        path = self.root / mirror_path(url)
        try:
            with path.open("rb") as stream:
                return stream.read(MAX_CHECKSUM_FILE).decode("utf-8", "replace")
        except OSError as error:
            raise _as_transfer_error(path, error) from error

    def download(self, url: str, partial: Path, *, limit: int, on_bytes: OnBytes) -> bool:
        path = self.root / mirror_path(url)
        try:
            source = path.open("rb")
        except OSError as error:
            raise _as_transfer_error(path, error) from error
        with source:
            size = os.fstat(source.fileno()).st_size
            if size > limit:
                raise TransferError(f"{path}: wanted at most {limit} bytes, got {size}", permanent=True)
            check_space(partial, size)
            copied = 0
            with partial.open("wb") as target:
                while chunk := source.read(_CHUNK):
                    if self.cancel.is_set():
                        raise Cancelled
                    target.write(chunk)
                    copied += len(chunk)
                    on_bytes(copied)
        return False


def _as_transfer_error(path: Path, error: OSError) -> TransferError:
    absent = isinstance(error, FileNotFoundError | NotADirectoryError)
    return TransferError(f"{path}: {(error.strerror or str(error)).lower()}", permanent=True, absent=absent)


def open_sources(mirror: str | None, client: HttpClient, *, offline: bool) -> list[Source]:
    """Where to ask: the mirror first, then the release sites. Raises UsageError for an unusable mirror."""
    sources = [open_mirror(mirror, client)] if mirror else []
    return sources if offline else [*sources, ReleaseSite(client)]


def open_mirror(text: str, client: HttpClient) -> Source:
    """The mirror that ``--mirror`` or ``IMAGEGEN_MIRROR`` names: a folder, ``file://`` or an http(s) URL.

    Raises UsageError when the folder does not exist or the URL is of another kind.
    """
    parts = urlsplit(text)
    if parts.scheme in {"http", "https"} and parts.hostname:
        return UrlMirror(text, client)
    if "://" in text and parts.scheme != "file":
        raise UsageError(f"wanted a folder or an http(s) URL as mirror, got {redact(text)}")
    root = Path(unquote(parts.path) if parts.scheme == "file" else text).expanduser()
    if not root.is_dir():
        raise UsageError(f"the mirror {root} is not a folder", hint="`make mirror` fills one")
    return FolderMirror(root.absolute(), client.cancel)
