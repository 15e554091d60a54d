"""``test``: an image of any format against the plan, by its name; exit code 1 when a check fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from imagegen.cli.testreport import list_benchmark
from imagegen.verify.outcomes import Outcome
from tests.cli.conftest import Imagegen
from tests.verify.test_suite import make_root, plan_role

pytestmark = pytest.mark.process


def _run(*argv: str | Path, stdin: str = "") -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    words = [str(word) for word in argv]
    subprocess.run(words, input=stdin, text=True, check=True, capture_output=True, env={"PATH": path})


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(plan_role("worker"), tmp_path_factory.mktemp("worker"))


def _make_ext4(tree: Path, folder: Path) -> Path:
    _run("mke2fs", "-q", "-t", "ext4", "-d", tree, folder / "root.ext4", "16M")
    return (folder / "root.ext4").rename(folder / "quickstart-worker.raw")


def _make_qcow2(tree: Path, folder: Path) -> Path:
    root, raw = _make_ext4(tree, folder), folder / "disk.raw"
    with open(raw, "wb") as handle:
        handle.truncate(20 << 20)
    _run("sfdisk", "-q", raw, stdin="label: gpt\nstart=2048,size=2048\nstart=4096,size=32768\n")
    with open(raw, "r+b") as handle:
        handle.seek(4096 * 512)
        handle.write(root.read_bytes())
    _run("qemu-img", "convert", "-O", "qcow2", raw, folder / "quickstart-worker.qcow2")
    return folder / "quickstart-worker.qcow2"


def _make_ova(tree: Path, folder: Path) -> Path:
    _run("qemu-img", "convert", "-O", "vmdk", _make_qcow2(tree, folder), folder / "x.vmdk")
    (folder / "x.ovf").write_text("<Envelope/>")
    _run("tar", "-C", folder, "--format=ustar", "-cf", folder / "quickstart-worker.ova", "x.ovf", "x.vmdk")
    return folder / "quickstart-worker.ova"


def _make_gce(tree: Path, folder: Path) -> Path:
    _make_qcow2(tree, folder)
    image = folder / "quickstart-worker.gce.tar.gz"
    _run("tar", "-C", folder, "--format=oldgnu", "-Sczf", image, "disk.raw")
    return image


def _make_iso(tree: Path, folder: Path) -> Path:
    (folder / "content").mkdir()
    _run("mksquashfs", tree, folder / "content" / "root.squashfs", "-quiet")
    image = folder / "quickstart-worker.iso"
    _run("xorriso", "-as", "mkisofs", "-R", "-J", "-o", image, folder / "content")
    return image


@pytest.mark.parametrize("make", [_make_ext4, _make_qcow2, _make_ova, _make_gce, _make_iso])
def test_every_format_passes(
    make: object, tree: Path, tmp_path: Path, imagegen: Imagegen, quickstart: Path
) -> None:
    assert callable(make)
    done = imagegen("test", make(tree, tmp_path), "--cluster", quickstart)
    assert done.code == 0, done.out + done.err
    assert not done.out
    assert ", 0 failed" in done.err


def test_a_failed_check_is_named(tree: Path, tmp_path: Path, imagegen: Imagegen, quickstart: Path) -> None:
    image = _make_ext4(tree, tmp_path)
    _run("debugfs", "-w", "-R", "rm /usr/local/bin/kubelet", image)
    done = imagegen("test", image, "--cluster", quickstart)
    assert done.code == 1
    assert done.out == "FAILED executable /usr/local/bin/kubelet: wanted a file, there is nothing\n"
    answer = json.loads(imagegen("test", image, "--cluster", quickstart, "--format", "json").out)
    failed = [check["check"] for check in answer["checks"] if not check["passed"]]
    assert failed == ["executable /usr/local/bin/kubelet"]
    assert len(answer["checks"]) > 100


def test_the_bill_beside_the_image_tells_the_sums(
    tree: Path, tmp_path: Path, imagegen: Imagegen, quickstart: Path
) -> None:
    image = _make_ext4(tree, tmp_path)
    part = {"bom-ref": "file:/usr/local/bin/kubelet", "hashes": [{"content": "0" * 64}]}
    bill = tmp_path / "quickstart-worker.cdx.json"
    bill.write_text(json.dumps({"components": [part, {"bom-ref": "deb:x"}]}))
    done = imagegen("test", image, "--cluster", quickstart)
    assert done.code == 1
    assert done.out.startswith("FAILED executable /usr/local/bin/kubelet: wanted sum 0000")
    bill.write_text("{}")
    done = imagegen("test", image, "--cluster", quickstart)
    assert "is not a bill of materials" in done.err


def test_the_role_is_asked_for_when_the_name_does_not_tell(
    tree: Path, imagegen: Imagegen, quickstart: Path
) -> None:
    done = imagegen("test", tree, "--cluster", quickstart)
    assert done.code == 2
    assert "--role etcd|master|worker" in done.err
    assert imagegen("test", tree, "--cluster", quickstart, "--role", "worker").code == 0
    assert "did you mean worker" in imagegen("test", tree, "--cluster", quickstart, "--role", "worke").err


def test_something_else_than_an_image(tmp_path: Path, imagegen: Imagegen, quickstart: Path) -> None:
    (tmp_path / "quickstart-worker.raw").write_text("no image")
    done = imagegen("test", tmp_path / "quickstart-worker.raw", "--cluster", quickstart)
    assert done.code == 1
    assert "is not a disk image" in done.err


CLUSTER = """\
version: 1
name: quickstart
kubernetes: {version: 1.36.4}
network: {nodes: 10.240.0.0/24}
nodes:
  - {name: control, roles: [etcd, master], address: 10.240.0.10}
  - {name: worker-0, roles: [worker], address: 10.240.0.21}
  - {name: worker-1, roles: [worker], address: dhcp, mac: "52:54:00:00:00:22"}
"""


def _program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster file, and programs of ours in the place of ssh and kubectl."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    _program(tmp_path / "bin", "ssh", f'echo "$@" >>{tmp_path}/said; echo no route >&2; exit 255')
    _program(tmp_path / "bin", "kubectl", "echo refused >&2; exit 1")
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER)
    return path


def test_a_cluster_that_does_not_run_is_told_with_a_way_out(imagegen: Imagegen, cluster: Path) -> None:
    result = imagegen("test", str(cluster))
    assert result.code == 2
    assert "is not running" in result.err
    assert "--kubeconfig" in result.err


def test_nodes_elsewhere_are_asked_as_the_command_line_says(imagegen: Imagegen, cluster: Path) -> None:
    key = cluster.with_name("key")
    key.write_text("")
    words = ["--ssh-user", "admin", "--ssh-key", str(key), "--address", "worker-1=192.0.2.9"]
    result = imagegen("test", str(cluster), "--only", "suite", "--format", "json", *words)
    assert result.code == 1
    checks = json.loads(result.out)["checks"]
    assert {one["place"] for one in checks} == {"control", "worker-0", "worker-1"}
    assert all("no route" in one["problem"] for one in checks)
    said = cluster.with_name("said").read_text()
    assert f"-i {key}" in said
    assert all(f"-l admin {address} --" in said for address in ("10.240.0.10", "10.240.0.21", "192.0.2.9"))


def test_a_node_without_an_address_is_told(imagegen: Imagegen, cluster: Path) -> None:
    result = imagegen("test", str(cluster), "--only", "suite", "--ssh-user", "ops", "--node", "worker-1")
    assert result.code == 1
    assert "--address worker-1=ADDRESS" in result.out


@pytest.mark.parametrize("word", ["worker-9=10.0.0.1", "worker-1"])
def test_an_address_of_nobody_is_a_mistake(imagegen: Imagegen, cluster: Path, word: str) -> None:
    assert imagegen("test", str(cluster), "--address", word).code == 2


def test_the_smoke_test_fails_with_the_api(imagegen: Imagegen, cluster: Path) -> None:
    kubeconfig = cluster.with_name("kubeconfig")
    kubeconfig.write_text("")
    words = ["--only", "smoke", "--kubeconfig", str(kubeconfig), "--format", "junit"]
    result = imagegen("test", str(cluster), *words)
    assert result.code == 1
    assert 'failures="1"' in result.out
    assert "refused" in result.out
    assert "needs what failed" in result.out


def test_the_smoke_test_needs_a_kubeconfig(imagegen: Imagegen, cluster: Path) -> None:
    result = imagegen("test", str(cluster), "--only", "smoke", "--ssh-user", "ops")
    assert result.code == 2
    assert "--kubeconfig" in result.err


def test_the_benchmark_of_every_node_is_a_table(imagegen: Imagegen, cluster: Path) -> None:
    """Nothing runs there: what needs a daemon fails, what looks for files has nothing to complain of."""
    _program(cluster.parent / "bin", "ssh", "cat >/dev/null; echo end")
    words = ["--only", "cis", "--ssh-user", "ops", "--address", "worker-1=192.0.2.9"]
    result = imagegen("test", str(cluster), *words)
    assert result.code == 1
    head, *lines = result.out.splitlines()
    assert re.fullmatch(r"CIS benchmark: \d+ checks on 3 nodes: \d+ passed, \d+ waived, \d+ failed", head)
    rows = [line for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert any(re.fullmatch(r"  failed  CIS 2\.1: .*  control", row) for row in rows)
    assert any(row.startswith("  passed") and row.endswith("  worker-0, worker-1") for row in rows), rows
    assert "          control: etcd does not run" in lines
    done = imagegen("test", str(cluster), *words, "--format", "json")
    checks = json.loads(done.out)["checks"]
    assert {one["place"] for one in checks if one["check"].startswith("CIS 4.")} == {"worker-0", "worker-1"}
    assert {one["place"] for one in checks if one["check"].startswith("CIS 1.2")} == {"control"}


def test_waived_checks_of_the_benchmark_are_told_with_their_reason() -> None:
    outcomes = [
        Outcome(place="a", name="CIS 1: one", skipped="waived: a good reason"),
        Outcome(place="b", name="CIS 1: one", skipped="waived: a good reason"),
        Outcome(place="a", name="CIS 2: two"),
    ]
    assert list(list_benchmark(outcomes, show_all=False)) == [
        "CIS benchmark: 2 checks on 2 nodes: 1 passed, 1 waived\n",
        "  waived  CIS 1: one  a, b\n",
        "          a good reason\n",
    ]
    assert "  passed  CIS 2: two  a\n" in list(list_benchmark(outcomes, show_all=True))
    assert list(list_benchmark([], show_all=True)) == []
