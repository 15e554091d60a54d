"""Installed packages by dpkg's status, and their files' sums by the lists that they were installed by."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from imagegen.backends.image.debianpackages import parse_dpkg_status, read_packages, save_sums
from tests.backends.image.dpkgstatus import PACKAGES, STATUS


def _sums(layer: Path) -> dict[str, str]:
    return {package.name: package.sha256 for package in read_packages(layer)}


def _stanza(name: str, version: str, architecture: str, digest: str) -> str:
    return (
        f"Package: {name}\nVersion: {version}\nInstalled-Size: 1\nArchitecture: {architecture}\n"
        f"Depends: libc6 (>= 2.14)\nFilename: pool/main/{name}.deb\nSHA256: {digest * 64}\n"
        "Description: a package\n Package: of the description\n"
    )


def _write_lists(path: Path, *stanzas: str) -> Path:
    """As a base layer keeps them: one list among files that are none."""
    with tarfile.open(path, "w") as archive:
        for name, text in (("_InRelease", "Package: no list\n"), ("_Packages", "\n".join(stanzas))):
            info = tarfile.TarInfo(f"var/lib/apt/lists/example_dists_trixie{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


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
    lists = _write_lists(
        tmp_path / "lists.tar",
        _stanza("zlib1g", "1:1.3.2-1", "amd64", "a"),
        _stanza("zlib1g", version, "i386", "b"),
        _stanza("zlib1g", version, "amd64", "c"),
        _stanza("zlib1g-dev", version, "amd64", "d"),
        _stanza("gone", "1.0", "amd64", "e"),
    )
    save_sums(layer, [lists])
    assert _sums(layer) == {"adduser": "", "zlib1g": "c" * 64}


def test_what_came_by_the_base_and_what_came_by_later_lists(layer: Path, tmp_path: Path) -> None:
    """The archive may have replaced what is in the base when a role's packages are installed."""
    former = _write_lists(tmp_path / "former", _stanza("adduser", "3.152", "all", "a"))
    later = _write_lists(
        tmp_path / "later",
        _stanza("adduser", "3.153", "all", "b"),
        _stanza("zlib1g", PACKAGES[1].version, "amd64", "c"),
    )
    save_sums(layer, [former, later])
    assert _sums(layer) == {"adduser": "a" * 64, "zlib1g": "c" * 64}
    save_sums(layer, [later, former, later])
    assert _sums(layer) == {"adduser": "a" * 64, "zlib1g": "c" * 64}


def test_two_files_of_one_version_have_no_sum(layer: Path, tmp_path: Path) -> None:
    one, other = (_stanza("adduser", "3.152", "all", digest) for digest in "ab")
    save_sums(layer, [_write_lists(tmp_path / "lists.tar", one, other)])
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
    save_sums(
        layer, [_write_lists(tmp_path / "lists.tar", _run("dpkg-scanpackages", "--multiversion", pool))]
    )
    assert _sums(layer) == {"tool": hashlib.sha256(file.read_bytes()).hexdigest()}


def _run(*argv: str | Path) -> str:
    return subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True).stdout
