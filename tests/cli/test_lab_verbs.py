"""What ``up``, ``status``, ``ssh`` and ``down`` say before and without any machine."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagegen import run
from imagegen.cli.labview import LabView, make_table
from imagegen.cli.terminal import Terminal
from imagegen.lab.folder import lab_folder
from imagegen.lab.progress import Event, NodeProgress
from imagegen.model.cluster import Role
from tests.cli.conftest import Imagegen


def test_a_missing_program_is_named_before_any_work(
    imagegen: Imagegen, quickstart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run.find_tool
    absent = ("dnsmasq", "qemu-system-x86_64")
    monkeypatch.setattr(
        run, "find_tool", lambda name: None if name in absent else found(name) or f"/bin/{name}"
    )
    done = imagegen("up", quickstart)
    assert done.code == 3
    assert "qemu-system-x86_64 is not installed; it is needed to run the cluster's machines" in done.err
    assert "apt-get install" in done.err
    assert "qemu-system-x86" in done.err
    assert not (quickstart.parent / "lab").exists()
    assert not (quickstart.parent / "secrets").exists()


def test_up_refuses_a_node_that_is_not_there(imagegen: Imagegen, quickstart: Path) -> None:
    done = imagegen("up", quickstart, "--node", "worker-9")
    assert done.code == 2
    assert "no such node: worker-9; did you mean worker-" in done.err


def test_up_refuses_a_cluster_file_with_errors(imagegen: Imagegen, quickstart: Path) -> None:
    quickstart.write_text(quickstart.read_text().replace("roles: [etcd]", "roles: [etcdd]"))
    done = imagegen("up", quickstart)
    assert done.code == 2
    assert f"{quickstart}:" in done.err


def test_up_says_what_it_cannot_boot(imagegen: Imagegen, quickstart: Path) -> None:
    quickstart.write_text(f"{quickstart.read_text()}\nimage:\n  mode: stock\n")
    done = imagegen("up", quickstart)
    assert done.code == 2
    assert "image.mode is stock: on its first boot such a node downloads" in done.err


@pytest.mark.parametrize("words", [["status"], ["ssh"]])
def test_a_lab_that_is_not_running_says_how_to_start_it(
    imagegen: Imagegen, quickstart: Path, words: list[str]
) -> None:
    done = imagegen(*words, quickstart, *(["worker-0"] if words == ["ssh"] else []))
    assert done.code == 1
    assert f"the lab of {quickstart} is not running" in done.err
    assert f"start it: imagegen up {quickstart}" in done.err


def test_down_is_fine_when_nothing_runs(imagegen: Imagegen, quickstart: Path) -> None:
    done = imagegen("down", quickstart)
    assert (done.code, done.out) == (0, "")
    assert "was not running" in done.err


def test_down_needs_no_valid_cluster_file(imagegen: Imagegen, quickstart: Path) -> None:
    lab_folder(quickstart).make()
    lab_folder(quickstart).state.write_text("rubbish")
    quickstart.write_text("rubbish: [")
    assert imagegen("down", quickstart, "--purge").code == 0
    assert not lab_folder(quickstart).root.exists()


def test_down_is_told_one_thing_at_a_time(imagegen: Imagegen, quickstart: Path) -> None:
    done = imagegen("down", quickstart, "--keep-disks", "--purge")
    assert done.code == 2
    assert "want opposite things" in done.err


def _watch() -> SimpleNamespace:
    """A lab under way, as far as a view looks at it."""
    etcd = NodeProgress(name="etcd-0", roles=(Role.ETCD,), address="10.0.0.1")
    worker = NodeProgress(name="worker-0", roles=(Role.WORKER,), address="10.0.0.2")
    for event in (Event.KERNEL, Event.CLOUD_INIT, Event.ETCD):
        etcd.note(event, 5.0)
    worker.trouble = "Kernel panic"
    nodes = {"etcd-0": etcd, "worker-0": worker}
    cluster = SimpleNamespace(name="lab")
    return SimpleNamespace(lab=SimpleNamespace(cluster=cluster), nodes=nodes, seconds=12.0, api_seconds=None)


def test_without_a_terminal_every_step_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    watch = _watch()
    with LabView(Terminal()) as view:
        view.on_change(watch)  # type: ignore[arg-type]
        watch.api_seconds = 11.0
        view.on_change(watch)  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "   5.0 s  etcd-0: kernel",
        "   5.0 s  etcd-0: cloud-init",
        "   5.0 s  etcd-0: etcd",
        "  11.0 s  the API server is ready",
    ]


def test_a_quiet_view_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with LabView(Terminal(quiet=True)) as view:
        view.on_change(_watch())  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_the_table_of_a_terminal_shows_every_node() -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(make_table(_watch()))  # type: ignore[arg-type]
    text = console.export_text()
    assert "lab: 12 s" in text
    assert "Kernel panic" in text
    assert "etcd-0" in text
