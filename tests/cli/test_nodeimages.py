"""Which images a build makes, and where keys may be: seen in what ``--dry-run`` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Imagegen

CLUSTER = """\
version: 1
name: demo
kubernetes: {version: 1.36.4}
network: {nodes: 10.240.0.0/24}
image: {IMAGE}
nodes:
  - {name: all, roles: [etcd, master, worker], address: 10.240.0.10}
  - {name: edge, roles: [base], address: 10.240.0.11}
"""


def _write(folder: Path, image: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(CLUSTER.replace("IMAGE", image))
    return path


def _names(text: str) -> list[str]:
    return [line.split()[1] for line in text.splitlines() if "images/" in line]


def test_an_image_of_a_set_of_roles_has_its_name_and_no_keys(imagegen: Imagegen, tmp_path: Path) -> None:
    done = imagegen("build", _write(tmp_path, "formats: [qcow2]"), "-o", tmp_path / "out", "--dry-run")
    assert _names(done.out) == ["images/demo-etcd+master+worker.qcow2", "images/demo-base.qcow2"]


def test_the_base_system_is_an_image_when_asked_for(imagegen: Imagegen, tmp_path: Path) -> None:
    cluster = _write(tmp_path, "formats: [qcow2]")
    cluster.write_text("".join(line for line in cluster.open() if "edge" not in line))
    words = ("build", cluster, "-o", tmp_path / "out", "--dry-run")
    assert _names(imagegen(*words).out) == ["images/demo-etcd+master+worker.qcow2"]
    assert _names(imagegen(*words, "--role", "base").out) == ["images/demo-base.qcow2"]


def test_roles_that_no_chosen_node_has_make_no_image(imagegen: Imagegen, tmp_path: Path) -> None:
    cluster = _write(tmp_path, "pki: baked, formats: [qcow2]")
    done = imagegen("build", cluster, "-o", tmp_path / "out", "--role", "base", "--node", "all")
    assert done.code == 2
    assert "no node has the roles base among all" in done.err


def test_a_baked_image_has_the_name_of_its_node(imagegen: Imagegen, tmp_path: Path) -> None:
    cluster = _write(tmp_path, "pki: baked, formats: [qcow2, iso]")
    done = imagegen("build", cluster, "-o", tmp_path / "out", "--dry-run")
    assert _names(done.out) == [
        f"images/demo-{name}.{ext}" for name in ("all", "edge") for ext in ("qcow2", "iso")
    ]
    for words in (("--node", "edge"), ("--role", "base")):
        done = imagegen("build", cluster, "-o", tmp_path / "out", "--dry-run", *words)
        assert _names(done.out) == ["images/demo-edge.qcow2", "images/demo-edge.iso"]
    assert not (tmp_path / "secrets").exists(), "a dry run asks for no keys"


def test_a_node_may_have_an_iso_of_its_own(imagegen: Imagegen, tmp_path: Path) -> None:
    cluster = _write(tmp_path, "formats: [qcow2, iso]")
    words = ("build", cluster, "-o", tmp_path / "out", "--dry-run", "--node", "edge")
    assert _names(imagegen(*words, "--format", "iso").out) == ["images/demo-edge.iso"]
    done = imagegen(*words)
    assert done.code == 2
    assert "would put the keys of edge into an image in format qcow2" in done.err
    assert "--format iso" in done.err


@pytest.mark.parametrize("image", ["formats: [raw, iso, ova]", "formats: [raw, ova]"])
def test_the_layers_do_not_depend_on_the_formats_that_are_asked_for(
    imagegen: Imagegen, tmp_path: Path, image: str
) -> None:
    """Asking for one more never makes a disk again; that of the cluster file is what the others find."""
    words = ("build", _write(tmp_path, image), "-o", tmp_path / "out", "--dry-run")
    whole = _layers(imagegen(*words).out)
    assert [kind for kind, _ in whole] == ["base", "system", "role", "base", "role"]
    assert _layers(imagegen(*words, "--format", "raw").out) == whole


def _layers(text: str) -> list[tuple[str, str]]:
    rows = [line.split() for line in text.splitlines()]
    return [(row[0], row[1]) for row in rows if row[0] in ("base", "system", "role")]


@pytest.mark.parametrize(
    ("image", "words", "message"),
    [
        ("formats: [qcow2]", ("--format", "iso"), "image.formats lacks iso"),
        ("size: 8001MiB", ("--format", "gce"), "the format gce takes whole GiB, image.size is 8001MiB"),
        ("formats: [iso]", ("--node", "egde"), "no such node: egde; did you mean edge?"),
        ("formats: [iso]", ("--role", "etdc"), "no such set of roles: etdc"),
    ],
)
def test_what_cannot_be_made_is_said_before_any_work(
    imagegen: Imagegen, tmp_path: Path, image: str, words: tuple[str, ...], message: str
) -> None:
    done = imagegen("build", _write(tmp_path, image), "-o", tmp_path / "out", *words)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()
