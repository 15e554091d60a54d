"""``scan``: where a secret is and never what, exit code 1, JSON for machines."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from tests.cli.conftest import Imagegen
from tests.verify.plants import EC_PEM, PLANTS, TOKEN


def test_says_where_and_never_what(imagegen: Imagegen, tmp_path: Path) -> None:
    for plant in PLANTS:
        target = tmp_path / plant.path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(plant.body)
    done = imagegen("scan", tmp_path)
    assert done.code == 1
    for plant in PLANTS:
        assert f": {plant.path}" in done.out
        assert plant.kind in done.out
    for secret in (TOKEN.decode(), "hunter22", EC_PEM.decode().splitlines()[1], "wJalrXUtnFEMI"):
        assert secret not in done.out + done.err
    assert f"{len(PLANTS)} findings" in done.err


def test_json(imagegen: Imagegen, tmp_path: Path) -> None:
    (tmp_path / "fine").write_text("fine")
    (tmp_path / "token").write_bytes(TOKEN)
    done = imagegen("scan", "--format", "json", tmp_path / "fine", tmp_path / "token")
    assert done.code == 1
    fine, bad = json.loads(done.out)["images"]
    assert (fine["files"], fine["size"], fine["findings"], fine["unread"]) == (1, 4, [], [])
    assert bad["findings"] == [{"path": "token", "where": "line 1", "kind": "bootstrap token", "wrapped": []}]


def test_findings_are_told_even_when_the_next_image_cannot_be_opened(
    imagegen: Imagegen, tmp_path: Path
) -> None:
    (tmp_path / "token").write_bytes(TOKEN)
    with tarfile.open(tmp_path / "odd.gce.tar.gz", "w:gz") as archive:
        folder = tarfile.TarInfo("disk.raw")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    done = imagegen("scan", tmp_path / "token", tmp_path / "odd.gce.tar.gz")
    assert (done.code, done.out) == (1, f"{tmp_path / 'token'}: token: line 1: bootstrap token\n")
    assert "disk.raw is not a file of up to 2 TiB" in done.err


def test_nothing_found(imagegen: Imagegen, tmp_path: Path) -> None:
    (tmp_path / "fine").write_text("fine")
    done = imagegen("scan", tmp_path)
    assert done.code == 0
    assert not done.out


def test_a_control_character_in_a_name_is_escaped(imagegen: Imagegen, tmp_path: Path) -> None:
    (tmp_path / "to\x1b[31mken").write_bytes(TOKEN)
    assert "\x1b" not in imagegen("scan", tmp_path).out


def test_no_such_image(imagegen: Imagegen, tmp_path: Path) -> None:
    assert imagegen("scan", tmp_path / "none").code == 2
