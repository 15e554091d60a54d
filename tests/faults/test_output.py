"""What can go wrong with an output folder, and what must be left of the run before."""

from __future__ import annotations

import errno
import os
import resource
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imagegen.backends.manifest import parse_manifest
from imagegen.backends.output import OutputFolder, OutputSummary
from imagegen.errors import ImagegenError, UsageError

FIRST = {"plan.json": b"one", "nodes/a/user-data": b"A" * 3000, "nodes/b/user-data": b"B" * 100}
SECOND = {"plan.json": b"two", "nodes/a/user-data": b"a" * 4000, "nodes/b/user-data": b"B" * 100}


def everything(path: str) -> bool:
    return True


def run(
    out: Path,
    files: dict[str, bytes],
    *,
    owns: Callable[[str], bool] = everything,
    force: bool = False,
    cluster: str = "c",
    inputs: str = "i",
    patience: float = 0.1,
) -> OutputSummary:
    with OutputFolder(out, cluster=cluster, force=force, lock_timeout=patience) as folder:
        for path, data in files.items():
            folder.write(path, data, inputs=inputs, secret=path.endswith("user-data"))
        return folder.commit(owns)


def fail_half_way(out: Path) -> None:
    with OutputFolder(out, cluster="c") as folder:
        folder.write("plan.json", b"x", inputs="i")
        raise RuntimeError


def read_all(out: Path) -> dict[str, bytes]:
    """Every file but the manifest."""
    found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    found.pop("manifest.json", None)
    return found


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


class TestWriting:
    def test_everything_appears_at_once(self, out: Path) -> None:
        with OutputFolder(out, cluster="c") as folder:
            for path, data in FIRST.items():
                folder.write(path, data, inputs="i")
            assert read_all(out).keys().isdisjoint(FIRST)
            summary = folder.commit(everything)
        assert read_all(out) == FIRST
        assert summary == OutputSummary(written=3)
        assert {p.name for p in out.iterdir()} == {"manifest.json", "plan.json", "nodes"}

    def test_streamed_files_are_the_same(self, out: Path) -> None:
        for _ in range(2):
            with OutputFolder(out, cluster="c") as folder:
                with folder.stream("plan.json", inputs="i") as write:
                    write(b"o")
                    folder.write("nodes/a", b"A", inputs="i")
                    write(b"ne")
                summary = folder.commit(everything)
            assert read_all(out) == {"plan.json": b"one", "nodes/a": b"A"}
        assert summary == OutputSummary(unchanged=2)

    def test_the_manifest_describes_every_file(self, out: Path) -> None:
        run(out, FIRST)
        manifest = parse_manifest((out / "manifest.json").read_bytes(), "m")
        assert manifest.cluster == "c"
        assert {p: a.size for p, a in manifest.artifacts.items()} == {p: len(d) for p, d in FIRST.items()}
        assert {p for p, a in manifest.artifacts.items() if a.secret} == {
            p for p in FIRST if "user-data" in p
        }

    @pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
    def test_modes_do_not_depend_on_the_umask(self, out: Path, umask: int) -> None:
        old = os.umask(umask)
        try:
            run(out, FIRST)
        finally:
            os.umask(old)
        assert mode_of(out) == mode_of(out / "nodes") == 0o755
        assert mode_of(out / "nodes/a") == 0o700
        assert mode_of(out / "nodes/a/user-data") == 0o600
        assert mode_of(out / "plan.json") == mode_of(out / "manifest.json") == 0o644

    def test_modes_are_repaired(self, out: Path) -> None:
        run(out, FIRST)
        (out / "nodes/a/user-data").chmod(0o666)
        (out / "nodes/a").chmod(0o755)
        run(out, FIRST)
        assert mode_of(out / "nodes/a") == 0o700
        assert mode_of(out / "nodes/a/user-data") == 0o600

    def test_what_is_there_already_is_left_alone(self, out: Path) -> None:
        run(out, FIRST)
        before = {p: (out / p).stat().st_ino for p in [*FIRST, "manifest.json"]}
        assert run(out, FIRST) == OutputSummary(unchanged=3)
        assert {p: (out / p).stat().st_ino for p in before} == before

    def test_own_files_are_replaced(self, out: Path) -> None:
        run(out, FIRST)
        assert run(out, SECOND) == OutputSummary(written=2, unchanged=1)
        assert read_all(out) == SECOND

    @pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../x", "manifest.json", ".imagegen-partial/1"])
    def test_paths_outside_are_a_bug(self, out: Path, path: str) -> None:
        with OutputFolder(out, cluster="c") as folder, pytest.raises(ValueError, match="inside"):
            folder.write(path, b"", inputs="i")


class TestStale:
    def test_files_of_removed_nodes_go(self, out: Path) -> None:
        run(out, FIRST)
        assert run(out, {"plan.json": b"one"}) == OutputSummary(unchanged=1, removed=2)
        assert {p.name for p in out.iterdir()} == {"manifest.json", "plan.json"}

    def test_files_of_other_commands_stay_and_stay_ours(self, out: Path) -> None:
        run(out, {**FIRST, "images/x.qcow2": b"disk"})
        run(out, {"plan.json": b"one"}, owns=lambda path: not path.startswith("images/"))
        assert read_all(out) == {"plan.json": b"one", "images/x.qcow2": b"disk"}
        run(out, {"images/x.qcow2": b"new disk"}, owns=lambda path: False)
        assert read_all(out) == {"plan.json": b"one", "images/x.qcow2": b"new disk"}

    def test_changed_files_stay_and_are_told(self, out: Path) -> None:
        run(out, FIRST)
        (out / "nodes/a/user-data").write_bytes(b"mine now")
        (out / "nodes/b/notes.txt").write_bytes(b"mine")
        summary = run(out, {"plan.json": b"one"})
        assert summary.left == ["nodes/a/user-data"]
        assert read_all(out) == {
            "plan.json": b"one",
            "nodes/a/user-data": b"mine now",
            "nodes/b/notes.txt": b"mine",
        }

    def test_a_kept_file_needs_the_same_inputs(self, out: Path) -> None:
        run(out, {"seed.iso": b"iso"}, inputs="1")
        for inputs, wanted in (("1", True), ("2", False)):
            with OutputFolder(out, cluster="c") as folder:
                folder.keep("seed.iso", inputs)
                folder.commit(everything)
            assert (out / "seed.iso").exists() is wanted

    def test_a_file_that_is_gone_is_not_kept(self, out: Path) -> None:
        run(out, FIRST)
        (out / "plan.json").unlink()
        run(out, {}, owns=lambda path: False)
        assert "plan.json" not in parse_manifest((out / "manifest.json").read_bytes(), "m").artifacts


def test_a_folder_that_goes_while_another_run_waits_for_it(out: Path) -> None:
    """A run into which nothing came removes the folder that it has made."""
    with ThreadPoolExecutor(1) as other:
        with OutputFolder(out, cluster="c"):
            waiting = other.submit(run, out, FIRST, patience=30)
            time.sleep(0.3)
            assert not waiting.done()
        waiting.result(30)
    assert read_all(out) == FIRST


class TestNotOurs:
    def test_a_foreign_file_is_never_replaced(self, out: Path) -> None:
        out.mkdir()
        (out / "plan.json").write_bytes(b"somebody's")
        with pytest.raises(UsageError, match=r"plan\.json was not made by imagegen"):
            run(out, FIRST)
        assert read_all(out) == {"plan.json": b"somebody's"}
        assert {p.name for p in out.iterdir()} == {"plan.json"}

    def test_an_own_file_that_was_changed_is_not_replaced(self, out: Path) -> None:
        run(out, FIRST)
        (out / "nodes/a/user-data").write_bytes(b"edited")
        with pytest.raises(UsageError, match="was changed after imagegen made it"):
            run(out, SECOND)
        assert (out / "plan.json").read_bytes() == b"one"

    def test_nor_one_that_changes_while_a_program_makes_the_next(self, out: Path) -> None:
        for body in (b"first", b"second"):
            with OutputFolder(out, cluster="c") as folder:
                with folder.make_file("disk.raw", inputs="") as target:
                    target.write_bytes(body)
                folder.commit(everything)
        assert (out / "disk.raw").read_bytes() == b"second"
        with OutputFolder(out, cluster="c") as folder:
            making = folder.make_file("disk.raw", inputs="")
            target = making.__enter__()
            time.sleep(0.2)
            (out / "disk.raw").write_bytes(b"edited")
            target.write_bytes(b"third")
            with pytest.raises(UsageError, match="was changed after imagegen made it"):
                making.__exit__(None, None, None)
        assert (out / "disk.raw").read_bytes() == b"edited"

    def test_force_replaces(self, out: Path) -> None:
        out.mkdir()
        (out / "plan.json").write_bytes(b"somebody's")
        run(out, FIRST, force=True)
        assert read_all(out) == FIRST

    def test_foreign_files_beside_ours_do_not_matter(self, out: Path) -> None:
        out.mkdir()
        (out / "notes.txt").write_bytes(b"mine")
        run(out, FIRST)
        run(out, {})
        assert read_all(out) == {"notes.txt": b"mine"}

    def test_the_output_of_another_cluster_is_not_touched(self, out: Path) -> None:
        run(out, FIRST)
        with pytest.raises(UsageError, match="cluster 'c', not of 'd'"):
            run(out, SECOND, cluster="d")
        assert read_all(out) == FIRST

    @pytest.mark.parametrize("text", ["", "{}", '{"name": "webapp"}'])
    def test_a_foreign_manifest_is_not_replaced(self, out: Path, text: str) -> None:
        out.mkdir()
        (out / "manifest.json").write_text(text)
        with pytest.raises(UsageError, match=r"manifest\.json is not a manifest of imagegen"):
            run(out, FIRST)
        assert (out / "manifest.json").read_text() == text


class TestOddFolders:
    def check(self, out: Path, match: str) -> None:
        with pytest.raises(UsageError, match=match) as caught:
            run(out, FIRST)
        assert caught.value.hint

    def test_a_file(self, out: Path) -> None:
        out.write_bytes(b"x")
        self.check(out, "not a folder")
        assert out.read_bytes() == b"x"

    def test_below_a_file(self, out: Path) -> None:
        out.write_bytes(b"x")
        self.check(out / "deeper", "not a folder")

    def test_a_link_elsewhere(self, out: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        out.symlink_to(tmp_path / "elsewhere")
        self.check(out, "symbolic link")
        assert not list((tmp_path / "elsewhere").iterdir())

    def test_a_dangling_link(self, out: Path) -> None:
        out.symlink_to("nowhere")
        self.check(out, "symbolic link")

    def test_a_missing_parent(self, out: Path) -> None:
        self.check(out / "a" / "b", "does not exist")

    @pytest.mark.parametrize(("code", "match"), [(errno.EROFS, "read-only"), (errno.EACCES, "may not write")])
    @pytest.mark.parametrize("exists", [True, False])
    def test_no_writing_there(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, code: int, match: str, exists: bool
    ) -> None:
        if exists:
            out.mkdir()
        real = os.mkdir

        def refuse(path: Any, *args: Any, **kwargs: Any) -> None:
            if exists and path == out:
                real(path, *args, **kwargs)
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "mkdir", refuse)
        self.check(out, match)

    @pytest.mark.parametrize("place", ["nodes", "nodes/a", "nodes/a/user-data", "plan.json"])
    def test_links_inside_are_not_followed(self, out: Path, tmp_path: Path, place: str) -> None:
        target = tmp_path / "elsewhere"
        target.mkdir()
        (target / "user-data").write_bytes(b"precious")
        link = out / place
        link.parent.mkdir(parents=True)
        link.symlink_to(target / "user-data" if place.endswith(("data", "json")) else target)
        self.check(out, "in the way")
        assert [p.name for p in target.iterdir()] == ["user-data"]
        assert (target / "user-data").read_bytes() == b"precious"

    def test_a_staging_folder_that_is_a_link_is_not_followed(self, out: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "1").write_bytes(b"precious")
        out.mkdir()
        (out / ".imagegen-partial").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UsageError):
            run(out, FIRST)
        assert (tmp_path / "elsewhere" / "1").read_bytes() == b"precious"

    def test_a_fifo_does_not_hang(self, out: Path) -> None:
        out.mkdir()
        os.mkfifo(out / "plan.json")
        self.check(out, "not a regular file")

    def test_a_folder_in_place_of_a_file(self, out: Path) -> None:
        (out / "plan.json").mkdir(parents=True)
        self.check(out, "in the way")

    @pytest.mark.parametrize("name", ["with space", "ünï-日本", "x" * 200, "-o", "new\nline"])
    def test_names_do_not_matter(self, tmp_path: Path, name: str) -> None:
        run(tmp_path / name, FIRST)
        assert read_all(tmp_path / name) == FIRST


class TestFailing:
    def test_an_exception_leaves_nothing(self, out: Path) -> None:
        with pytest.raises(RuntimeError):
            fail_half_way(out)
        assert not out.exists()

    def test_an_exception_leaves_the_run_before(self, out: Path) -> None:
        run(out, FIRST)
        with pytest.raises(RuntimeError):
            fail_half_way(out)
        assert read_all(out) == FIRST
        assert not (out / ".imagegen-partial").exists()

    def test_two_runs_do_not_mix(self, out: Path) -> None:
        with OutputFolder(out, cluster="c"), pytest.raises(ImagegenError, match="another imagegen"):
            run(out, FIRST)
        run(out, FIRST)

    def test_a_full_disk_names_the_file_and_what_it_needs(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(out, FIRST)
        real = os.write

        def full(handle: int, data: Any) -> int:
            if len(data) > 3500:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(handle, data)

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(ImagegenError, match=r"nodes/a/user-data: it needs 4,000 bytes, [\d,]+ are free"):
            run(out, SECOND)
        monkeypatch.undo()
        assert read_all(out) == FIRST
        assert not (out / ".imagegen-partial").exists()
        run(out, SECOND)
        assert read_all(out) == SECOND

    def test_a_size_limit_of_the_system_is_told(self, out: Path) -> None:
        with (
            _file_size_limit(64 * 1024),
            pytest.raises(ImagegenError, match="needs 200,000 bytes"),
            OutputFolder(out, cluster="c") as folder,
        ):
            folder.write("nodes/a/seed.iso", bytes(200_000), inputs="i")
        assert not out.exists()

    @pytest.mark.parametrize("call", ["fsync", "rename"])
    def test_a_failing_call_is_an_error_with_a_message(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, call, fail)
        with pytest.raises(ImagegenError, match="Input/output error"):
            run(out, FIRST)


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """write(2) beyond ``size`` fails with EFBIG, because Python ignores SIGXFSZ."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


_CALLS = ("open", "write", "mkdir", "rename", "fsync", "unlink", "rmdir", "chmod", "fchmod")


@pytest.mark.process
def test_killed_anywhere_leaves_only_complete_files_and_the_next_run_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child dies at its n-th call of the system, for every n until it lives to the end."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nobody pulls the plug here, and it takes long
    many = {f"nodes/n{i}/user-data": b"x" * i for i in range(4)}
    third = {**SECOND, **many}
    died = 0
    for deadline in range(1, 500):
        out = tmp_path / f"out-{deadline}"
        run(out, FIRST)
        status = _run_in_child(out, third, deadline)
        present = read_all(out)
        for path, data in FIRST.items():
            assert present.get(path) in (data, third[path]), (deadline, path)
        for path, data in many.items():
            assert present.get(path, data) == data, (deadline, path)
        run(out, third)
        assert read_all(out) == third, deadline
        assert not (out / ".imagegen-partial").exists()
        if status == 0:
            break
        died += 1
    assert died > 50
    assert status == 0


def _run_in_child(out: Path, files: dict[str, bytes], deadline: int) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = 0

    def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == deadline:
                os._exit(9)
            return call(*args, **kwargs)

        return counted

    for name in _CALLS:
        setattr(os, name, mortal(getattr(os, name)))
    try:
        run(out, files)
    except BaseException:
        os._exit(1)
    os._exit(0)
