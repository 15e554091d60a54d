"""File systems inside disk images."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imagegen.run import Runner
from imagegen.verify.filesystems import extract_ext

pytestmark = [pytest.mark.judge, pytest.mark.process]

OFFSET = 1 << 20


def test_a_file_system_that_was_cut_off_is_read_with_its_journal(tmp_path: Path) -> None:
    """The journal holds a new content of the file's block; debugfs writes both, as nobody may mount here."""
    tree, image, disk = tmp_path / "tree", tmp_path / "fs", tmp_path / "disk,one.raw"
    tree.mkdir()
    (tree / "file").write_bytes(b"old".ljust(4096, b"."))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, image, "32M"], check=True)
    shown = subprocess.run(
        ["debugfs", "-R", "blocks /file", image], check=True, capture_output=True, text=True
    )
    (tmp_path / "block").write_bytes(b"new".ljust(4096, b"."))
    (tmp_path / "script").write_text(f"jo\njw -b {shown.stdout.split()[0]} {tmp_path}/block\njc\n")
    subprocess.run(["debugfs", "-w", "-f", tmp_path / "script", image], check=True, capture_output=True)
    disk.write_bytes(bytes(OFFSET) + image.read_bytes())
    before = disk.read_bytes()
    (tmp_path / "out").mkdir()
    extract_ext(Runner(), disk, OFFSET, tmp_path / "out")
    assert (tmp_path / "out" / "file").read_bytes().startswith(b"new")
    assert disk.read_bytes() == before
