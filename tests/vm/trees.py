"""Root file systems of two images, file by file."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from imagegen.run import Runner
from imagegen.verify.roots import unpack_root

#: type, mode, numeric owner and group, and the content's sum or the link's target
Row = tuple[str, str, str, str]


def read_tree(image: Path, work: Path) -> dict[str, Row]:
    """Every path of an image's root file system; only root sees owners."""
    work.mkdir()
    root = unpack_root(Runner(), image, work)
    rows: dict[str, Row] = {}
    for here, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(here, name)
            rows[f"/{path.relative_to(root)}"] = _read(path)
    return rows


def _read(path: Path) -> Row:
    status = path.lstat()
    mode, owner = f"{stat.S_IMODE(status.st_mode):04o}", f"{status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return ("link", mode, owner, os.readlink(path))
    if stat.S_ISREG(status.st_mode):
        with path.open("rb") as stream:
            return ("file", mode, owner, hashlib.file_digest(stream, "sha256").hexdigest())
    return ("directory" if stat.S_ISDIR(status.st_mode) else "special", mode, owner, "")


def list_differences(one: dict[str, Row], other: dict[str, Row], allowed: Iterable[str]) -> list[str]:
    """What differs outside of the allowed patterns, one line a path, with what each side has."""
    patterns = list(allowed)
    return [
        f"{path}: {one.get(path, 'nothing')} and {other.get(path, 'nothing')}"
        for path in sorted(one.keys() | other.keys())
        if one.get(path) != other.get(path) and not any(fnmatch.fnmatchcase(path, p) for p in patterns)
    ]
