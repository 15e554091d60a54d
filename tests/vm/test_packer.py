"""A worker made by Packer 1.6.6 from a base image of our own: it starts with its seed; its files are those of
the direct build. A build that goes wrong leaves nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagegen.backends.packer.versions import PackerStyle
from imagegen.lab.console import wait_for_console
from imagegen.lab.machine import Disk, MachineSpec, Nic, start_machine
from imagegen.verify.roots import Root
from tests.backends.packer.test_hostile import COMMENT, wanted_bodies, write_profile
from tests.judges.packers import Packer, acquire_packer
from tests.judges.tools import Unavailable
from tests.vm.images import list_report_credentials
from tests.vm.labs import find_mirror
from tests.vm.trees import list_differences, read_tree

pytestmark = [
    pytest.mark.vm,
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="the base system is made as root here"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("qemu-system-x86_64", "mmdebstrap", "ssh", "xorriso"))),
        reason="qemu-system-x86_64, mmdebstrap, ssh or xorriso is not installed",
    ),
]

CLUSTER = """\
version: 1
name: packed
kubernetes: {version: 1.36.4}
network: {nodes: 10.0.2.0/24}
# the packages of a worker, too, so that the machine needs no network of packages
image: {size: 3GiB, packages: [conntrack, iptables, socat, ethtool]}
nodes:
  - {name: one, roles: [etcd, master], address: 10.0.2.10}
  - {name: two, roles: [worker], address: 10.0.2.15}
  - {name: bare, roles: [base], address: 10.0.2.16}
"""
DOCS = Path(__file__).resolve().parents[2] / "docs" / "packer.md"
#: seconds; a whole build needs 150 in emulation on two idle cores
PATIENCE = 1500.0


@pytest.fixture(scope="module")
def packer() -> Packer:
    try:
        return acquire_packer(PackerStyle.COMPAT)
    except Unavailable as reason:
        pytest.skip(f"judge: {reason}")


class Workshop:
    """A cluster with one hostile profile, its base image, and the ways to build a worker from it."""

    def __init__(self, folder: Path, packer: Packer) -> None:
        self.folder, self.packer = folder, packer
        self.cluster, self.out = folder / "cluster.yaml", folder / "out"
        self.profiles = write_profile(folder / "profiles", "worker")
        self.cluster.write_text(CLUSTER)

    def imagegen(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ)
        environment["PATH"] = f"{self.packer.program.parent}:{environment['PATH']}"
        done = subprocess.run(
            [sys.executable, "-m", "imagegen", arguments[0], str(self.cluster), *arguments[1:]],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment,
        )
        assert not check or done.returncode == 0, done.stderr[-6000:]
        return done

    def build(
        self, *arguments: str, check: bool = True, profiles: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        where = ["--mirror", str(find_mirror()), "--offline", "-o", str(self.out), "--quiet"]
        where += ["--profiles", str(profiles or self.profiles)]
        return self.imagegen("build", *where, *arguments, check=check)

    @property
    def base(self) -> Path:
        return self.out / "images" / "packed-base.qcow2"

    def base_variables(self) -> dict[str, str]:
        with self.base.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"base_image": str(self.base), "base_checksum": f"sha256:{digest}", "accelerator": "tcg"}

    def build_with_packer(
        self, role: str, check: bool = True, profiles: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        values = self.base_variables() | more
        words = [word for name, value in values.items() for word in ("--var", f"{name}={value}")]
        return self.build("--with", "packer", "--role", role, *words, check=check, profiles=profiles)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, packer: Packer) -> Iterator[Workshop]:
    shop = Workshop(tmp_path_factory.mktemp("packer"), packer)
    shop.build("--role", "base", "--role", "worker")
    (shop.out / "images" / "packed-worker.qcow2").rename(shop.folder / "direct.qcow2")
    yield shop
    shutil.rmtree(shop.folder)


def list_machines(folder: Path) -> list[str]:
    done = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if str(folder) in line and "qemu-system" in line]


def test_a_machine_that_never_answers(shop: Workshop) -> None:
    """A disk without a system: the build gives up, names the console, leaves no machine and no image."""
    empty = shop.folder / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", empty, "3G"], check=True)
    digest = hashlib.sha256(empty.read_bytes()).hexdigest()
    done = shop.build_with_packer(
        "base", check=False, base_image=str(empty), base_checksum=f"sha256:{digest}", ssh_timeout="60s"
    )
    assert done.returncode == 1
    assert "Timeout waiting for SSH" in done.stderr
    place = shop.out / "packer" / "base" / "work"
    assert f"read {place / 'packer.log'} and {place / 'console.log'}" in done.stderr
    check_nothing_is_left(shop)
    assert not (shop.out / "images" / "packed-worker.qcow2").exists()


def test_a_provisioner_that_fails(shop: Workshop) -> None:
    """A unit that no package brings: the step that enables it is named, and the image of before stays."""
    profiles = shop.folder / "failing"
    profiles.mkdir()
    (profiles / "base.yaml").write_text(
        "description: asks for what is not there\nunits: [{name: missing.service, state: enabled}]\n"
    )
    before = shop.base_variables()["base_checksum"]
    done = shop.build_with_packer("base", check=False, profiles=profiles)
    assert done.returncode == 1
    assert "imagegen: cannot enable missing.service" in done.stderr
    place = shop.out / "packer" / "base" / "work"
    assert f"read {place / 'packer.log'} and {place / 'console.log'}" in done.stderr
    check_nothing_is_left(shop)
    assert shop.base_variables()["base_checksum"] == before


def test_a_wrong_binary_fails_a_plain_packer_build(shop: Workshop) -> None:
    """Without imagegen: the machine itself finds the wrong sum, the provisioner fails, the build ends."""
    shop.build("--with", "packer", "--role", "base", "--packer-compat", "--prepare-only")
    place = shop.folder / "plain"
    shutil.copytree(shop.out / "packer" / "base", place)
    wrong = "1" * 64
    (place / "downloads" / wrong).write_bytes(b"not what it says")
    with (place / "payload" / "parts").open("a") as table:
        table.write(f"{wrong}\traw\t-\t/usr/local/bin/kubelet\thttps://dl.k8s.io/kubelet\n")
    subprocess.run(["sh", place / "new-key.sh"], check=True, capture_output=True)
    words = [word for pair in shop.base_variables().items() for word in ("-var", "=".join(pair))]
    done = shop.packer.run("build", "-only=*.qemu.cloud", *words, ".", cwd=place, timeout=PATIENCE)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said[-3000:]
    assert re.search(r"wrong checksum of https://dl.k8s.io/kubelet: wanted 1{64}, got [0-9a-f]{64}", said), (
        said
    )
    assert not (place / "output").exists() or not list((place / "output").rglob("*.qcow2"))
    check_nothing_is_left(shop)


def check_nothing_is_left(shop: Workshop) -> None:
    for _ in range(50):  # a machine that was told to end needs a moment
        if not list_machines(shop.folder):
            break
        time.sleep(0.1)
    assert list_machines(shop.folder) == []
    assert not list(shop.out.glob(".imagegen-*"))


#: what a build by Packer leaves otherwise than a direct build; docs/packer.md explains each
def read_allowed() -> list[str]:
    text = DOCS.read_text(encoding="utf-8")
    rows = text.partition("## What differs from a direct build")[2].splitlines()
    return [
        pattern
        for row in rows
        if row.startswith("| `")
        for pattern in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]


def test_the_worker_is_that_of_the_direct_build_and_starts(shop: Workshop) -> None:
    done = shop.build_with_packer("worker")
    image = shop.out / "images" / "packed-worker.qcow2"
    assert "images/packed-worker.qcow2" in done.stdout
    check_nothing_is_left(shop)
    direct = read_tree(shop.folder / "direct.qcow2", shop.folder / "direct")
    made = read_tree(image, shop.folder / "made")
    allowed = read_allowed()
    assert 1 <= len(allowed) <= 30
    assert list_differences(direct, made, allowed) == []
    tree = Root(shop.folder / "made" / "tree")
    for path, body in wanted_bodies().items():
        assert tree.find(path).read_bytes() == body, path
    assert f":{COMMENT}:".encode() in tree.find("/etc/passwd").read_bytes()
    assert tree.find("/etc/shadow").read_bytes().count(b":$") == 0
    shutil.rmtree(shop.folder / "direct")
    shutil.rmtree(shop.folder / "made")
    boot(shop, image)


#: a worker without an API does everything but start its kubelet, which waits for one; cloud-init ends later
WAITING = """\
until [ "$(systemctl show --property SubState --value imagegen-await-api.service)" = start ]; do sleep 1; done
until [ "$(systemctl is-active imagegen-import-images.service)" = active ]; do sleep 1; done
python3 - <<'END' >/dev/ttyS0
import subprocess
run = lambda *argv: subprocess.run(argv, capture_output=True, text=True).stdout.split()
failed = run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
images = run("ctr", "--namespace", "k8s.io", "images", "list", "--quiet")
print("\\nhost", *run("hostname"), "images", len(images), "failed", *failed, "\\n@END@")
END
"""


def boot(shop: Workshop, image: Path) -> None:
    """The image becomes its node: it takes its seed, and its kubelet waits for the API of its cluster."""
    shop.imagegen("seed", "-o", str(shop.out), "--quiet", "--profiles", str(shop.profiles))
    end = "imagegen-reported"
    spec = MachineSpec(
        name="two",
        folder=shop.folder / "boot",
        disks=(
            Disk(path=shop.folder / "boot.qcow2", base=image),
            Disk(path=shop.out / "nodes" / "two" / "seed.iso", format="raw", read_only=True),
        ),
        serial=shop.folder / "boot.log",
        nics=(Nic(mac="52:54:00:12:34:56"),),
        smbios=list_report_credentials(WAITING.replace("@END@", end)),
    )
    machine = start_machine(spec, None)
    try:
        text = wait_for_console(spec.serial, end, 600.0, machine)
    finally:
        machine.kill()
    (report,) = re.findall(r"host (\S+) images (\d+) failed(.*)", text)
    assert report[0] == "two"
    assert int(report[1]) >= 3
    assert report[2].split() == []
