"""Starting a cluster file: every example can be copied, checks clean, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from imagegen.cli.examples import describe_example, example_file, list_examples
from tests.cli.conftest import Imagegen


def test_the_examples_of_the_design_are_there() -> None:
    assert list_examples()[0] == "quickstart"
    assert {"quickstart", "all-in-one", "ha"} <= set(list_examples())


#: what these examples show has a price that check names
WARNED = {"flannel-etcd": ("IMG126", "IMG126")}


@pytest.mark.parametrize("name", list_examples())
def test_every_example_is_described_copied_and_clean(name: str, imagegen: Imagegen, tmp_path: Path) -> None:
    assert describe_example(name)
    done = imagegen("new", tmp_path / "here", "--example", name)
    assert (done.code, done.out) == (0, "")
    target = tmp_path / "here" / "cluster.yaml"
    assert str(target) in done.err
    stated = example_file(name.removesuffix("-today")).with_name("deviations.yaml").is_file()
    is_strict = not stated and name not in WARNED
    checked = imagegen("check", target, *(["--strict"] if is_strict else []))
    assert checked.code == 0, checked.out
    levels = re.findall(r"(\w+)\[IMG\d+\]", checked.out)
    if stated:
        assert set(levels) <= {"note", "warning"}, checked.out
    else:
        assert levels == ["warning"] * len(WARNED.get(name, ())) + ["note"], checked.out


def test_nothing_is_overwritten(imagegen: Imagegen, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("mine\n")
    done = imagegen("new", tmp_path)
    assert done.code == 2
    assert "exists already" in done.err
    assert (tmp_path / "cluster.yaml").read_text() == "mine\n"


def test_a_dangling_link_is_not_followed(imagegen: Imagegen, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").symlink_to(tmp_path / "elsewhere")
    assert imagegen("new", tmp_path).code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_is_no_folder(imagegen: Imagegen, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = imagegen("new", tmp_path / "file")
    assert done.code == 2
    assert "is not a folder" in done.err


def test_here_is_the_default(imagegen: Imagegen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert imagegen("new").code == 0
    assert os.listdir() == ["cluster.yaml"]


def test_the_list(imagegen: Imagegen) -> None:
    text = imagegen("new", "--list")
    assert text.code == 0
    assert [line.split()[0] for line in text.out.splitlines()] == list_examples()
    rows = json.loads(imagegen("new", "--list", "--format", "json").out)
    assert [row["name"] for row in rows] == list_examples()
    assert all(row["description"] for row in rows)
