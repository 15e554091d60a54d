"""The same input gives the same bytes: folder, user's locale, time zone, umask, hash seed do not matter."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagegen.resources import find_resource

pytestmark = pytest.mark.process

_PLACES = (
    ("plain", {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}, "022"),
    (
        "mit Ümläuten und Leerzeichen",
        {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "4711"},
        "000",
    ),
    (
        "x" * 150,
        {"TZ": "America/Los_Angeles", "LC_ALL": "POSIX", "PYTHONHASHSEED": "1", "HOME": "/nonexistent"},
        "077",
    ),
)


@pytest.mark.parametrize("example", ["quickstart", "all-in-one"])
def test_two_places_give_the_same_bytes(example: str, tmp_path: Path) -> None:
    made = []
    secrets = None
    for name, environment, umask in _PLACES:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(find_resource("examples", example, "cluster.yaml"), folder)
        if secrets is not None:
            shutil.copytree(secrets, folder / "secrets")
        secrets = folder / "secrets"
        command = f'umask {umask}; exec "$0" -m imagegen seed cluster.yaml -o out'
        done = subprocess.run(
            ["sh", "-c", command, sys.executable],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "SOURCE_DATE_EPOCH": "1700000000", **environment},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        made.append(_describe(folder / "out"))
    assert made[0] == made[1] == made[2]


def _describe(out: Path) -> dict[str, tuple[str, int]]:
    """Content and mode of every file."""
    return {
        str(path.relative_to(out)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mode,
        )
        for path in out.rglob("*")
        if path.is_file()
    }
