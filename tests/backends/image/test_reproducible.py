"""Every format twice, by root and by an ordinary user, in surroundings that differ: the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.builds import CLUSTER, ROOT, default_cache, require_builds

pytestmark = [pytest.mark.process, pytest.mark.long]

FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhd", "ova", "gce", "iso")
USER = "imagegen-test"
#: programs that write into images, which get a clock that is four years ahead
_TOOLS = ("qemu-img", "sfdisk", "mkfs.vfat", "mmd", "mcopy", "grub-mkimage", "xorriso", "mksquashfs")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that an ordinary user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="imagegen-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def make_user() -> Iterator[pwd.struct_passwd]:
    """An ordinary user with subordinate ids, for this test only."""
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", USER], check=True, capture_output=True)
    try:
        yield pwd.getpwnam(USER)
    finally:
        subprocess.run(["userdel", "--remove", USER], check=False, capture_output=True)


def find_python(user: pwd.struct_passwd) -> tuple[str, str]:
    """An interpreter of our own minor version that the user can start, and where its modules are."""
    import pydantic

    modules = f"{ROOT}:{Path(pydantic.__file__).parents[1]}"
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/python{minor}", f"/usr/local/bin/python{minor}"):
        done = subprocess.run(
            ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
             "env", f"PYTHONPATH={modules}", python, "-c", "import imagegen, pydantic"],
            capture_output=True, cwd="/",
        )  # fmt: skip
        if done.returncode == 0:
            return python, modules
    pytest.skip(f"no Python {minor} that an ordinary user can start with imagegen's libraries")


def write_late_tools(folder: Path) -> None:
    folder.mkdir()
    for name in _TOOLS:
        path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        (folder / name).write_text(
            f'#!/bin/sh\nexport NO_FAKE_STAT=1 FAKE_UTIME=0\nexec faketime -f +1461d {path} "$@"\n'
        )
        (folder / name).chmod(0o755)


def read_sums(out: Path) -> dict[str, str]:
    manifest = json.loads((out / "manifest.json").read_text())
    return {row["path"]: row["sha256"] for row in manifest["artifacts"]}


def read_bases(cache: Path) -> dict[str, Path]:
    return {path.name: path / "base.tar" for path in (cache / "imagegen/layers").glob("base-*[0-9a-f]")}


def test_same_bytes_for_root_and_for_a_user(place: Path) -> None:
    """The base system, too, is made twice: once at some other time by root, now by the user."""
    require_builds()
    if os.geteuid() != 0:
        pytest.skip("only root can build both as root and as another user")
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    text = CLUSTER.replace("formats: [qcow2]", f"formats: [{', '.join(FORMATS)}]")
    first, second = place / "first", place / f"zweite Stätte {'x' * 60}"
    with make_user() as user:
        python, modules = find_python(user)
        write_late_tools(place / "late")
        for folder in (first, second):
            (folder / "tmp").mkdir(parents=True)
            (folder / "cluster.yaml").write_text(text)
        for path in (second, second / "tmp"):
            os.chown(path, user.pw_uid, user.pw_gid)
        words = ["-m", "imagegen", "build", "cluster.yaml", "-o", "out", "--offline", "--quiet"]
        root_run = subprocess.Popen(
            [sys.executable, *words],
            cwd=first,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(Path.home()),
                "XDG_CACHE_HOME": default_cache(),
                "TMPDIR": str(first / "tmp"),
                "PYTHONPATH": str(ROOT),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        user_run = subprocess.Popen(
            ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
             "taskset", "--cpu-list", str(max(os.sched_getaffinity(0))), "faketime", "-f", "+1461d", python,
             *words],
            cwd=second,
            env={
                "PATH": f"{place / 'late'}:{os.environ['PATH']}",
                "XDG_CACHE_HOME": str(second / "cache"),
                "TMPDIR": str(second / "tmp"),
                "PYTHONPATH": modules,
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONHASHSEED": "4711",
                # the clock alone: the times of files are what they are
                "NO_FAKE_STAT": "1",
                "FAKE_UTIME": "0",
                "TZ": "Asia/Kathmandu",
                "LC_ALL": "C",
                "SOURCE_DATE_EPOCH": "1767225600",
            },
            umask=0o077,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        for run in (root_run, user_run):
            _, err = run.communicate(timeout=1800)
            assert run.returncode == 0, err
        assert list((second / "tmp").iterdir()) == []
    theirs = read_bases(second / "cache")
    ours = read_bases(Path(default_cache()))
    (name,) = theirs
    if subprocess.run(["cmp", "-s", ours[name], theirs[name]]).returncode != 0:
        _tell_difference(ours[name], theirs[name])
    sums = read_sums(first / "out")
    assert len(sums) == len(FORMATS) + 1
    assert read_sums(second / "out") == sums


def _tell_difference(ours: Path, theirs: Path) -> None:
    """Fail, or skip when the archive has other packages than when our base was made."""
    query = ["tar", "--extract", "--to-stdout", "--file"]
    status = [
        subprocess.run([*query, tar, "./var/lib/dpkg/status"], capture_output=True, check=True).stdout
        for tar in (ours, theirs)
    ]
    if status[0] != status[1]:
        pytest.skip("the distribution's archive has changed since the base layer in the cache was made")
    listing = [
        set(subprocess.run(["tar", "--list", "-vf", tar], capture_output=True, text=True).stdout.splitlines())
        for tar in (ours, theirs)
    ]
    pytest.fail(f"the base layers differ: {sorted(listing[0] ^ listing[1])[:20] or 'in the bytes of files'}")
