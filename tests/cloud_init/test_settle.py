"""The program that lets an interrupted first boot happen again, over a folder that stands for a disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imagegen.resources import find_resource

pytestmark = pytest.mark.process

PROGRAM = find_resource("cloud-init", "settle")


def settle(verb: str, root: Path) -> str:
    done = subprocess.run([PROGRAM, verb, root], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """After cloud-init and the import of images, before the mark."""
    cloud = tmp_path / "var/lib/cloud"
    for path in ("instances/iid-1/sem", "data", "sem", "seed/nocloud"):
        (cloud / path).mkdir(parents=True)
    (cloud / "instance").symlink_to("instances/iid-1")
    (cloud / "data/instance-id").write_text("iid-1")
    (cloud / "seed/nocloud/user-data").write_text("#cloud-config")
    for path in ("var/lib/containerd/io.containerd.content", "var/lib/imagegen/images"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "var/lib/imagegen/images/pause.tar").write_text("image")
    (tmp_path / "var/lib/imagegen/images/pause.tar.imported").touch()
    return tmp_path


def list_files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def test_a_first_boot_that_was_not_marked_happens_again(disk: Path) -> None:
    assert "happens again" in settle("check", disk)
    assert list_files(disk) == ["var/lib/cloud/seed/nocloud/user-data", "var/lib/imagegen/images/pause.tar"]
    assert not list((disk / "var/lib/containerd").iterdir())


def test_a_marked_one_does_not(disk: Path) -> None:
    settle("mark", disk)
    before = list_files(disk)
    assert settle("check", disk) == ""
    assert list_files(disk) == before


def test_a_mark_that_lost_its_content_is_none(disk: Path) -> None:
    settle("mark", disk)
    (disk / "var/lib/cloud/instance/imagegen-settled").write_text("")
    assert "happens again" in settle("check", disk)


def test_a_new_seed_that_was_interrupted_leaves_the_images(disk: Path) -> None:
    settle("mark", disk)
    cloud = disk / "var/lib/cloud"
    (cloud / "instances/iid-2/sem").mkdir(parents=True)
    (cloud / "instance").unlink()
    (cloud / "instance").symlink_to("instances/iid-2")
    assert "happens again" in settle("check", disk)
    assert [path.name for path in (cloud / "instances").iterdir()] == ["iid-1"]
    assert not (cloud / "data").exists()
    assert (disk / "var/lib/imagegen/images/pause.tar.imported").exists()


def test_a_machine_without_a_seed_has_nothing_to_remember(tmp_path: Path) -> None:
    assert settle("mark", tmp_path) == settle("check", tmp_path) == ""
    assert list_files(tmp_path) == []
