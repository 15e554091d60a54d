"""What the quick tier changes in a node: little, in the right place, and in the image's own words."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from imagegen.kubernetes.containerd import containerd_config
from imagegen.kubernetes.gates import Gates
from imagegen.lab import nspawncgroups, nspawnnode
from imagegen.lab.processes import Process, find_process
from imagegen.model.version import parse_version

CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime", 4: "io.containerd.cri.v1.runtime"}
NETWORK = """\
version: 2
ethernets:
  eth0:
    match:
      macaddress: '52:54:00:00:00:22'
    dhcp4: true
"""


@pytest.mark.parametrize(("version", "layout"), [("1.6.20", 2), ("2.0.0", 3), ("2.3.7", 4)])
def test_containerd_keeps_all_else(version: str, layout: int) -> None:
    gates = Gates(version=parse_version("1.36.4"), companions={"containerd": parse_version(version)})
    before = containerd_config(gates, "registry.k8s.io/pause:3.10")
    after = tomllib.loads(nspawnnode.change_containerd(before))
    assert after["plugins"][CRI[layout]].pop("restrict_oom_score_adj") is True
    assert after["version"] == layout
    assert after == tomllib.loads(before)


def test_the_kubelet_keeps_all_else() -> None:
    before = {
        "kind": "KubeletConfiguration",
        "failCgroupV1": True,
        "imageGCHighThresholdPercent": 85,
        "imageGCLowThresholdPercent": 80,
        "protectKernelDefaults": True,
    }
    after = yaml.safe_load(nspawnnode.change_kubelet(yaml.safe_dump(before)))
    assert after.pop("evictionHard") == {"memory.available": "50Mi"}
    assert after == before | {
        "failCgroupV1": False,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def test_an_old_kubelet_gets_no_new_field() -> None:
    assert "failCgroupV1" not in nspawnnode.change_kubelet("kind: KubeletConfiguration\n")


def test_cards_are_matched_by_name() -> None:
    config = yaml.safe_load(nspawnnode.name_card(NETWORK))
    assert config["ethernets"]["eth0"] == {"match": {"name": "e*"}, "dhcp4": True}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The top layer of a node above a small root tree."""
    tree, upper, seed = tmp_path / "tree", tmp_path / "upper", tmp_path / "seed"
    for folder in (tree / "etc/kubernetes", tree / "etc/default", upper, seed):
        folder.mkdir(parents=True)
    (tree / "etc/kubernetes").chmod(0o750)
    (tree / nspawnnode.KUBELET.lstrip("/")).write_text("kind: KubeletConfiguration\n")
    (tree / nspawnnode.KUBELET.lstrip("/")).chmod(0o640)
    (tree / "etc/fstab").write_text("UUID=1 / ext4\n")
    (seed / "user-data").write_text("#cloud-config\n")
    (seed / "meta-data").write_text("instance-id: i\n")
    (seed / "network-config").write_text(NETWORK)
    shutil.copyfile(seed / "user-data", seed / "seed.iso")
    nspawnnode.write_differences(tree, upper)
    nspawnnode.write_seed(tree, upper, seed)
    return upper


def test_the_seed_is_where_cloud_init_looks_and_closed(node: Path) -> None:
    seed = node / nspawnnode.SEED.lstrip("/")
    assert sorted(os.listdir(seed)) == ["meta-data", "network-config", "user-data"]
    assert {path.stat().st_mode & 0o777 for path in seed.iterdir()} == {0o600}
    assert "name: e*" in (seed / "network-config").read_text()


def test_another_seed_takes_the_place_of_the_former_and_nothing_else(node: Path) -> None:
    kubelet = node / nspawnnode.KUBELET.lstrip("/")
    kubelet.write_text("changed since the first start\n")
    seed = node.parent / "seed"
    (seed / "user-data").write_text("#cloud-config\n# another\n")
    nspawnnode.write_seed(node.parent / "tree", node, seed)
    written = node / nspawnnode.SEED.lstrip("/") / "user-data"
    assert written.read_text() == "#cloud-config\n# another\n"
    assert written.stat().st_mode & 0o777 == 0o600
    assert kubelet.read_text() == "changed since the first start\n"


def test_changed_files_look_like_the_images(node: Path) -> None:
    assert (node / "etc/kubernetes").stat().st_mode & 0o777 == 0o750
    assert (node / nspawnnode.KUBELET.lstrip("/")).stat().st_mode & 0o777 == 0o640
    assert (node / "etc/fstab").read_text() == ""


def test_every_changed_file_is_listed_with_a_reason(node: Path) -> None:
    written = {f"/{path.relative_to(node)}" for path in node.rglob("*") if path.is_file()}
    own = {path for path in written if not path.startswith(nspawnnode.SEED)}
    assert own <= nspawnnode.list_differences().keys()
    assert all(nspawnnode.list_differences().values())
    # an etcd node has no containerd, so nothing is written there
    assert nspawnnode.CONTAINERD not in written


def test_cgroups_of_a_dead_lab_go_and_those_of_a_living_one_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nspawncgroups, "_CGROUPS", tmp_path)
    living = find_process(os.getpid())
    assert living is not None
    dead = Process(living.pid, living.ticks - 1)
    for holder in (living, dead):
        for hierarchy in ("cpu", "memory"):
            (tmp_path / hierarchy / nspawncgroups.name_group(holder, "node") / "payload").mkdir(parents=True)
    (tmp_path / "memory" / "foreign").mkdir()
    assert nspawncgroups.sweep_groups() == [f"imagegen-lab.{dead.pid}-{dead.ticks}"]
    left = {path.name for path in (tmp_path / "memory").iterdir()}
    assert left == {"foreign", f"imagegen-lab.{living.pid}-{living.ticks}"}
    assert nspawncgroups.remove_group(nspawncgroups.name_group(living, "node"))
    assert {path.name for path in (tmp_path / "cpu").iterdir()} == set()
