"""Members of archives, also of archives that mean harm."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from imagegen.errors import ImagegenError
from imagegen.fetch import archive as archive_module
from imagegen.fetch.archive import extract_members


def entry(
    name: str, body: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(body), 0o4777
    return info, body


def write_tar(path: Path, entries: Iterable[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, body in entries:
            archive.addfile(info, io.BytesIO(body))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_takes_out_what_was_asked_for(tmp_path: Path, mode: str) -> None:
    path = write_tar(
        tmp_path / "a.tar", [entry("bin/ctr", b"ctr"), entry("./bridge", b"br"), entry("z", b"z")], mode
    )
    extract_members(path, {"./bin/ctr": tmp_path / "ctr", "bridge": tmp_path / "bridge"})
    assert (tmp_path / "ctr").read_bytes() == b"ctr"
    assert (tmp_path / "ctr").stat().st_mode & 0o7777 == 0o755
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "bridge", "ctr"]


@pytest.mark.parametrize(
    "bad",
    [
        entry("tool", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        entry("tool", kind=tarfile.LNKTYPE, link="/etc/passwd"),
        entry("tool", kind=tarfile.DIRTYPE),
        entry("tool", kind=tarfile.CHRTYPE),
        entry("tool", kind=tarfile.FIFOTYPE),
    ],
)
def test_member_that_is_no_file(tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes]) -> None:
    with pytest.raises(ImagegenError, match="regular file"):
        extract_members(write_tar(tmp_path / "a.tgz", [bad]), {"tool": tmp_path / "out"})
    assert not (tmp_path / "out").exists()


def test_names_that_lead_elsewhere_are_not_followed(tmp_path: Path) -> None:
    entries = [
        entry("../evil", b"x"),
        entry("/tmp/evil-absolute", b"x"),
        entry("link", kind=tarfile.SYMTYPE, link=str(tmp_path / "secret")),
        entry("link/inside", b"x"),
        entry("tool", b"good"),
    ]
    folder = tmp_path / "folder"
    folder.mkdir()
    extract_members(write_tar(tmp_path / "a.tgz", entries), {"tool": folder / "tool"})
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tgz", "folder", "tool"]


def test_missing_members_are_all_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tgz", [entry("tool", b"x")])
    with pytest.raises(ImagegenError, match=r"cni\.tgz: does not hold bin/a, bin/b"):
        extract_members(
            path, {"bin/b": tmp_path / "b", "tool": tmp_path / "t", "bin/a": tmp_path / "a"}, name="cni.tgz"
        )


@pytest.mark.parametrize("cut", [0, 1, 20, 100, 300])
def test_broken_archive(tmp_path: Path, cut: int) -> None:
    path = write_tar(tmp_path / "a.tgz", [entry("tool", bytes(range(256)) * 50)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ImagegenError):
        extract_members(path, {"tool": tmp_path / "out"})
    assert [p.name for p in tmp_path.iterdir()] == ["a.tgz"]


def test_not_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(b"<html>" * 500)
    with pytest.raises(ImagegenError, match="not a readable archive"):
        extract_members(path, {"tool": tmp_path / "out"})


def test_bomb_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_ARCHIVE_SIZE", 1 << 20)
    path = write_tar(tmp_path / "a.tgz", [entry("big", b"\0" * (2 << 20)), entry("tool", b"x")])
    with pytest.raises(ImagegenError, match="unpacks to more than"):
        extract_members(path, {"tool": tmp_path / "out"})
    monkeypatch.setattr(archive_module, "MAX_ARCHIVE_SIZE", 1 << 30)
    monkeypatch.setattr(archive_module, "MAX_MEMBER_SIZE", 1 << 20)
    with pytest.raises(ImagegenError, match="larger than"):
        extract_members(path, {"big": tmp_path / "out"})


@pytest.mark.process
def test_reads_what_gnu_tar_wrote(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / ("n" * 150)).write_bytes(b"long")
    subprocess.run(["tar", "-C", str(tmp_path), "-czf", str(tmp_path / "a.tgz"), "./bin"], check=True)
    extract_members(tmp_path / "a.tgz", {f"bin/{'n' * 150}": tmp_path / "out"})
    assert (tmp_path / "out").read_bytes() == b"long"
