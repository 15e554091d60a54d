"""A lab of one machine without an operating system: starting, finding, ending, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagegen.lab import cluster as lab_cluster
from imagegen.lab.cluster import LabCluster, LabOptions, end_lab, open_lab, start_lab
from imagegen.lab.errors import BootFailureError, LabError
from imagegen.lab.folder import lab_folder
from imagegen.lab.processes import Process, list_children
from imagegen.run import Runner
from tests.lab.clusters import HEAD, write_cluster

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="taps belong to root here"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("qemu-system-x86_64", "qemu-img", "dnsmasq"))),
        reason="qemu-system-x86, qemu-utils or dnsmasq-base is not installed",
    ),
]

TEXT = (
    HEAD
    + """\
network: {nodes: 10.78.0.0/24, gateway: 10.78.0.1}
nodes: [{name: bare, roles: [base], address: 10.78.0.9}]
"""
)


def make_image(out: Path) -> Path:
    """A golden image that holds nothing: the machine's firmware looks for a system and stops."""
    image = out / "images" / "lab-base.qcow2"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.unlink(missing_ok=True)
    Runner().run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "16M"])
    return image


@pytest.fixture
def cluster_file(tmp_path: Path) -> Iterator[Path]:
    path = write_cluster(tmp_path, TEXT)
    make_image(tmp_path / "out")
    yield path
    end_lab(path)


def _start(cluster_file: Path, **changes: object) -> LabCluster:
    return start_lab(cluster_file, LabOptions(out=cluster_file.parent / "out", **changes))  # type: ignore[arg-type]


def _list_processes(lab: LabCluster) -> list[Process]:
    gate = lab.network.process
    return [gate, *list_children(gate.pid), *(machine.process for machine in lab.machines.values())]


def _assert_gone(processes: list[Process]) -> None:
    assert len(processes) >= 3
    for process in processes:
        assert process.wait(10.0), process


def test_another_command_finds_the_lab_and_ends_it(cluster_file: Path) -> None:
    lab = _start(cluster_file)
    again = open_lab(cluster_file)
    assert again.machines["bare"].process == lab.machines["bare"].process
    assert again.machines["bare"].is_alive()
    assert again.network.api_port == lab.network.api_port
    assert (lab.folder.seed("bare") / "seed.iso").exists()
    processes = _list_processes(lab)
    assert end_lab(cluster_file) is True
    _assert_gone(processes)
    assert not lab.folder.machines.exists()
    assert end_lab(cluster_file) is False


def test_a_lab_is_not_started_over_another(cluster_file: Path) -> None:
    lab = _start(cluster_file)
    with pytest.raises(LabError, match="is running already"):
        _start(cluster_file)
    assert lab.machines["bare"].is_alive()


def test_the_seed_has_the_labs_key_and_the_image_has_not(cluster_file: Path) -> None:
    lab = _start(cluster_file)
    key = " ".join(Runner().run(["ssh-keygen", "-y", "-f", str(lab.folder.ssh_key)]).stdout.split()[:2])
    assert key in (lab.folder.seed("bare") / "user-data").read_text()
    assert key.encode() not in (cluster_file.parent / "out/images/lab-base.qcow2").read_bytes()


def test_after_a_power_cut_the_same_disk_goes_on(cluster_file: Path) -> None:
    lab = _start(cluster_file)
    disk = lab.folder.machine("bare") / "disk.qcow2"
    before = disk.stat().st_ino
    first = lab.machines["bare"].process
    lab.power_cut("bare")
    assert not first.is_alive()
    with pytest.raises(BootFailureError, match="bare does not come up: ended"):
        lab.wait_ready(60.0)
    lab.start_node("bare")
    assert lab.machines["bare"].process != first
    assert lab.machines["bare"].is_alive()
    assert disk.stat().st_ino == before
    assert open_lab(cluster_file).machines["bare"].is_alive()


def test_a_cluster_that_does_not_come_up_says_where_to_look(cluster_file: Path) -> None:
    lab = _start(cluster_file)
    with pytest.raises(
        BootFailureError, match=r"not ready after 1 s\n(.*\n)*bare lacks cloud-init"
    ) as caught:
        lab.wait_ready(1.0)
    assert caught.value.hint is not None
    assert str(lab.folder.consoles) in caught.value.hint
    assert f"imagegen down {cluster_file}" in caught.value.hint
    assert json.loads(lab.folder.timeline.read_text())["ready_seconds"] is None
    assert lab.machines["bare"].is_alive(), "people want to look at it"


def test_kept_disks_are_used_again_until_the_image_changes(
    cluster_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nobody listens to the power button here
    monkeypatch.setattr(lab_cluster, "_SHUTDOWN_SECONDS", 0.2)
    lab = _start(cluster_file)
    disk = lab.folder.machine("bare") / "disk.qcow2"
    port = lab.network.api_port
    lab.down(keep_disks=True)
    # an inode's number may be given again at once, so a second name keeps the first disk's
    first = cluster_file.with_name("first.qcow2")
    first.hardlink_to(disk)
    lab = _start(cluster_file)
    assert disk.samefile(first)
    assert lab.network.api_port == port
    lab.down(keep_disks=True)
    make_image(cluster_file.parent / "out")
    _start(cluster_file)
    assert not disk.samefile(first)
    end_lab(cluster_file)
    assert not disk.exists()


def test_a_killed_up_leaves_a_lab_that_down_ends(cluster_file: Path) -> None:
    """Killed while it waits; the machines go on, as they do after --detach."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "from imagegen.lab.cluster import LabOptions, start_lab\n"
        "file = Path(sys.argv[1])\n"
        "start_lab(file, LabOptions(out=file.parent / 'out'))\n"
        "print('up', flush=True); time.sleep(1000)\n"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", program, str(cluster_file)], stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "up\n"
    user.send_signal(signal.SIGKILL)
    user.wait(10)
    processes = _list_processes(open_lab(cluster_file))
    assert end_lab(cluster_file) is True
    _assert_gone(processes)


def test_up_killed_at_any_moment_leaves_nothing_that_down_does_not_end(cluster_file: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from imagegen.lab.cluster import LabOptions, start_lab\n"
        "file = Path(sys.argv[1])\n"
        "print('go', flush=True)\n"
        "start_lab(file, LabOptions(out=file.parent / 'out'))\n"
    )
    for milliseconds in (150, 400, 700, 1000, 1400):
        user = subprocess.Popen(
            [sys.executable, "-c", program, str(cluster_file)], stdout=subprocess.PIPE, text=True
        )
        assert user.stdout is not None
        user.stdout.readline()
        time.sleep(milliseconds / 1000)
        user.send_signal(signal.SIGKILL)
        user.wait(10)
        end_lab(cluster_file)
        marks = (str(lab_folder(cluster_file).root).encode(), b"imagegen.lab.gate")
        for _ in range(50):
            left = [line for line in _list_command_lines() if all(mark in line for mark in marks)]
            if not left:
                break
            time.sleep(0.1)
        assert not left, f"after {milliseconds} ms: {left}"


def _list_command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes()
        except OSError:
            continue


def test_a_killed_network_takes_the_machines_along_and_up_starts_anew(cluster_file: Path) -> None:
    lab = _start(cluster_file)
    processes = _list_processes(lab)
    lab.network.process.send(signal.SIGKILL)
    _assert_gone(processes)
    with pytest.raises(LabError, match="has ended without being shut down"):
        open_lab(cluster_file)
    assert _start(cluster_file).machines["bare"].is_alive()
