"""``imagegen upgrade-check``: what it says, and the cluster file that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Imagegen

TEXT = """\
version: 1
name: old
# why it is so old
kubernetes:
  version: 1.20.2   # as in the data centre
  extra_args:
    kubelet:
      network-plugin: cni
      max-pods: 50
network: {nodes: 10.240.0.0/24, gateway: 10.240.0.1}
nodes:
  - {name: one, roles: [etcd, master, worker], address: 10.240.0.10}
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.yaml"
    path.write_text(TEXT)
    return path


def test_the_new_cluster_file_is_the_old_one_without_what_is_gone(old: Path, imagegen: Imagegen) -> None:
    new = old.with_name("new.yaml")
    done = imagegen("upgrade-check", old, "--to", "1.36.4", "--write", new)
    assert done.code == 0, done.err
    assert "kubelet --network-plugin removed (kubernetes.extra_args.kubelet.network-plugin)" in done.out
    assert "16 steps" in done.err
    assert done.out.splitlines()[-1] == "stays as it is: kubelet --max-pods"
    assert new.read_text() == TEXT.replace("1.20.2", "1.36.4").replace("      network-plugin: cni\n", "")
    assert imagegen("check", new).code == 0
    assert imagegen("upgrade-check", old, "--to", "1.36.4", "--write", new).code == 2


def test_machines_read_the_same(old: Path, imagegen: Imagegen) -> None:
    steps = json.loads(imagegen("upgrade-check", old, "--to", "1.24.17", "--format", "json").out)
    assert [step["version"].rpartition(".")[0] for step in steps] == ["1.21", "1.22", "1.23", "1.24"]
    (change,) = steps[-1]["changes"]
    assert (change["item"], change["effect"]) == ("--network-plugin", "removed")
    everything = imagegen("upgrade-check", old, "--to", "1.24.17", "--all").out
    assert "cluster dockershim removed" in everything


@pytest.mark.parametrize("version", ["1.19.1", "1.99.0", "newest"])
def test_a_version_that_is_no_way_up(old: Path, imagegen: Imagegen, version: str) -> None:
    assert imagegen("upgrade-check", old, "--to", version).code == 2
