"""Writes an output folder: all of a run's files or none, never over a file that imagegen did not make.

Files are staged in one hidden folder inside OUT, synchronised together and renamed at the end, so that a run
that fails or is killed leaves the files of the run before it. Nothing outside OUT is reached through symbolic
links.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

from imagegen.backends import manifest
from imagegen.backends.ahead import start_ahead
from imagegen.backends.folders import (
    OPEN_FOLDER,
    create_file,
    describe,
    empty_folder,
    folder_error,
    hash_file,
    lock_folder,
    open_below,
    read_file,
    set_mode,
    write_all,
    write_file,
)
from imagegen.backends.manifest import Artifact, Manifest
from imagegen.backends.syncing import sync_files
from imagegen.errors import ImagegenError, UsageError

_STAGING = ".imagegen-partial"
_JOURNAL = "journal"
_MOVE = "move it away, or choose another folder with -o OUT"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(slots=True)
class OutputSummary:
    """What a run did. ``left`` are files of former runs that somebody changed: they stay and are ours no
    more.
    """

    written: int = 0
    unchanged: int = 0
    removed: int = 0
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Present:
    """A file that was there before this run; ``stamp`` is another one after every change."""

    sha256: str
    stamp: tuple[int, int, int]


class OutputFolder:
    """One run's view of OUT; a context manager that holds the folder's lock.

    ``write`` stages, ``commit`` gives every file its name; leaving the block without ``commit`` discards
    everything. ``force`` allows to replace files that imagegen did not make and folders of another cluster.
    Raises UsageError when OUT cannot be an output folder, ImagegenError when writing fails.
    """

    def __init__(self, path: Path, *, cluster: str, force: bool = False, lock_timeout: float = 60.0) -> None:
        self.path = path
        self._cluster = cluster
        self._force = force
        self._lock_timeout = lock_timeout
        self._root = -1
        self._staging = -1
        self._is_new = False
        self._committed = False
        self._staged = 0
        self._journal: frozenset[str] = frozenset()
        self._pending: list[tuple[str, str]] = []
        self._artifacts: dict[str, Artifact] = {}
        self._folders: dict[str, bool] = {}
        self.former = Manifest(cluster)
        self.summary = OutputSummary()

    # --- opening and closing
    # -----------------------------------------------------------------------------------

    def __enter__(self) -> OutputFolder:
        try:
            self._open_root()
            lock_folder(self._root, self.path, self._lock_timeout)
            while not self._is_in_place():
                # another run had made the folder and, with nothing to put in, removed it while we waited
                self._close()
                self._open_root()
                lock_folder(self._root, self.path, self._lock_timeout)
            self._staging = self._open_staging()
            self.former = self._read_former()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _is_in_place(self) -> bool:
        """Whether the open folder is still the one that ``path`` names."""
        try:
            return os.path.samestat(os.fstat(self._root), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _open_root(self) -> None:
        self._is_new = False
        try:
            os.mkdir(self.path, 0o755)
            os.chmod(self.path, 0o755)  # noqa: S103 - whatever the umask
            self._is_new = True
        except FileExistsError:
            pass
        except FileNotFoundError:
            raise UsageError(
                f"cannot make the output folder {self.path}: {self.path.parent} does not exist",
                hint=f"make it first: mkdir -p {self.path.parent}",
            ) from None
        except OSError as error:
            raise folder_error(self.path, error) from error
        try:
            self._root = os.open(self.path, OPEN_FOLDER)
        except OSError as error:
            raise folder_error(self.path, error) from error

    def _open_staging(self) -> int:
        """A fresh staging folder; what a killed run left in it is read and removed."""
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(_STAGING, 0o700, dir_fd=self._root)
            handle = os.open(_STAGING, OPEN_FOLDER, dir_fd=self._root)
        except OSError as error:
            raise folder_error(self.path / _STAGING, error) from error
        os.fchmod(handle, 0o700)
        with contextlib.suppress(OSError):
            text = read_file(_JOURNAL, handle).decode()
            self._journal = frozenset(filter(manifest.is_safe_path, text.split("\n")))
        empty_folder(handle)
        return handle

    def _read_former(self) -> Manifest:
        place = f"{self.path}/{manifest.NAME}"
        try:
            data = read_file(manifest.NAME, self._root, manifest.MAX_BYTES)
        except FileNotFoundError:
            return Manifest(self._cluster)
        except OSError as error:
            raise UsageError(f"cannot read {place}: {error.strerror}") from error
        former = manifest.parse_manifest(data, place)
        if former.cluster != self._cluster and not self._force:
            raise UsageError(
                f"{self.path} holds the output of cluster {former.cluster!r}, not of {self._cluster!r}",
                hint="choose another folder with -o OUT",
            )
        return former

    def _close(self) -> None:
        if self._staging >= 0:
            with contextlib.suppress(OSError):
                empty_folder(self._staging)
                os.rmdir(_STAGING, dir_fd=self._root)
            os.close(self._staging)
            self._staging = -1
        if self._root >= 0:
            if self._is_new and not self._committed:
                with contextlib.suppress(OSError):
                    os.rmdir(self.path)
            os.close(self._root)
            self._root = -1

    @property
    def staging(self) -> Path:
        """Where programs may make files of their own; it is gone after this run, or emptied by the next."""
        return self.path / _STAGING

    # --- staging
    # -----------------------------------------------------------------------------------------------

    def write(self, path: str, data: bytes, *, inputs: str, secret: bool = False) -> None:
        """Stage one file, 0600 in a 0700 folder when ``secret``, else 0644. ``path`` is relative, with ``/``.

        A file that is there already and has these bytes is left alone. Raises UsageError when another file,
        not made by imagegen or changed since, is in the way.
        """
        artifact = Artifact(path, hashlib.sha256(data).hexdigest(), len(data), inputs, secret)
        if self._adopt(artifact):
            return
        name = self._next_name()
        try:
            write_file(name, self._staging, _mode(secret), data)
        except OSError as error:
            raise self._write_error(path, len(data), error) from error
        self._pending.append((path, name))

    @contextlib.contextmanager
    def stream(self, path: str, *, inputs: str, secret: bool = False) -> Iterator[Callable[[bytes], None]]:
        """Like ``write`` for a file that is made piece by piece: yields the function that takes the
        pieces.
        """
        name = self._next_name()
        size, digest = 0, hashlib.sha256()

        def write_piece(data: bytes) -> None:
            nonlocal size
            size += len(data)
            digest.update(data)
            try:
                write_all(handle, data)
            except OSError as error:
                raise self._write_error(path, size, error) from error

        handle = create_file(name, self._staging, _mode(secret))
        try:
            yield write_piece
        finally:
            os.close(handle)
        if self._adopt(Artifact(path, digest.hexdigest(), size, inputs, secret)):
            os.unlink(name, dir_fd=self._staging)
        else:
            self._pending.append((path, name))

    def _next_name(self) -> str:
        self._staged += 1
        return str(self._staged)

    def _write_error(self, path: str, size: int, error: OSError) -> ImagegenError:
        place = self.path / path
        if error.errno not in _NO_SPACE:
            return ImagegenError(f"cannot write {place}: {error.strerror}")
        disk = os.fstatvfs(self._root)
        free = disk.f_bavail * disk.f_frsize
        return ImagegenError(
            f"no space left for {place}: it needs {size:,} bytes, {free:,} are free",
            hint="make room or choose another folder with -o OUT; the files of the run before are untouched",
        )

    def _read_present(self, path: str, known: _Present | None = None) -> _Present | None:
        """The file that is there already, or None; ``known`` when it has not changed since then.

        Raises OSError when it is no regular file.
        """
        folder, _, name = path.rpartition("/")
        try:
            with open_below(self._root, folder) as handle:
                if handle is None:
                    return None
                state = os.stat(name, dir_fd=handle, follow_symlinks=False)
                stamp = (state.st_ino, state.st_size, state.st_ctime_ns)
                if known and known.stamp == stamp:
                    return known
                return _Present(hash_file(name, handle), stamp)
        except FileNotFoundError:
            return None

    def _adopt(self, artifact: Artifact, ahead: Future[_Present | None] | None = None) -> bool:
        """Take note of an artifact; True when the file is there already and has these bytes.

        ``ahead`` has read what is there. Raises UsageError when something that is not ours is in its place.
        """
        path = artifact.path
        if not manifest.is_safe_path(path) or path.split("/")[0] in {_STAGING, manifest.NAME}:
            raise ValueError(f"wanted a path inside the output folder, got {path!r}")
        folder = path.rpartition("/")[0]
        self._folders[folder] = self._folders.get(folder, False) or artifact.secret
        self._artifacts[path] = artifact
        if self._is_new:
            return False
        try:
            present = self._read_present(path, ahead.result() if ahead else None)
            if present is None:
                return False
            if present.sha256 == artifact.sha256:
                self._set_modes(artifact)
                self.summary.unchanged += 1
                return True
        except OSError as error:
            raise UsageError(f"{self.path}/{path} is in the way: {describe(error)}", hint=_MOVE) from error
        self._check_ours(path, present.sha256)
        return False

    def _set_modes(self, artifact: Artifact) -> None:
        folder, _, name = artifact.path.rpartition("/")
        with open_below(self._root, folder) as handle:
            if handle is None:
                return
            set_mode(name, handle, _mode(artifact.secret))
            if artifact.secret and folder:
                set_mode(".", handle, 0o700)

    def _check_ours(self, path: str, present: str) -> None:
        if self._force or path in self._journal:
            return
        former = self.former.artifacts.get(path)
        if former is None:
            reason = "was not made by imagegen"
        elif former.sha256 != present:
            reason = "was changed after imagegen made it"
        else:
            return
        raise UsageError(f"{self.path}/{path} {reason}", hint=_MOVE)

    # --- committing
    # --------------------------------------------------------------------------------------------

    def keep(self, path: str, inputs: str | None = None) -> bool:
        """Keep the file of a former run, if it is still there; with ``inputs`` only when it was made from
        these. Tells whether it was kept.
        """
        former = self.former.artifacts.get(path)
        if former is None or inputs not in (None, former.inputs):
            return False
        folder, _, name = path.rpartition("/")
        with open_below(self._root, folder) as handle, contextlib.suppress(FileNotFoundError):
            if (
                handle is not None
                and os.stat(name, dir_fd=handle, follow_symlinks=False).st_size == former.size
            ):
                self._artifacts.setdefault(path, former)
                return True
        return False

    @contextlib.contextmanager
    def make_file(self, path: str, *, inputs: str, secret: bool = False) -> Iterator[Path]:
        """Like ``write`` for a large file that a program makes: yields the path where it must put the
        file.
        """
        name = self._next_name()
        target = self.path / _STAGING / name
        # a file that is there already is read while the program works
        ahead = start_ahead(partial(self._read_present, path))
        yield target
        os.chmod(target, _mode(secret))
        artifact = Artifact(path, hash_file(name, self._staging), target.stat().st_size, inputs, secret)
        if self._adopt(artifact, ahead):
            target.unlink()
        else:
            self._pending.append((path, name))

    def commit(self, owns: Callable[[str], bool]) -> OutputSummary:
        """Give every staged file its name, remove stale files, write the manifest.

        ``owns`` says of the path of a former run's file whether this run would have written it if it were
        still wanted; files of other commands stay. Raises ImagegenError when writing fails.
        """
        self._rename_all()
        for path in self.former.artifacts.keys() - self._artifacts.keys():
            if owns(path):
                self._remove(path)
            else:
                self.keep(path)
        self._write_manifest()
        self._committed = True
        return self.summary

    def _rename_all(self) -> None:
        if not self._pending:
            return
        self._synchronise()
        self._pending.sort(key=lambda pair: pair[0].rpartition("/"))
        for folder, pairs in itertools.groupby(self._pending, key=lambda pair: pair[0].rpartition("/")[0]):
            path = folder
            try:
                with open_below(self._root, folder, self._folders) as handle:
                    for path, name in pairs:
                        os.rename(name, path.rpartition("/")[2], src_dir_fd=self._staging, dst_dir_fd=handle)
                        self.summary.written += 1
            except OSError as error:
                raise self._write_error(path, 0, error) from error
        self._pending.clear()

    def _synchronise(self) -> None:
        """Put everything staged on the disk, and the list of it.

        After a kill between the renames and the manifest, the next run must know these files as ours.
        """
        journal = "\n".join(path for path, _ in self._pending).encode()
        try:
            write_file(_JOURNAL, self._staging, 0o600, journal)
            sync_files(self._staging, [_JOURNAL, *(name for _, name in self._pending)])
        except OSError as error:
            size = sum(self._artifacts[path].size for path, _ in self._pending)
            raise self._write_error("", size, error) from error

    def _remove(self, path: str) -> None:
        """Remove a stale file, unless somebody changed it; then its folder, if that was the last one."""
        folder, _, name = path.rpartition("/")
        try:
            with open_below(self._root, folder) as handle:
                if handle is None:
                    return
                if hash_file(name, handle) != self.former.artifacts[path].sha256:
                    self.summary.left.append(path)
                    return
                os.unlink(name, dir_fd=handle)
            self.summary.removed += 1
            while folder:
                os.rmdir(folder, dir_fd=self._root)
                folder = folder.rpartition("/")[0]
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                self.summary.left.append(path)

    def _write_manifest(self) -> None:
        data = manifest.emit_manifest(self._cluster, self._artifacts.values())
        with contextlib.suppress(FileNotFoundError):
            if read_file(manifest.NAME, self._root, manifest.MAX_BYTES) == data:
                return
        try:
            write_file(manifest.NAME, self._staging, 0o644, data)
            sync_files(self._staging, [manifest.NAME])
            os.rename(manifest.NAME, manifest.NAME, src_dir_fd=self._staging, dst_dir_fd=self._root)
            sync_files(self._root, ["."])
        except OSError as error:
            raise self._write_error(manifest.NAME, len(data), error) from error


def _mode(secret: bool) -> int:
    return 0o600 if secret else 0o644
