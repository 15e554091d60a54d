"""A node's seed comes into a finished disk as if it had always been there; nothing of it stays elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from imagegen.backends.image.nodeseed import SEED_FOLDER, NodeSeed, write_seed
from imagegen.errors import ImagegenError
from imagegen.run import Runner

EPOCH = 1_767_225_600
OFFSET = 1 << 20
SECRET = b"the key of one node "
FILES = {
    "user-data": b"#cloud-config\n" + SECRET * 5000,
    "meta-data": b"instance-id: iid-1\n",
    "network-config": b"version: 2\n",
}
SEED = NodeSeed(node="one", files=FILES, digest="0" * 64)

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("mke2fs") is None, reason="e2fsprogs is not installed"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with an ext4 file system behind its first MiB, with ``/var/lib`` and little else."""
    (tmp_path / "tree/var/lib/dpkg").mkdir(parents=True)
    path = tmp_path / "disk.raw"
    size = ["-E", f"offset={OFFSET}", str(path), "15M"]
    path.touch()
    with open(path, "r+b") as handle:
        handle.truncate(16 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tmp_path / "tree"), *size], check=True)
    return path


def _write(disk: Path, folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    copy = folder / "copy.raw"
    shutil.copy(disk, copy)
    write_seed(Runner(), SEED, copy, OFFSET, folder, epoch=EPOCH)
    assert [path.name for path in folder.iterdir()] == ["copy.raw"], "nothing else is left there"
    return copy


def _debugfs(disk: Path, request: str) -> str:
    argv = ["debugfs", "-R", request, f"{disk}?offset={OFFSET}"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_the_files_are_there_and_roots_alone(disk: Path, tmp_path: Path) -> None:
    copy = _write(disk, tmp_path / "work")
    for name, body in FILES.items():
        assert _debugfs(copy, f"cat {SEED_FOLDER}/{name}").encode() == body
        stat = _debugfs(copy, f"stat {SEED_FOLDER}/{name}")
        assert "Mode:  0600" in stat
        assert "User:     0   Group:     0" in stat
    for folder, mode in (("/var/lib/cloud", "0755"), ("/var/lib/cloud/seed", "0755"), (SEED_FOLDER, "0700")):
        assert f"Type: directory    Mode:  {mode}" in _debugfs(copy, f"stat {folder}")


def test_the_file_system_stays_sound_and_the_same_input_gives_the_same_bytes(
    disk: Path, tmp_path: Path
) -> None:
    first = _write(disk, tmp_path / "one")
    time.sleep(1.1)
    second = _write(disk, tmp_path / "two")
    check = subprocess.run(["e2fsck", "-fn", f"{first}?offset={OFFSET}"], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
    assert first.read_bytes() == second.read_bytes()
    assert SECRET in first.read_bytes()
    assert SECRET not in disk.read_bytes(), "the disk that others use is not touched"


def test_what_debugfs_could_not_do_is_an_error(disk: Path, tmp_path: Path) -> None:
    copy = _write(disk, tmp_path / "work")
    (tmp_path / "again").mkdir()
    with pytest.raises(ImagegenError, match=r"could not put the seed of one into its image: .*already"):
        write_seed(Runner(), SEED, copy, OFFSET, tmp_path / "again", epoch=EPOCH)
    assert not list((tmp_path / "again").iterdir())


def test_a_seed_does_not_show_itself() -> None:
    assert SECRET.decode() not in repr(SEED)
