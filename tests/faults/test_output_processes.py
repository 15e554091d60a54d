"""Whole runs of the command: other surroundings, two at a time, interrupted, and on a disk that fills up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.plan.plans import write_cluster

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]


def start(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, umask: int = 0o022
) -> subprocess.Popen[str]:
    """``imagegen seed`` over ``folder/cluster.yaml``."""
    return subprocess.Popen(
        [sys.executable, "-m", "imagegen", "seed", "cluster.yaml", *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SOURCE_DATE_EPOCH": "1700000000",
            **(env or {}),
        },
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def read_all(out: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(out)): (p.stat().st_mode, p.read_bytes()) for p in out.rglob("*") if p.is_file()
    }


def test_surroundings_leave_no_trace(tmp_path: Path) -> None:
    """Folder, time zone, umask, locale, hash seed, home and a pipe for a terminal: identical bytes and
    modes.
    """
    first = tmp_path / "first"
    first.mkdir()
    write_cluster(first)
    assert finish(start(first, "-o", "out"))[0] == 0
    wanted = read_all(first / "out")
    surroundings: list[tuple[str, dict[str, str], int]] = [
        ("with space", {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "1"}, 0o000),
        ("ünï-日本", {"TZ": "America/St_Johns", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "2"}, 0o077),
        ("x" * 200, {"HOME": "/nonexistent", "COLUMNS": "20", "NO_COLOR": "1", "PYTHONUTF8": "0"}, 0o027),
    ]
    for name, env, umask in surroundings:
        other = tmp_path / name
        shutil.copytree(first, other, ignore=shutil.ignore_patterns("out"))
        assert finish(start(other, "-o", "out", env=env, umask=umask))[0] == 0
        assert read_all(other / "out") == wanted


def test_two_runs_at_once_are_both_right(tmp_path: Path) -> None:
    write_cluster(tmp_path)
    both = [start(tmp_path, "-o", "out") for _ in range(2)]
    assert [finish(process)[0] for process in both] == [0, 0]
    assert not (tmp_path / "out/.imagegen-partial").exists()
    before = read_all(tmp_path / "out")
    assert finish(start(tmp_path, "-o", "out"))[0] == 0
    assert read_all(tmp_path / "out") == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    nodes = ["{name: m-0, roles: [etcd, master], address: 10.240.0.10}"]
    nodes += [
        f"{{name: w-{i}, roles: [worker], address: 10.240.{i // 250 + 1}.{i % 250 + 1}}}" for i in range(1500)
    ]
    write_cluster(tmp_path, nodes, network="pods: 10.64.0.0/12", more="targets: [qemu]\n")
    process = start(tmp_path, "-o", "out")
    staging = tmp_path / "out/.imagegen-partial"
    deadline = time.monotonic() + 60
    while not (staging / "200").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    sent = time.monotonic()
    status, talk = finish(process)
    assert (status, "Traceback" in talk) == (code, False), talk
    assert time.monotonic() - sent < 5
    assert not (tmp_path / "out").exists()


@contextlib.contextmanager
def _small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """The run before survives to the byte, and the message says what was to be written and how much was
    missing.
    """
    write_cluster(tmp_path)
    disk = tmp_path / "disk"
    with _small_disk(disk, "700k"):
        assert finish(start(tmp_path, "-o", "disk/out"))[0] == 0
        before = read_all(disk / "out")
        status, talk = finish(start(tmp_path, "-o", "disk/out", env={"SOURCE_DATE_EPOCH": "1600000000"}))
        if status == 0:
            pytest.fail("the disk is too large for this test")
        assert status == 1
        assert "no space left for disk/out/" in talk
        assert "bytes, " in talk
        assert read_all(disk / "out") == before
        assert not (disk / "out/.imagegen-partial").exists()
