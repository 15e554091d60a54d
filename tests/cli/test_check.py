"""``check``: all findings at once, where they are, for people and for machines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Imagegen


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_good_file(imagegen: Imagegen, quickstart: Path) -> None:
    done = imagegen("check", quickstart)
    assert done.code == 0
    assert "error" not in done.out
    assert "warning" not in done.out
    assert "fine, 4 nodes in 3 sets of roles" in done.err


def test_a_folder_stands_for_its_cluster_file(imagegen: Imagegen, quickstart: Path) -> None:
    assert imagegen("check", quickstart.parent).code == 0


def test_every_finding_at_once_with_its_place(imagegen: Imagegen, quickstart: Path) -> None:
    _replace(quickstart, "name: master-0", "name: worker-0")
    _replace(quickstart, "version: 1\n", "version: 1\ncolour: red\n")
    done = imagegen("check", quickstart)
    assert done.code == 2
    assert f"{quickstart}:" in done.out
    assert "unknown key 'colour'" in done.out
    assert "worker-0 is given twice" in done.out
    assert "2 errors" in done.err
    findings = json.loads(imagegen("check", quickstart, "--format", "json").out)
    errors = [f for f in findings if f["severity"] == "error"]
    assert len(errors) == 2
    assert all(f["file"] == str(quickstart) and f["line"] > 1 and f["column"] > 0 for f in errors)


def test_json_of_a_good_file_is_a_list(imagegen: Imagegen, quickstart: Path) -> None:
    assert isinstance(json.loads(imagegen("check", quickstart, "--format", "json").out), list)


def test_strict_turns_warnings_into_failure(imagegen: Imagegen, quickstart: Path) -> None:
    text = quickstart.read_text()
    line = next(line for line in text.splitlines() if "etcd-0" in line and "roles" in line)
    second = line.replace("etcd-0", "etcd-1").replace("10.240.0.10", "10.240.0.15")
    quickstart.write_text(text.replace(line, f"{line}\n{second}"))
    relaxed = imagegen("check", quickstart)
    assert relaxed.code == 0
    assert "warning[" in relaxed.out
    assert imagegen("check", quickstart, "--strict").code == 2


def test_a_missing_file(imagegen: Imagegen, tmp_path: Path) -> None:
    done = imagegen("check", tmp_path / "none.yaml")
    assert done.code == 2
    assert "no such file" in done.out


def test_a_profile_folder_of_ones_own(imagegen: Imagegen, quickstart: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "worker.yaml").write_text("sysctls: {vm.max_map_count: '262144'}\n")
    assert imagegen("check", quickstart, "--profiles", folder).code == 0
    (folder / "worker.yaml").write_text("sysctlz: {}\n")
    done = imagegen("check", quickstart, "--profiles", folder)
    assert done.code == 2
    assert "worker.yaml:1:1" in done.out
    shutil.rmtree(folder)
    assert imagegen("check", quickstart, "--profiles", folder).code == 2


@pytest.mark.parametrize("verb", ["check", "plan", "render", "seed", "diff"])
def test_no_verb_takes_a_broken_file(verb: str, imagegen: Imagegen, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("version: 1\nnodes: [\n")
    words = {"render": ["-o", tmp_path / "out"], "seed": ["-o", tmp_path / "out"], "diff": [path]}.get(
        verb, []
    )
    done = imagegen(verb, path, *words)
    assert done.code == 2
    assert "broken.yaml:" in done.out + done.err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "secrets").exists()
