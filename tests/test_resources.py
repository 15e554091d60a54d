"""Data files are found by name, and by nothing that leads elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

import imagegen.resources
from imagegen.errors import ImagegenError
from imagegen.resources import find_resource


@pytest.mark.parametrize("folder", ["profiles", "packer", "cloud-init", "examples"])
def test_every_data_folder_is_found(folder: str) -> None:
    assert find_resource(folder).is_dir()


def test_the_wheel_comes_before_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "imagegen"
    (package / "data" / "profiles").mkdir(parents=True)
    (tmp_path / "profiles").mkdir()
    monkeypatch.setattr(imagegen.resources, "_PACKAGE", package)
    assert find_resource("profiles") == package / "data" / "profiles"


@pytest.mark.parametrize("part", ["..", ".", "", "a/b", "a\\b", "a\0b", "/etc"])
def test_a_part_cannot_lead_out(part: str) -> None:
    with pytest.raises(ValueError, match="not the name of a resource"):
        find_resource("profiles", part)


def test_a_missing_resource_is_a_readable_error() -> None:
    with pytest.raises(ImagegenError, match=r"profiles/no-such\.yaml is missing"):
        find_resource("profiles", "no-such.yaml")
