"""The layer cache: complete or not there, one builder at a time, leftovers swept."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagegen.backends.image.layers import LayerCache, hash_inputs


def _write(folder: Path) -> None:
    (folder / "made").write_text("x")


def test_key_depends_on_values_and_not_on_their_order() -> None:
    assert hash_inputs({"a": 1, "b": [2]}) == hash_inputs({"b": [2], "a": 1})
    assert hash_inputs({"a": 1}) != hash_inputs({"a": 2})


def test_a_layer_is_built_once(tmp_path: Path) -> None:
    cache = LayerCache(root=tmp_path)
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        _write(folder)

    first = cache.get_or_build("base", "k", build)
    assert cache.get_or_build("base", "k", build) == first
    assert len(built) == 1
    assert (first / "made").read_text() == "x"


def test_nothing_stays_of_a_failed_build(tmp_path: Path) -> None:
    cache = LayerCache(root=tmp_path)

    def fail(folder: Path) -> None:
        _write(folder)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        cache.get_or_build("base", "k", fail)
    assert not cache.has("base", "k")
    assert not list(tmp_path.glob("*.partial"))


def _build_slowly(root: str, marks: str) -> None:
    def build(folder: Path) -> None:
        with open(marks, "a") as handle:
            handle.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        _write(folder)

    LayerCache(root=Path(root)).get_or_build("base", "k", build)


@pytest.mark.process
def test_two_processes_build_one_layer(tmp_path: Path) -> None:
    root, marks = tmp_path / "layers", tmp_path / "marks"
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=_build_slowly, args=(str(root), str(marks))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(20)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(marks.read_text().splitlines()) == 1


def _build_for_ever(root: str, started: str) -> None:
    def build(folder: Path) -> None:
        _write(folder)
        Path(started).touch()
        time.sleep(60)

    LayerCache(root=Path(root)).get_or_build("base", "k", build)


@pytest.mark.process
def test_a_killed_build_is_swept_and_built_again(tmp_path: Path) -> None:
    root, started = tmp_path / "layers", tmp_path / "started"
    process = multiprocessing.get_context("fork").Process(
        target=_build_for_ever, args=(str(root), str(started))
    )
    process.start()
    deadline = time.monotonic() + 20
    while not started.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    cache = LayerCache(root=root)
    assert cache.sweep() == [], "a layer under construction is left alone"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    assert not cache.has("base", "k")
    assert cache.sweep() == ["base-k.partial"]
    assert (cache.get_or_build("base", "k", _write) / "made").exists()


def test_two_threads_of_one_run_make_a_layer_once(tmp_path: Path) -> None:
    cache = LayerCache(root=tmp_path)
    started, made = threading.Event(), []

    def build(folder: Path) -> None:
        started.set()
        time.sleep(0.3)
        made.append(folder)

    with ThreadPoolExecutor(max_workers=2) as pool:
        first = pool.submit(cache.get_or_build, "base", "k", build)
        assert started.wait(10)
        second = pool.submit(cache.get_or_build, "base", "k", build)
        assert first.result(20) == second.result(20)
    assert len(made) == 1


def _write_much(folder: Path) -> None:
    (folder / "made").write_bytes(b"x" * 100_000)


def _fill(root: Path) -> LayerCache:
    """Three layers of 100 kB; ``a`` was not used for longest."""
    cache = LayerCache(root=root)
    for age, key in ((300, "a"), (200, "b"), (100, "c")):
        folder = cache.get_or_build("role", key, _write_much)
        os.utime(folder, (time.time() - age, time.time() - age))
    cache.release()
    return cache


def test_what_was_not_used_for_longest_is_removed_first(tmp_path: Path) -> None:
    cache = _fill(tmp_path)
    assert [layer.name for layer in cache.list_layers()] == ["role-a", "role-b", "role-c"]
    assert cache.prune(1_000_000) == []
    assert [layer.name for layer in cache.prune(250_000)] == ["role-a"]
    assert cache.find("role", "b") is not None, "a use makes it young again"
    cache.release()
    assert [layer.name for layer in cache.prune(150_000)] == ["role-c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["role-b", "role-b.lock"]


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    cache = _fill(tmp_path)
    user = LayerCache(root=tmp_path)
    assert user.find("role", "a") is not None
    assert [layer.name for layer in cache.prune(0)] == ["role-b", "role-c"]
    assert user.has("role", "a")
    user.release()
    assert [layer.name for layer in cache.prune(0)] == ["role-a"]
    assert list(tmp_path.iterdir()) == []


def test_a_removed_layer_is_built_again(tmp_path: Path) -> None:
    cache = _fill(tmp_path)
    cache.prune(0)
    assert (cache.get_or_build("role", "a", _write) / "made").read_text() == "x"
