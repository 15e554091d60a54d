"""The secret store: a private directory of keys, certificates and tokens beside the cluster file.

Files are 0600 in 0700 directories and appear only when complete. No symbolic link inside the store is
followed, and a key that others may read is refused, not repaired: whoever could read it may have done so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from imagegen.errors import ImagegenError
from imagegen.openfolder import sync_file_system, wait_for_lock
from imagegen.pki.seal import Sealer

RECIPIENTS_FILE = ".age-recipients"
IDENTITY_VARIABLE = "IMAGEGEN_AGE_IDENTITY"
_LOCK_FILE = ".lock"
_STAGING = ".staging"
_OURS = frozenset({"pki", "nodes", "encryption", RECIPIENTS_FILE, _LOCK_FILE, _STAGING, ".gitignore"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}(/[A-Za-z0-9][A-Za-z0-9._-]{0,252}){0,7}")
_MAX_BYTES = 1 << 20
#: up to this many files are synchronised one by one, more by one syncfs(2) over the whole file system
_FSYNC_EACH = 48


class StoreError(ImagegenError):
    """The secret store cannot be read or written as it should be; the message names the file."""


class SecretReader(Protocol):
    """What resolves a ``Ref``: any place that has bytes under the names of the store."""

    def read(self, name: str) -> bytes:
        """The bytes of one entry; raises StoreError when there is none."""
        ...


def is_public(name: str) -> bool:
    """Whether the entry may be shown to anyone: certificates and public keys."""
    return name.endswith((".crt", ".pub"))


def open_store(cluster_file: str, secrets: Path | None, environ: Mapping[str, str]) -> SecretStore:
    """The store at ``secrets``, by default ``secrets/`` beside the cluster file. Writes nothing.

    When the store has a file ``.age-recipients``, private entries are sealed to the age recipients in it;
    ``IMAGEGEN_AGE_IDENTITY`` in ``environ`` is the path of the identity that opens them.
    """
    root = secrets if secrets is not None else Path(cluster_file).parent / "secrets"
    identity = environ.get(IDENTITY_VARIABLE)
    try:
        recipients = (root / RECIPIENTS_FILE).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        recipients = ""
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {root / RECIPIENTS_FILE}: {error}") from error
    return SecretStore(root, recipients=recipients, identity_file=Path(identity) if identity else None)


class SecretStore:
    """Entries by name (``pki/ca.key``). Constructing one touches nothing.

    ``recipients`` is the text of an age recipients file; when it is not empty, private entries lie on disk as
    ``NAME.age``. All methods raise StoreError, whose message names the file.
    """

    def __init__(self, root: Path, *, recipients: str = "", identity_file: Path | None = None) -> None:
        self.root = root
        self._seals = bool(recipients.strip())
        self._sealer = Sealer(recipients, identity_file)
        self._pending: dict[str, bytes] | None = None
        self._cache: dict[str, bytes] = {}
        self._checked: set[str] = set()
        self._lock_depth = 0

    # --- reading ---

    def exists(self, name: str) -> bool:
        """Whether there is an entry of that name, sealed or not."""
        _check_name(name)
        if self._pending is not None and name in self._pending:
            return True
        path = self._path(name)
        return os.path.lexists(path) or (not is_public(name) and os.path.lexists(f"{path}.age"))

    def read(self, name: str) -> bytes:
        """The bytes of one entry; entries that all nodes share are read from disk once."""
        if self._pending is not None and name in self._pending:
            return self._pending[name]
        cached = self._cache.get(name)
        if cached is not None:
            return cached
        _check_name(name)
        data = self._read_file(name, private=not is_public(name))
        if data is None and not is_public(name):
            sealed = self._read_file(f"{name}.age", private=False)
            data = None if sealed is None else self._sealer.unseal(name, sealed)
        if data is None:
            raise StoreError(f"{name} is not in the secret store {self.root}")
        if not name.startswith("nodes/"):
            self._cache[name] = data
        return data

    def names(self) -> list[str]:
        """The names of all entries, sorted; sealed ones without ``.age``."""
        out = set()
        for folder, folders, files in os.walk(self.root):
            folders[:] = [f for f in folders if not f.startswith(".")]
            inside = Path(folder).relative_to(self.root)
            out |= {str(inside / f.removesuffix(".age")) for f in files if not f.startswith(".")}
        return sorted(out)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _read_file(self, name: str, *, private: bool) -> bytes | None:
        """The bytes of a file, or None when it is not there. ``private`` files must be closed to others."""
        path = self._path(name)
        self._check_directories(name)
        try:
            # O_NONBLOCK: opening a FIFO must not hang
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _read_error(path, error) from error
        try:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise StoreError(f"{path} is not a regular file")
            if private and state.st_mode & 0o077:
                raise StoreError(
                    f"{path} may be read by others: mode is {stat.S_IMODE(state.st_mode):04o}, wanted 0600",
                    hint=f"replace the key if others use this machine, then: chmod 0600 {path}",
                )
            if state.st_size > _MAX_BYTES:
                raise StoreError(f"{path} is larger than {_MAX_BYTES} bytes")
            return os.read(handle, _MAX_BYTES + 1)
        finally:
            os.close(handle)

    def _check_directories(self, name: str) -> None:
        """Refuse symbolic links on the way from the root to ``name``; every directory is looked at once."""
        if name.rpartition("/")[0] in self._checked:
            return
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder in self._checked:
                continue
            try:
                mode = os.lstat(self._path(folder)).st_mode
            except FileNotFoundError:
                return
            except OSError as error:
                raise _read_error(self._path(folder), error) from error
            if stat.S_ISLNK(mode):
                raise _link_error(self._path(folder))
            self._checked.add(folder)

    # --- writing ---

    def write(self, name: str, data: bytes) -> None:
        """Put one entry, now or at the end of the surrounding ``batch``."""
        _check_name(name)
        if self._pending is not None:
            self._pending[name] = data
        else:
            self._commit({name: data})

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Collect writes and put them on disk together when the block ends well, else write nothing.

        Reads inside the block see what was written. Files appear in the order of the writes.
        """
        if self._pending is not None:
            raise StoreError("a batch of the secret store is already open")
        self._pending = {}
        try:
            yield
            pending = self._pending
        finally:
            self._pending = None
        if pending:
            self._commit(pending)

    def seal_plain(self) -> int:
        """Seal private entries that still lie in the open, such as an authority just dropped in; how many.

        Does nothing without recipients. Files that are no entries of ours are left alone.
        """
        if not self._seals:
            return 0
        ours = (".key", "/bootstrap-token")
        private = [name for name in self.names() if name.endswith(ours) or name.startswith("encryption/")]
        plain = [name for name in private if os.path.lexists(self._path(name))]
        with self.batch():
            for name in plain:
                self.write(name, self.read(name))
        return len(plain)

    def _commit(self, entries: Mapping[str, bytes]) -> None:
        """Stage every file, synchronise, rename each into place, synchronise the directories."""
        with self.lock():
            staging = f"{self.root}/{_STAGING}"
            try:
                os.mkdir(staging, 0o700)
                moves = [
                    self._stage(name, data, f"{staging}/{number}")
                    for number, (name, data) in enumerate(entries.items())
                ]
                self._sync([f"{staging}/{number}" for number in range(len(moves))])
                for number, target in enumerate(moves):
                    os.replace(f"{staging}/{number}", target)
                    if target.endswith(".age"):
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(target.removesuffix(".age"))
                self._sync(sorted({os.path.dirname(target) for target in moves}))
            except OSError as error:
                raise StoreError(f"cannot write the secret store {self.root}: {error}") from error
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        for name in entries:
            self._cache.pop(name, None)

    def _stage(self, name: str, data: bytes, staged: str) -> str:
        """Write one file of the staging directory; returns where it belongs."""
        if self._seals and not is_public(name):
            name, data = f"{name}.age", self._sealer.seal(data)
        self._make_directories(name)
        handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(handle, 0o600)
            if os.write(handle, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), staged)
        finally:
            os.close(handle)
        return self._path(name)

    def _make_directories(self, name: str) -> None:
        self._check_directories(name)
        if name.rpartition("/")[0] in self._checked:
            return
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in self._checked:
                os.mkdir(self._path(folder), 0o700)
                os.chmod(self._path(folder), 0o700)
                self._checked.add(folder)

    def _sync(self, names: Iterable[str]) -> None:
        listed = list(names)
        many = len(listed) > _FSYNC_EACH
        sync: Callable[[int], None] = sync_file_system if many else os.fsync
        if many:
            listed = [str(self.root)]
        for path in listed:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                sync(handle)
            finally:
                os.close(handle)

    # --- the directory ---

    @contextlib.contextmanager
    def lock(self, timeout: float = 60.0) -> Iterator[None]:
        """Keep other processes from writing the store; waits up to ``timeout`` seconds. May be nested.

        Makes the directory when it is not there. The kernel drops the lock of a process that dies.
        """
        if self._lock_depth:
            self._lock_depth += 1
            try:
                yield
            finally:
                self._lock_depth -= 1
            return
        self._prepare_root()
        try:
            handle = os.open(
                f"{self.root}/{_LOCK_FILE}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise StoreError(f"cannot lock the secret store {self.root}: {error}") from error
        try:
            _keep_others_out(handle, self.root, timeout)
            # what a killed run left; nobody else can be at work now
            shutil.rmtree(f"{self.root}/{_STAGING}", ignore_errors=True)
            self._lock_depth = 1
            yield
        finally:
            self._lock_depth = 0
            os.close(handle)

    def _prepare_root(self) -> None:
        """Make the directory, or see that it is a store of ours and closed to others."""
        try:
            self.root.mkdir(mode=0o700, parents=True)
            self.root.chmod(0o700)
            if not self._seals:
                # keys must not end up in a repository by `git add .`
                (self.root / ".gitignore").write_text("*\n", encoding="ascii")
            return
        except FileExistsError:
            pass
        except OSError as error:
            raise StoreError(f"cannot make the secret store {self.root}: {error}") from error
        try:
            mode = self.root.stat().st_mode
            if not stat.S_ISDIR(mode):
                raise StoreError(f"the secret store {self.root} is not a directory")
            present = set(os.listdir(self.root))
            if present and not present & _OURS:
                raise StoreError(
                    f"{self.root} is not empty and not a secret store",
                    hint="give --secrets a new directory, or one with pki/ca.crt and pki/ca.key of yours",
                )
            if mode & 0o022:
                raise StoreError(
                    f"others may write to the secret store {self.root}: mode {stat.S_IMODE(mode):04o}",
                    hint=f"look what is inside, then: chmod 0700 {self.root}",
                )
            if mode & 0o077:
                self.root.chmod(0o700)
        except OSError as error:
            raise StoreError(f"cannot use the secret store {self.root}: {error}") from error


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith(".age"):
        raise StoreError(f"{name!r} is not a name of the secret store")


def _link_error(path: str) -> StoreError:
    return StoreError(
        f"{path} is a symbolic link, and the secret store follows none",
        hint="copy the file into the store, or move the whole store with --secrets",
    )


def _read_error(path: str, error: OSError) -> StoreError:
    if error.errno == errno.ELOOP:
        return _link_error(path)
    return StoreError(f"cannot read {path}: {error.strerror}")


def _keep_others_out(handle: int, root: Path, timeout: float) -> None:
    try:
        is_ours = wait_for_lock(handle, timeout)
    except OSError as error:
        raise StoreError(f"cannot lock the secret store {root}: {error}") from error
    if not is_ours:
        raise StoreError(
            f"another imagegen has been writing the secret store {root} for {timeout:.0f} seconds",
            hint="wait for it, or end it, and run again",
        )
