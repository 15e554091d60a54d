"""Installed packages by dpkg's status, and their files' sums by the lists that they were installed by."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from imagegen.backends.image.debianpackages import parse_dpkg_status, read_packages, save_sums
from tests.backends.image.dpkgstatus import PACKAGES, STATUS, make_stanza, write_lists


def _sums(layer: Path) -> dict[str, str]:
    return {package.name: package.sha256 for package in read_packages(layer)}


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    folder = tmp_path / "layer"
    folder.mkdir()
    (folder / "dpkg-status").write_text(STATUS)
    return folder


def test_installed_packages_are_read() -> None:
    assert parse_dpkg_status(STATUS) == PACKAGES


def test_the_sum_is_that_of_the_installed_version_and_architecture(layer: Path, tmp_path: Path) -> None:
    version = PACKAGES[1].version
    lists = write_lists(
        tmp_path / "lists.tar",
        make_stanza("zlib1g", "1:1.3.2-1", "amd64", "a"),
        make_stanza("zlib1g", version, "i386", "b"),
        make_stanza("zlib1g", version, "amd64", "c"),
        make_stanza("zlib1g-dev", version, "amd64", "d"),
        make_stanza("gone", "1.0", "amd64", "e"),
    )
    save_sums(layer, [lists])
    assert _sums(layer) == {"adduser": "", "zlib1g": "c" * 64}


def test_what_came_by_the_base_and_what_came_by_later_lists(layer: Path, tmp_path: Path) -> None:
    """The archive may have replaced what is in the base when a role's packages are installed."""
    former = write_lists(tmp_path / "former", make_stanza("adduser", "3.152", "all", "a"))
    later = write_lists(
        tmp_path / "later",
        make_stanza("adduser", "3.153", "all", "b"),
        make_stanza("zlib1g", PACKAGES[1].version, "amd64", "c"),
    )
    save_sums(layer, [former, later])
    assert _sums(layer) == {"adduser": "a" * 64, "zlib1g": "c" * 64}
    save_sums(layer, [later, former, later])
    assert _sums(layer) == {"adduser": "a" * 64, "zlib1g": "c" * 64}


def test_two_files_of_one_version_have_no_sum(layer: Path, tmp_path: Path) -> None:
    one, other = (make_stanza("adduser", "3.152", "all", digest) for digest in "ab")
    save_sums(layer, [write_lists(tmp_path / "lists.tar", one, other)])
    assert _sums(layer) == {"adduser": "", "zlib1g": ""}


@pytest.mark.judge
@pytest.mark.process
def test_dpkg_installs_a_file_whose_sum_is_found_in_the_list_that_dpkg_makes(
    layer: Path, tmp_path: Path
) -> None:
    if shutil.which("dpkg-scanpackages") is None:
        pytest.skip("dpkg-scanpackages is not installed (Debian package dpkg-dev)")
    root, pool, tree = tmp_path / "root", tmp_path / "pool", tmp_path / "tree"
    for folder in (root / "var/lib/dpkg/updates", root / "var/lib/dpkg/info", pool, tree / "DEBIAN"):
        folder.mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    (tree / "DEBIAN/control").write_text(
        "Package: tool\nVersion: 1:2.0-1+b1\nArchitecture: all\nMaintainer: a <a@example.org>\n"
        "Description: a tool\n that does nothing\n"
    )
    file = pool / "tool.deb"
    _run("dpkg-deb", "--root-owner-group", "--build", tree, file)
    _run("dpkg", f"--root={root}", "--force-not-root", "--install", file)
    shutil.copy(root / "var/lib/dpkg/status", layer / "dpkg-status")
    save_sums(layer, [write_lists(tmp_path / "lists.tar", _run("dpkg-scanpackages", "--multiversion", pool))])
    assert _sums(layer) == {"tool": hashlib.sha256(file.read_bytes()).hexdigest()}


def _run(*argv: str | Path) -> str:
    return subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True).stdout
