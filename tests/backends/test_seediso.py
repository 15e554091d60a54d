"""Seed ISOs: a layout made once must give what pycdlib makes, whatever the surroundings."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pycdlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagegen.backends import seediso
from imagegen.backends.epoch import DEFAULT_EPOCH, read_epoch
from imagegen.backends.seediso import build_seed_iso
from imagegen.errors import UsageError

FILES = {
    "user-data": b"#cloud-config\n" + b"x" * 9000,
    "meta-data": b"instance-id: i\n",
    "network-config": b"{}",
}


def read_iso(image: bytes) -> dict[str, bytes]:
    """The files at the root by their Rock Ridge names."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    out = {}
    for child in iso.list_children(rr_path="/"):
        if child.is_file():
            name = child.rock_ridge.name().decode()
            body = io.BytesIO()
            iso.get_file_from_iso_fp(body, rr_path=f"/{name}")
            out[name] = body.getvalue()
    iso.close()
    return out


def test_files_come_back() -> None:
    assert read_iso(build_seed_iso(FILES, epoch=DEFAULT_EPOCH)) == FILES


def test_a_layout_is_used_again_for_other_bodies_of_the_same_sizes() -> None:
    seediso._lay_out.cache_clear()
    build_seed_iso(FILES, epoch=DEFAULT_EPOCH)
    others = {name: bytes(reversed(body)) for name, body in FILES.items()}
    image = build_seed_iso(others, epoch=DEFAULT_EPOCH)
    assert seediso._lay_out.cache_info().hits == 1
    assert read_iso(image) == others


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["user-data", "meta-data", "network-config", "vendor-data"]), st.binary(max_size=5000)
    )
)
def test_any_sizes_come_back(files: dict[str, bytes]) -> None:
    assert read_iso(build_seed_iso(files, epoch=DEFAULT_EPOCH)) == files


def test_order_does_not_matter() -> None:
    turned = dict(reversed(FILES.items()))
    assert build_seed_iso(turned, epoch=1) == build_seed_iso(FILES, epoch=1)


def test_dates_are_those_of_the_epoch() -> None:
    image = build_seed_iso(FILES, epoch=951782400)  # 2000-02-29
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    dates = [child.date for child in iso.list_children(rr_path="/")]
    assert {(d.years_since_1900, d.month, d.day_of_month, d.gmtoffset) for d in dates} == {(100, 2, 29, 0)}
    iso.close()
    assert build_seed_iso(FILES, epoch=951782401) != image


def test_pycdlib_keeps_its_clock_afterwards() -> None:
    import time

    build_seed_iso({"user-data": b"1"}, epoch=5)
    assert {module.time for module in seediso._CLOCKED} == {time}


def test_a_seed_is_small() -> None:
    assert len(build_seed_iso(FILES, epoch=1)) < 100 * 1024


@pytest.mark.parametrize("name", ["", "../x", "user/data", "ä", "x" * 40])
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="NoCloud"):
        build_seed_iso({name: b""}, epoch=1)


PROGRAM = """
import hashlib, os, sys, time
from imagegen.backends.epoch import read_epoch
from imagegen.backends.seediso import build_seed_iso
"".encode("utf-16_be")  # the other user may not read Python's own folder
os.umask(int(sys.argv[1], 8))
if os.getuid() == 0 and len(sys.argv) > 2:
    os.setgid(12345); os.setuid(12345)
real = time.time
time.time = lambda: real() + 86400 * 3000 * float(os.environ.get("SHIFT", 0))
files = {"user-data": b"u" * 4321, "network-config": b"n" * 99, "meta-data": b"m"}
print(hashlib.sha256(build_seed_iso(files, epoch=read_epoch(os.environ))).hexdigest())
"""


@pytest.mark.process
def test_the_same_bytes_in_every_surrounding(tmp_path: Path) -> None:
    """Time, time zone, umask, locale, hash seed, folder and user leave no trace."""
    surroundings: list[tuple[dict[str, str], list[str]]] = [
        ({}, ["022"]),
        ({"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "1"}, ["000"]),
        ({"TZ": "America/St_Johns", "PYTHONHASHSEED": "2", "LC_ALL": "C"}, ["077"]),
        ({"TZ": "Pacific/Kiritimati", "LANG": "tr_TR.UTF-8", "SHIFT": "1"}, ["022"]),
        ({"SHIFT": "-1"}, ["027", "other-user"]),
    ]
    root = Path(seediso.__file__).parents[2]
    sums = set()
    for env, arguments in surroundings:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **env},
            cwd=tmp_path if "SHIFT" in env else root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        sums.add(done.stdout)
    assert len(sums) == 1
    files = {"user-data": b"u" * 4321, "network-config": b"n" * 99, "meta-data": b"m"}
    assert sums == {hashlib.sha256(build_seed_iso(files, epoch=DEFAULT_EPOCH)).hexdigest() + "\n"}


class TestEpoch:
    def test_default_is_fixed(self) -> None:
        assert read_epoch({}) == DEFAULT_EPOCH == read_epoch({"SOURCE_DATE_EPOCH": ""})

    def test_variable_is_honoured(self) -> None:
        assert read_epoch({"SOURCE_DATE_EPOCH": "0"}) == 0
        assert read_epoch({"SOURCE_DATE_EPOCH": "1700000000"}) == 1700000000

    @pytest.mark.parametrize("text", ["-1", "now", "1.5", "99999999999", "１２", " 1", "5869584000"])
    def test_nonsense_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
            read_epoch({"SOURCE_DATE_EPOCH": text})

    def test_first_and_last_dates_work(self) -> None:
        for epoch in (0, 5869583999):
            assert read_iso(build_seed_iso(FILES, epoch=epoch)) == FILES
