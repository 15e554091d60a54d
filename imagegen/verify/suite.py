"""Checks of a golden image, made from the Plan's bake items and the list of hygiene, without booting it.

What an image must contain is stated once, in the Plan; this only asks whether it is so.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from imagegen.backends.image.hygiene import HYGIENE, Action, Hygiene
from imagegen.backends.image.nodeseed import SEED_FOLDER
from imagegen.backends.image.payload import Entry, Payload, entry_path
from imagegen.plan.items import (
    Binary,
    ContainerImage,
    Directory,
    File,
    Group,
    Item,
    KernelModule,
    Phase,
    Symlink,
    Sysctl,
    Unit,
    UnitState,
    User,
)
from imagegen.verify import accounts, settings
from imagegen.verify.ownseed import check_own_seed
from imagegen.verify.roots import Root, tell_type


@dataclass(frozen=True, slots=True)
class Check:
    """One question to a root file system; ``ask`` answers with what is wrong, or with nothing."""

    name: str
    ask: Callable[[Root], str]


@dataclass(frozen=True, slots=True)
class Answer:
    name: str
    problem: str

    @property
    def passed(self) -> bool:
        return not self.problem


def list_checks(
    items: Iterable[Item],
    payload: Payload,
    digests: Mapping[str, str],
    *,
    owners: bool,
    has_seed: bool = False,
) -> Iterator[Check]:
    """Every check of one image, in a stable order; ``has_seed`` when the seed of its one node is inside.

    ``digests`` are the SHA-256 sums of executables by path, as far as they are known; ``owners`` is whether
    the root file system was unpacked with its owners.
    """
    baked = [item for item in items if item.phase is Phase.BAKE]
    for entry in payload.entries:
        path = entry_path(entry)
        yield Check(f"{_KIND[type(entry)]} {path}", functools.partial(_check_entry, entry, digests, owners))
    for name in payload.packages:
        yield Check(f"package {name}", functools.partial(settings.check_package, name))
    for item in baked:
        ask = _ask_item(item)
        if ask is not None:
            yield Check(f"{item.KIND} {item.identity[1]}", ask)
    yield Check("no account with a password", accounts.check_passwords)
    if has_seed:
        yield Check("seed of the image's node", check_own_seed)
    for rule in HYGIENE:
        for pattern in rule.pattern.split():
            if has_seed and SEED_FOLDER.startswith(f"/{pattern}/"):
                continue
            name = f"hygiene /{pattern}: {_RULE[rule.action]}, because {rule.why}"
            yield Check(name, functools.partial(_check_hygiene, rule, pattern))


def run_checks(checks: Iterable[Check], root: Root) -> Iterator[Answer]:
    """Ask every check; a file that cannot be read is a problem of its check."""
    for check in checks:
        try:
            yield Answer(check.name, check.ask(root))
        except OSError as error:
            yield Answer(check.name, f"cannot be read: {error.strerror}")


_KIND: Mapping[type[Entry], str] = {
    Directory: "directory",
    File: "file",
    Symlink: "link",
    Binary: "executable",
    ContainerImage: "container image",
}
_RULE = {Action.REMOVE: "gone", Action.EMPTY: "empty", Action.CREATE: "an empty file"}


def _ask_item(item: Item) -> Callable[[Root], str] | None:
    match item:
        case Unit() if item.state is not UnitState.STATIC:
            return functools.partial(settings.check_unit, item)
        case Sysctl():
            return functools.partial(settings.check_sysctl, item)
        case KernelModule():
            return functools.partial(settings.check_module, item)
        case User():
            return functools.partial(accounts.check_user, item)
        case Group():
            return functools.partial(accounts.check_group, item)
    return None


def _check_entry(entry: Entry, digests: Mapping[str, str], owners: bool, root: Root) -> str:
    path = entry_path(entry)
    status = root.status(path)
    wanted = {Directory: "directory", Symlink: "link"}.get(type(entry), "file")
    if status is None:
        return f"wanted a {wanted}, there is nothing"
    if tell_type(status) != wanted:
        return f"wanted a {wanted}, got a {tell_type(status)}"
    match entry:
        case Symlink():
            target = os.readlink(root.find(path))
            return "" if target == entry.target else f"wanted a link to {entry.target}, got {target}"
        case Directory():
            return _check_mode(entry.mode, entry.owner, entry.group, status, owners, root)
        case File():
            problem = _check_mode(entry.mode, entry.owner, entry.group, status, owners, root)
            return problem or _check_content(entry, root)
        case Binary():
            return _check_mode("0755", "root", "root", status, owners, root) or _check_sum(
                entry, digests, root
            )
        case ContainerImage():
            return "" if status.st_size else "empty"


def _check_mode(mode: str, owner: str, group: str, status: os.stat_result, owners: bool, root: Root) -> str:
    if stat.S_IMODE(status.st_mode) != int(mode, 8):
        return f"wanted mode {mode}, got {stat.S_IMODE(status.st_mode):04o}"
    if not owners:
        return ""
    got = f"{accounts.name_user(root, status.st_uid)}:{accounts.name_group(root, status.st_gid)}"
    return "" if got == f"{owner}:{group}" else f"wanted owner {owner}:{group}, got {got}"


def _check_content(file: File, root: Root) -> str:
    wanted = b"".join(
        part.encode() if isinstance(part, str) else part
        for part in file.content
        if isinstance(part, str | bytes)
    )
    got = root.find(file.path).read_bytes()
    if got == wanted:
        return ""
    return (
        f"wanted {len(wanted):,} bytes with sum {_sum(wanted)}, got {len(got):,} bytes with sum {_sum(got)}"
    )


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _check_sum(binary: Binary, digests: Mapping[str, str], root: Root) -> str:
    with open(root.find(binary.path), "rb") as handle:
        if handle.read(4) != b"\x7fELF":
            return "not an executable in ELF"
        handle.seek(0)
        got = hashlib.file_digest(handle, "sha256").hexdigest()
    wanted = digests.get(binary.path, got)
    return "" if got == wanted else f"wanted sum {wanted}, got {got}"


def _check_hygiene(rule: Hygiene, pattern: str, root: Root) -> str:
    if rule.action is Action.CREATE:
        status = root.status(f"/{pattern}")
        if status is None or tell_type(status) != "file":
            return "there is no such file"
        return "" if status.st_size == 0 else f"{status.st_size:,} bytes"
    found = list(root.match(pattern))
    if rule.action is Action.EMPTY:
        found = [path for path in found if (status := root.status(f"/{path}")) and status.st_size]
    return (
        f"there is /{found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else "") if found else ""
    )
