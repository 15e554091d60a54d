"""The cache of expensive intermediate results, keyed by the hash of everything that affects them.

A layer is a folder that appears under its key only when complete, and stays while somebody uses it. Knows
nothing about what a layer holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_KEY_LENGTH = 24
_PARTIAL = ".partial"


def default_layer_root() -> Path:
    """``imagegen/layers`` below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "imagegen" / "layers"


def hash_inputs(inputs: Mapping[str, object]) -> str:
    """The key of a layer: 24 hex digits over the canonical JSON of its inputs."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def _say_nothing(text: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer on the disk: the bytes it takes there, and its last use in seconds since 1970."""

    name: str
    size_bytes: int
    used: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCache:
    """Layers below ``root`` (usually ``~/.cache/imagegen/layers``). Safe under concurrent runs and kill -9.

    What was found or built stays until ``release``: no other run removes it. ``tell`` gets a line before this
    run waits for another one.
    """

    root: Path
    tell: Callable[[str], None] = _say_nothing
    #: whether a layer must outlive a crash of this machine; if not, its key must change with every start
    is_durable: bool = True
    _uses: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def has(self, kind: str, key: str) -> bool:
        """Whether the layer is there; does not count as a use."""
        return (self.root / f"{kind}-{key}").is_dir()

    def find(self, kind: str, key: str) -> Path | None:
        """The folder of a complete layer, or None; a hit counts as a use for ``prune``."""
        name = f"{kind}-{key}"
        path = self.root / name
        if not path.is_dir():
            return None
        if name not in self._uses:
            handle = self._lock(name, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if handle is None or not path.is_dir():
                _close(handle)
                return None
            self._keep(name, handle)
        os.utime(path)
        return path

    def get_or_build(self, kind: str, key: str, build: Callable[[Path], None]) -> Path:
        """The layer's folder, made by ``build`` in a temporary folder when it is not there yet.

        Two runs that want the same layer build it once: the second waits. Whatever ``build`` raises goes on,
        and nothing stays under the final name.
        """
        found = self.find(kind, key)
        if found is not None:
            return found
        self.root.mkdir(parents=True, exist_ok=True)
        final = self.root / f"{kind}-{key}"
        handle = self._lock(final.name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if handle is None:
            # Shared, because whoever makes it keeps it: it may be a thread of this very run.
            self.tell(f"waiting for another run, which makes {final.name}")
            _close(self._lock(final.name, fcntl.LOCK_SH))
            return self.get_or_build(kind, key, build)
        try:
            if not final.is_dir():
                self._build(final, build)
            # shared from here on: others may use it, nobody may remove it; flock(2): not atomic
            if handle is not None:
                fcntl.flock(handle, fcntl.LOCK_SH)
        except BaseException:
            _close(handle)
            raise
        self._keep(final.name, handle)
        if not final.is_dir():
            self._drop(final.name)
            return self.get_or_build(kind, key, build)
        return final

    def _build(self, final: Path, build: Callable[[Path], None]) -> None:
        partial = self.root / f"{final.name}{_PARTIAL}"
        remove_tree(partial)
        partial.mkdir()
        try:
            build(partial)
            if self.is_durable:
                _sync_tree(partial)
            partial.rename(final)
        except BaseException:
            remove_tree(partial)
            raise

    def _lock(self, name: str, operation: int) -> int | None:
        """An open lock file, or None when somebody else has it; the kernel drops the lock with its holder."""
        path = self.root / f"{name}.lock"
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, operation)
            except BlockingIOError:
                os.close(handle)
                return None
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(handle).st_ino:
                    return handle
            # its last holder removed it, with the layer, before we got it
            os.close(handle)

    def _keep(self, name: str, handle: int | None) -> None:
        with self._guard:
            if name in self._uses:
                _close(handle)
            elif handle is not None:
                self._uses[name] = handle

    def _drop(self, name: str) -> None:
        with self._guard:
            _close(self._uses.pop(name, None))

    def release(self) -> None:
        """Let other runs remove what this one used."""
        with self._guard:
            while self._uses:
                _close(self._uses.popitem()[1])

    def sweep(self) -> list[str]:
        """Remove what killed runs left behind; returns the names. What is being made is left alone."""
        removed = []
        for partial in sorted(self.root.glob(f"*{_PARTIAL}")):
            handle = self._lock(partial.name.removesuffix(_PARTIAL), fcntl.LOCK_EX | fcntl.LOCK_NB)
            if handle is not None:
                remove_tree(partial)
                _close(handle)
                removed.append(partial.name)
        return removed

    def list_layers(self) -> list[Layer]:
        """Every complete layer, the one that was not used for longest first."""
        found = []
        for path in self.root.iterdir() if self.root.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                if path.is_dir() and path.suffix != _PARTIAL:
                    size = sum(entry.lstat().st_blocks for entry in path.rglob("*")) * 512
                    found.append(Layer(path.name, size, path.stat().st_mtime))
        return sorted(found, key=lambda layer: (layer.used, layer.name))

    def prune(self, limit_bytes: int) -> list[Layer]:
        """Remove layers, the one that was not used for longest first, until the rest takes at most
        ``limit_bytes``; returns them. What any run uses stays.
        """
        layers = self.list_layers()
        total = sum(layer.size_bytes for layer in layers)
        removed = []
        for layer in layers:
            if total <= limit_bytes:
                break
            if self._remove(layer.name):
                total -= layer.size_bytes
                removed.append(layer)
        return removed

    def _remove(self, name: str) -> bool:
        handle = self._lock(name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if handle is None:
            return False
        # never half a layer under its final name, even when we are killed here
        partial = self.root / f"{name}{_PARTIAL}"
        with contextlib.suppress(FileNotFoundError):
            (self.root / name).rename(partial)
            remove_tree(partial)
        (self.root / f"{name}.lock").unlink(missing_ok=True)
        _close(handle)
        return True


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def remove_tree(path: Path) -> None:
    """Remove a folder and what is in it; fine when it is not there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
        return
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _sync_tree(path: Path) -> None:
    for entry in [*path.rglob("*"), path]:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            continue
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
