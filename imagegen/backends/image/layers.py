"""The cache of expensive intermediate results, keyed by the hash of everything that affects them.

A layer is a folder that appears under its key only when complete. Knows nothing about what a layer holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_KEY_LENGTH = 24


def default_layer_root() -> Path:
    """``imagegen/layers`` below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "imagegen" / "layers"


def hash_inputs(inputs: Mapping[str, object]) -> str:
    """The key of a layer: 24 hex digits over the canonical JSON of its inputs."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCache:
    """Layers below ``root`` (usually ``~/.cache/imagegen/layers``). Safe under concurrent runs and kill
    -9.
    """

    root: Path

    def has(self, kind: str, key: str) -> bool:
        """Whether the layer is there; does not count as a use."""
        return (self.root / f"{kind}-{key}").is_dir()

    def find(self, kind: str, key: str) -> Path | None:
        """The folder of a complete layer, or None; a hit counts as a use for ``prune``."""
        path = self.root / f"{kind}-{key}"
        if not path.is_dir():
            return None
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
        with self._lock(final.name):
            found = self.find(kind, key)
            if found is not None:
                return found
            partial = self.root / f"{final.name}.partial"
            remove_tree(partial)
            partial.mkdir()
            try:
                build(partial)
                _sync_tree(partial)
                partial.rename(final)
            except BaseException:
                remove_tree(partial)
                raise
        return final

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        # The kernel drops the lock with its holder, so a dead run never blocks the next one.
        with open(self.root / f"{name}.lock", "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def sweep(self) -> list[str]:
        """Remove what killed runs left behind; returns the names. Layers under construction are left
        alone.
        """
        removed = []
        for partial in sorted(self.root.glob("*.partial")):
            lock = self.root / f"{partial.name.removesuffix('.partial')}.lock"
            with open(lock, "w") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                remove_tree(partial)
                removed.append(partial.name)
        return removed


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
