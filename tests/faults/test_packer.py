"""``build --with packer`` when Packer or its machine fails: what is said, and that nothing stays.

A script stands for Packer and says what Packer says; a real one fails in tests/vm/test_packer.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        not all(map(shutil.which, ("ssh-keygen", "ssh"))), reason="ssh-keygen or ssh is not installed"
    ),
]

ROOT = Path(__file__).parents[2]
CLUSTER = """\
version: 1
name: packed
kubernetes: {version: 1.36.4}
network: {nodes: 10.0.2.0/24}
nodes:
  - {name: bare, roles: [base], address: 10.0.2.16}
"""
#: words one a line into the file argv; then what the files version, init and build beside it say
FAKE = """\
#!/bin/sh
here=${0%/*}
printf '%s\\n' "$@" >>"$here/argv"
case $1 in
version) cat "$here/version" ;;
init) . "$here/init" ;;
build)
    for word in "$@"; do
        case $word in
        output=*) output=${word#output=} ;;
        work=*) work=${word#work=} ;;
        esac
    done
    mkdir -p "$output/qemu-cloud"
    image=$output/qemu-cloud/packed-base.qcow2
    . "$here/build"
    ;;
esac
"""
SSH_TIMEOUT = """\
echo half >"$image"
echo 'Linux version 6.12' >"$work/console.log"
echo '==> base.qemu.cloud: Waiting for SSH to become available...'
echo '==> base.qemu.cloud: Timeout waiting for SSH.'
echo "Build 'base.qemu.cloud' errored after 1 minute 2 seconds: Timeout waiting for SSH."
exit 1
"""
PROVISIONER = """\
echo half >"$image"
echo '==> base.qemu.cloud: Provisioning with shell script: /tmp/packer-shell123'
echo '==> base.qemu.cloud: imagegen: cannot enable kubelet.service'
echo '==> base.qemu.cloud: Provisioning step had errors: Running the cleanup provisioner, if present...'
echo "Build 'base.qemu.cloud' errored: Script exited with non-zero exit status: 1"
exit 1
"""
WRONG_PART = """\
echo half >"$image"
echo '==> base.qemu.cloud: imagegen: wrong checksum of https://dl.k8s.io/kubelet: wanted 11, got 22'
echo "Build 'base.qemu.cloud' errored: Script exited with non-zero exit status: 1"
exit 1
"""
NO_NETWORK = """\
echo 'Error: Failed getting the "github.com/hashicorp/qemu" plugin:' >&2
echo 'dial tcp: lookup releases.hashicorp.com: no such host' >&2
exit 1
"""
GOOD = 'echo whole >"$image"\n'


class Workshop:
    """A folder with a cluster file, and a PATH on which there is nothing but what a build needs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.tools, self.temp = folder / "tools", folder / "tmp"
        self.tools.mkdir()
        self.temp.mkdir()
        (folder / "cluster.yaml").write_text(CLUSTER)
        for name in ("sh", "cat", "mkdir", "rm", "sed", "dirname", "sleep", "ssh", "ssh-keygen", "setpriv"):
            found = shutil.which(name)
            if found is not None:
                (self.tools / name).symlink_to(found)

    def put_packer(self, build: str, *, version: str = "Packer v1.16.0", init: str = "exit 0\n") -> None:
        for name, text in {"version": version, "init": init, "build": build, "packer": FAKE}.items():
            (self.tools / name).write_text(text)
        (self.tools / "packer").chmod(0o755)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "imagegen",
                "build",
                "cluster.yaml",
                "-o",
                "out",
                "--with",
                "packer",
                *words,
            ],
            cwd=self.folder,
            env={
                "PATH": str(self.tools),
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(self.temp),
                "HOME": str(self.folder),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def build(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in out + err
        return process.returncode, out, err

    @property
    def image(self) -> Path:
        return self.out / "images" / "packed-base.qcow2"

    @property
    def logs(self) -> Path:
        return self.out / "packer" / "base" / "work"

    def check_nothing_is_left(self) -> None:
        assert not list(self.out.glob(".*"))
        assert not list(self.temp.iterdir())
        assert not list(self.out.rglob("*.qcow2"))


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.mark.parametrize("words", [(), ("--packer-compat",)])
def test_no_packer_is_said_before_anything_is_done(shop: Workshop, words: tuple[str, ...]) -> None:
    code, _, err = shop.build(*words)
    assert code == 3
    assert "packer is not installed; it is needed to build images with Packer" in err
    assert "apt-get install packer" in err
    assert not shop.out.exists()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (
            "Packer v1.9.4",
            "Packer 1.9.4 is installed; wanted 1.6.6 or, for the pinned plug-ins, 1.14.0 or newer",
        ),
        ("Packer v1.5.6", "Packer 1.5.6 is installed"),
        ("skipped 0 words", "is not HashiCorp's Packer"),
    ],
)
def test_a_packer_that_no_build_is_written_for(shop: Workshop, version: str, said: str) -> None:
    shop.put_packer(GOOD, version=version)
    code, _, err = shop.build()
    assert code == 3
    assert said in " ".join(err.split())
    assert "PATH" in err
    assert not shop.out.exists()


def test_a_plugin_that_cannot_be_had(shop: Workshop) -> None:
    shop.put_packer(GOOD, init=NO_NETWORK)
    code, _, err = shop.build()
    assert code == 1
    assert "Packer has not got its plug-ins" in err
    assert "no such host" in err
    assert "out/packer/base/plugins.pkr.hcl" in err
    assert "packer plugins install" in err
    assert "build" not in (shop.tools / "argv").read_text().split()
    shop.check_nothing_is_left()


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (SSH_TIMEOUT, "Timeout waiting for SSH"),
        (PROVISIONER, "imagegen: cannot enable kubelet.service"),
        (WRONG_PART, "imagegen: wrong checksum of https://dl.k8s.io/kubelet: wanted 11, got 22"),
        ("echo 'Build finished'\n", "Packer said it was done, but made 0 files *.qcow2"),
        ("kill -9 $$\n", "Packer built no image"),
    ],
    ids=["ssh", "provisioner", "part", "no image", "killed"],
)
def test_a_build_that_fails_says_what_to_read_and_leaves_no_image(
    shop: Workshop, build: str, said: str
) -> None:
    shop.put_packer(build)
    code, out, err = shop.build()
    assert (code, out) == (1, "")
    assert "Packer built no image" in err
    assert said in err
    assert "read out/packer/base/work/packer.log" in " ".join(err.split())
    assert (shop.logs / "packer.log").exists()
    if build is SSH_TIMEOUT:
        assert "out/packer/base/work/console.log" in err
        assert (shop.logs / "console.log").read_text() == "Linux version 6.12\n"
    shop.check_nothing_is_left()


def test_the_image_of_the_run_before_stays(shop: Workshop) -> None:
    shop.put_packer(GOOD)
    code, out, err = shop.build("--var", "memory_mib=1024")
    assert code == 0, err
    assert "images/packed-base.qcow2" in out
    words = (shop.tools / "argv").read_text().splitlines()
    assert {"-only=*.qemu.cloud", "-except=compress", "memory_mib=1024"} <= set(words)
    assert words.index("memory_mib=1024") > words.index(next(w for w in words if w.startswith("pytest=")))
    assert not any("PRIVATE KEY" in word for word in words)
    assert list(shop.temp.iterdir()) == []
    shop.put_packer(PROVISIONER)
    assert shop.build()[0] == 1
    assert shop.image.read_text() == "whole\n"
    assert not list(shop.out.glob(".*"))


def test_the_old_packer_is_told_of_no_plugins(shop: Workshop) -> None:
    shop.put_packer(GOOD, version="Packer v1.6.6", init="exit 9\n")
    code, _, err = shop.build()
    assert code == 0, err
    assert shop.image.exists()
    assert not (shop.out / "packer/base/plugins.pkr.hcl").exists()


@contextlib.contextmanager
def _hanging(shop: Workshop) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A build that waits for ever, and the process id of its Packer, which notes that it is asked to end."""
    shop.put_packer(
        "trap 'echo ended >\"$here/ended\"; exit 1' TERM\n"
        'echo half >"$image"\necho $$ >"$here/pid"\nwhile :; do sleep 0.1; done\n'
    )
    process = shop.start()
    pid = shop.tools / "pid"
    try:
        for _ in range(600):
            if pid.exists() and pid.read_text().strip():
                break
            assert process.poll() is None
            time.sleep(0.1)
        yield process, int(pid.read_text())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _wait_for_end(pid: int) -> None:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"Packer {pid} still runs")


def test_an_interrupted_build_ends_packer(shop: Workshop) -> None:
    with _hanging(shop) as (process, pid):
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    _wait_for_end(pid)
    assert (shop.tools / "ended").exists(), "Packer must have time to remove its machine"
    shop.check_nothing_is_left()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_a_killed_build_ends_packer_and_the_next_one_clears_up(shop: Workshop) -> None:
    with _hanging(shop) as (process, pid):
        process.kill()
        process.communicate()
        _wait_for_end(pid)
    assert (shop.tools / "ended").exists(), "Packer must have time to remove its machine"
    assert not shop.image.exists()
    shop.put_packer(GOOD)
    code, _, err = shop.build()
    assert code == 0, err
    assert shop.image.read_text() == "whole\n"
    assert not list(shop.out.glob(".*"))
