"""Gives files their set-user-id and set-group-id bits back, which debugfs loses as it sets owners."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from imagegen.run import Runner

_TIMEOUT_SECONDS = 300.0
#: a line of ``ls -p``: /INODE/MODE/USER/GROUP/NAME/SIZE/, the mode in octal with its file type
_ENTRY = re.compile(r"^/\d+/(\d{6})/\d+/\d+/([^/]+)/\d*/$")
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


def restore_set_ids(runner: Runner, device: str, tree: Path) -> None:
    """Set the modes of special files below ``tree`` as they are in the ext file system ``device`` that it was
    unpacked from. ``device`` is as debugfs takes it. Raises CommandError.
    """
    folders = list(_list_folders(tree))
    script = tree.parent / "list-modes"
    script.write_text("".join(f'ls -p "/{folder}"\n' for folder in folders), encoding="utf-8")
    done = runner.run(["debugfs", "-f", str(script), device], timeout=_TIMEOUT_SECONDS)
    script.unlink()
    folder = ""
    for line in done.stdout.splitlines():
        if line.startswith("debugfs: ls -p "):
            folder = line.removeprefix('debugfs: ls -p "/').removesuffix('"')
        entry = _ENTRY.match(line)
        if entry is None or entry[2] in (".", ".."):
            continue
        mode = int(entry[1], 8)
        if mode & _SPECIAL and not stat.S_ISLNK(mode):
            place = tree / folder / entry[2]
            if place.exists() and not place.is_symlink():
                place.chmod(stat.S_IMODE(mode))


def _list_folders(tree: Path) -> Iterator[str]:
    for folder, _, _ in os.walk(tree):
        relative = os.path.relpath(folder, tree)
        if '"' not in relative and "\n" not in relative:
            yield "" if relative == "." else relative
