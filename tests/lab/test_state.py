"""What the lab remembers, and what it does with a memory that is wrong."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from pathlib import Path

import pytest
import yaml

from imagegen.errors import UsageError
from imagegen.lab.accelerator import EMULATION
from imagegen.lab.access import emit_ssh_config, make_ssh_key, write_kubeconfig
from imagegen.lab.cluster import LabCluster, LabOptions, check_startable, end_lab, open_lab, start_lab
from imagegen.lab.engine import load_engine, make_spec
from imagegen.lab.errors import LabError
from imagegen.lab.folder import LabFolder, lab_folder
from imagegen.lab.network import LabNetwork
from imagegen.lab.networkplan import plan_network
from imagegen.lab.processes import Process, find_process
from imagegen.lab.state import LabState, MachineRecord, identify_image, read_boot_id, read_state, write_state
from imagegen.model.cluster import Cluster, ImageMode, ImagePki
from imagegen.run import Runner
from tests.lab.clusters import load_text, write_cluster


def _state(**changes: object) -> LabState:
    values: dict[str, object] = {
        "cluster": "lab",
        "engine": "qemu",
        "out": "/out",
        "boot_id": read_boot_id(),
        "started_at": 12.5,
        "network": Process(1 << 22, 1),
        "api_port": 40000,
        "nodes": ["etcd-0"],
        "machines": {"etcd-0": MachineRecord(process=Process(1 << 22, 2), started_at=13.0, console_offset=7)},
    }
    return LabState(**{**values, **changes})  # type: ignore[arg-type]


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_state(tmp_path / "lab.json", _state())
    assert read_state(tmp_path / "lab.json") == _state()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"version": 2}', '{"version": 1}', '{"version": 1, "network": 5}', "\x00"]
)
def test_a_state_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.json").write_text(text)
    assert read_state(tmp_path / "lab.json") is None


def test_an_image_that_was_built_anew_is_another(tmp_path: Path) -> None:
    image = tmp_path / "one.qcow2"
    image.write_bytes(b"one")
    before = identify_image(image)
    other = tmp_path / "other"
    other.write_bytes(b"two")
    os.replace(other, image)
    assert identify_image(image) != before


def test_a_lab_that_was_never_started_is_not_running(tmp_path: Path) -> None:
    cluster = write_cluster(tmp_path)
    with pytest.raises(LabError, match="is not running") as caught:
        open_lab(cluster)
    assert caught.value.hint == f"start it: imagegen up {cluster}"
    assert end_lab(cluster) is False
    assert not lab_folder(cluster).root.exists()


def test_a_lab_whose_processes_are_gone_says_so_and_is_cleaned_up(tmp_path: Path) -> None:
    cluster = write_cluster(tmp_path)
    folder = lab_folder(cluster)
    folder.make()
    folder.machine("etcd-0").mkdir()
    write_state(folder.state, _state())
    with pytest.raises(LabError, match="has ended without being shut down"):
        open_lab(cluster)
    assert end_lab(cluster) is False
    assert not folder.machines.exists()
    assert end_lab(cluster, purge=True) is False
    assert not folder.root.exists()


def test_processes_of_another_run_of_the_kernel_are_not_touched(tmp_path: Path) -> None:
    """After a restart of this machine the ids belong to others."""
    own = find_process(os.getpid())
    cluster = write_cluster(tmp_path)
    folder = lab_folder(cluster)
    folder.make()
    write_state(folder.state, _state(boot_id="another", network=own, machines={}))
    end_lab(cluster)
    assert own is not None
    assert own.is_alive()


def test_two_commands_do_not_change_a_lab_at_once(tmp_path: Path) -> None:
    folder = LabFolder(tmp_path / "lab")
    with (
        folder.lock(),
        pytest.raises(LabError, match="another command is starting or stopping"),
        LabFolder(tmp_path / "lab").lock(),
    ):
        pass


@pytest.mark.process
def test_an_image_that_is_missing_is_named_before_anything_starts(tmp_path: Path) -> None:
    cluster = write_cluster(tmp_path)
    with pytest.raises(LabError, match=r"lab-etcd\.qcow2 is missing") as caught:
        start_lab(cluster, LabOptions(out=tmp_path / "out"))
    assert caught.value.hint == f"imagegen build {cluster} -o {tmp_path / 'out'}"


def test_the_folder_is_private_and_invisible_to_git(tmp_path: Path) -> None:
    folder = LabFolder(tmp_path / "lab")
    folder.make()
    assert folder.root.stat().st_mode & 0o777 == 0o700
    assert (folder.root / ".gitignore").read_text() == "*\n"


def test_the_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    public = make_ssh_key(path)
    assert public.startswith("ssh-ed25519 AAAA")
    assert make_ssh_key(path) == public
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_ssh_configuration_survives_odd_folders(tmp_path: Path) -> None:
    folder = LabFolder(tmp_path / "a b%c" / "lab")
    text = emit_ssh_config(folder, "ops", {"etcd-0": "10.240.0.10"})
    assert "Host etcd-0\n  HostName 10.240.0.10\n" in text
    assert f'IdentityFile "{tmp_path}/a b%%c/lab/id_ed25519"' in text
    assert f"'{tmp_path}/a b%%c/lab/network/gate.sock' %h %p" in text


def test_the_kubeconfig_leads_into_the_lab_and_still_asks_for_the_endpoint(tmp_path: Path) -> None:
    cluster = load_text(tmp_path)
    folder = LabFolder(tmp_path / "lab")
    rendered = folder.seeds / "kubeconfigs"
    rendered.mkdir(parents=True)
    server = {"server": "https://10.240.0.11:6443", "certificate-authority-data": "QQ=="}
    (rendered / "admin.kubeconfig").write_text(
        json.dumps({"clusters": [{"name": "lab", "cluster": server}], "users": []})
    )
    write_kubeconfig(folder, cluster, 41000)
    written = yaml.safe_load(folder.kubeconfig.read_text())["clusters"][0]["cluster"]
    assert written["server"] == "https://127.0.0.1:41000"
    assert written["tls-server-name"] == "10.240.0.11"
    assert folder.kubeconfig.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("pki", list(ImagePki))
def test_a_node_boots_the_image_of_its_roles_or_the_one_with_its_seed(tmp_path: Path, pki: ImagePki) -> None:
    cluster = load_text(tmp_path)
    cluster = dataclasses.replace(cluster, image=dataclasses.replace(cluster.image, pki=pki))
    lab = make_lab(tmp_path, cluster)
    boot = lab._boot_of(cluster.nodes[0].name)
    name = cluster.nodes[0].name if pki is ImagePki.BAKED else cluster.nodes[0].role_set
    assert boot.image == tmp_path / "out/images" / f"{cluster.name}-{name}.qcow2"
    disks = make_spec(boot, "tcg").disks
    seeds = [] if pki is ImagePki.BAKED else [lab.folder.seed(boot.node.name) / "seed.iso"]
    assert [disk.path for disk in disks if disk.read_only] == seeds


@pytest.mark.parametrize(("accelerator", "emulated"), [(EMULATION, True), ("kvm", False)])
def test_only_in_emulation_do_daemons_get_settings_of_the_lab(
    tmp_path: Path, accelerator: str, emulated: bool
) -> None:
    cluster = load_text(tmp_path)
    boot = make_lab(tmp_path, cluster)._boot_of(cluster.nodes[0].name)
    settings = {}
    for value in make_spec(boot, accelerator).smbios:
        name, _, body = value.removeprefix("type=11,value=io.systemd.credential.binary:").partition("=")
        settings[name] = base64.b64decode(body).decode()
    assert bool(settings) == emulated
    for name, text in settings.items():
        unit = name.removeprefix("systemd.unit-dropin.").removesuffix("~lab")
        assert unit.endswith(".service"), name
        assert text == "[Service]\nEnvironment=GOGC=400\n"


def test_stock_images_are_not_for_the_lab(tmp_path: Path) -> None:
    cluster = load_text(tmp_path)
    stock = dataclasses.replace(cluster, image=dataclasses.replace(cluster.image, mode=ImageMode.STOCK))
    with pytest.raises(UsageError, match=r"image\.mode is stock: .* nothing leaves the lab"):
        check_startable(stock, "qemu", Runner())


def make_lab(folder: Path, cluster: Cluster) -> LabCluster:
    """A lab that was never started."""
    state = LabState(
        cluster=cluster.name, engine="qemu", out=str(folder / "out"), boot_id="", started_at=0.0, nodes=[]
    )
    network = LabNetwork(plan_network(cluster), folder / "network")
    lab = LabFolder(folder / "lab")
    return LabCluster(cluster, lab, state, load_engine("qemu", Runner()), network, Runner())
