"""Every format starts as its platform would start it, and the guest says that nothing failed.

Firmware and disk controllers are spread over the formats, so that each is covered once.
"""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from imagegen.backends.seediso import build_seed_iso
from imagegen.lab.machine import Disk, MachineSpec, Nic
from imagegen.lab.network import LabNetwork
from imagegen.model.cluster import Firmware
from tests.vm.images import boot_image, check_report
from tests.vm.labs import require_lab, run_imagegen
from tests.vm.platforms import GCE_MAC, plan_compute_engine, write_ovf_transport

CLUSTER = """\
version: 1
name: {name}
kubernetes: {{version: 1.36.4}}
network: {{nodes: 10.0.2.0/24}}
image: {{size: 2GiB, pki: {pki}, formats: [{formats}, iso]}}
targets: [qemu, virtualbox, vmware, gce]
nodes:
  - {{name: one, roles: [etcd, master, worker], address: 10.0.2.10}}
  - {{name: bare, roles: [base], address: 10.0.2.15}}
"""
MIB = 1 << 20
EPOCH = 1_767_225_600

pytestmark = [pytest.mark.vm, pytest.mark.slow]


def _build(folder: Path, name: str, pki: str, formats: str) -> Path:
    require_lab()
    cluster = folder / f"{name}.yaml"
    cluster.write_text(CLUSTER.format(name=name, pki=pki, formats=formats))
    out = folder / name
    run_imagegen("seed", str(cluster), "-o", str(out), "--quiet")
    run_imagegen("build", str(cluster), "-o", str(out), "--role", "base", "--quiet")
    return out


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images for every platform, their keys in seeds."""
    return _build(tmp_path_factory.mktemp("formats"), "vm", "seed", "qcow2, vmdk, vdi, vhd, ova, gce")


@pytest.fixture(scope="session")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with the seed of their one node inside."""
    return _build(tmp_path_factory.mktemp("baked"), "app", "baked", "raw")


@pytest.fixture(scope="session")
def stray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seed of somebody else, who would like to have the node."""
    path = tmp_path_factory.mktemp("stray") / "stray.iso"
    files = {
        "user-data": b"#cloud-config\nhostname: taken\nusers: [{name: intruder}]\n",
        "meta-data": b"instance-id: iid-stray\nlocal-hostname: taken\n",
    }
    path.write_bytes(build_seed_iso(files, epoch=EPOCH))
    return path


def _spec(
    folder: Path, *disks: Disk, firmware: str, card: str = "virtio-net-pci", extra: str = ""
) -> MachineSpec:
    return MachineSpec(
        name=f"{firmware}-{disks[0].format}",
        folder=folder,
        # QEMU 7.2's emulation of two processors loses a race with a kernel that patches itself: "Oops: int3"
        cpus=1,
        disks=disks,
        serial=folder / "console",
        firmware=Firmware(firmware),
        nics=(Nic(mac="52:54:00:12:34:56", device=card),),
        extra=tuple(extra.split()),
    )


def _seed(out: Path, device: str = "virtio-blk-pci") -> Disk:
    return Disk(path=out / "nodes/bare/seed.iso", format="raw", read_only=True, device=device)


def test_qcow2_under_bios_takes_its_seed_and_all_of_a_larger_disk(out: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    base = out / "images/vm-base.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(disk), "5G"]
    subprocess.run(argv, check=True, timeout=60)
    boot = boot_image(_spec(tmp_path, Disk(path=disk), _seed(out), firmware="bios"))
    check_report(boot, hostname="bare", source="DataSourceNoCloud")
    kind, size = boot.report["root"].split()
    assert kind == "ext4"
    assert int(size) > 4300 * MIB, boot.report["root"]
    assert "10.0.2.15/24" in boot.report["addresses"]


# their bytes are compared with raw's in every run of the tests; the OVA's disk is a VMDK, which starts there
@pytest.mark.long
@pytest.mark.parametrize(
    ("extension", "driver", "firmware"),
    [("vmdk", "vmdk", "bios"), ("vdi", "vdi", "uefi"), ("vhd", "vpc", "bios")],
)
def test_other_hypervisors_disks_start_on_their_controllers(
    out: Path, tmp_path: Path, extension: str, driver: str, firmware: str
) -> None:
    disk = Disk(path=out / f"images/vm-base.{extension}", format=driver, snapshot=True, device="ide-hd")
    spec = _spec(tmp_path, disk, _seed(out, "ide-cd"), firmware=firmware, card="e1000")
    check_report(boot_image(spec), hostname="bare", source="DataSourceNoCloud")


def test_the_ovas_disk_takes_its_properties_from_the_ovf_environment(out: Path, tmp_path: Path) -> None:
    with tarfile.open(out / "images/vm-base.ova") as archive:
        member = next(one for one in archive if one.name.endswith(".vmdk"))
        member.name = "disk.vmdk"
        archive.extract(member, tmp_path)
    transport = write_ovf_transport(tmp_path, (out / "nodes/bare/user-data").read_bytes())
    # VMware's own controller: QEMU has no LSI Logic Parallel (53c1030), and Linux finds no disk on its
    # mptsas1068
    disk = Disk(path=tmp_path / "disk.vmdk", format="vmdk", snapshot=True, device="scsi-hd")
    cdrom = Disk(path=transport, format="raw", read_only=True, device="ide-cd")
    spec = _spec(tmp_path, disk, cdrom, firmware="bios", card="vmxnet3", extra="-device pvscsi")
    boot = boot_image(spec)
    check_report(boot, hostname="bare", source="DataSourceOVF")
    assert "[seed=iso]" in boot.report["source"]


def test_raw_under_uefi_is_its_node_without_a_seed_and_no_stray_disk_changes_that(
    baked: Path, stray: Path, tmp_path: Path
) -> None:
    disk = Disk(path=baked / "images/app-bare.raw", format="raw", snapshot=True)
    other = Disk(path=stray, format="raw", read_only=True)
    boot = boot_image(_spec(tmp_path, disk, other, firmware="uefi"))
    check_report(boot, hostname="bare", source="DataSourceNoCloud")
    assert "intruder" not in boot.report["accounts"]
    assert [row.split()[:2] for row in boot.report["seed"].splitlines()] == [["600", "root"]] * 3


def test_the_iso_of_a_node_starts_from_a_cd_under_bios_as_that_node(
    baked: Path, stray: Path, tmp_path: Path
) -> None:
    cdrom = Disk(path=baked / "images/app-bare.iso", format="raw", read_only=True, device="ide-cd")
    other = Disk(path=stray, format="raw", read_only=True)
    boot = boot_image(_spec(tmp_path, cdrom, other, firmware="bios"))
    check_report(boot, hostname="bare", source="DataSourceNoCloud")
    assert boot.report["root"].split()[0] == "overlay"
    assert "intruder" not in boot.report["accounts"]
    assert [row.split()[:2] for row in boot.report["seed"].splitlines()] == [["400", "root"]] * 3


@pytest.mark.long
def test_the_iso_starts_from_a_usb_stick_under_uefi_and_takes_a_seed(out: Path, tmp_path: Path) -> None:
    stick = Disk(path=out / "images/vm-base.iso", format="raw", snapshot=True, device="usb-storage")
    boot = boot_image(_spec(tmp_path, stick, _seed(out), firmware="uefi", extra="-device qemu-xhci"))
    check_report(boot, hostname="bare", source="DataSourceNoCloud")
    assert boot.report["root"].split()[0] == "overlay"


def test_compute_engine_image_takes_its_user_data_from_the_metadata_server(out: Path, tmp_path: Path) -> None:
    with tarfile.open(out / "images/vm-base.gce.tar.gz") as archive:
        (member,) = archive.getmembers()
        archive.extraction_filter = lambda info, path: info
        archive.extract(member, tmp_path)
    (tmp_path / "user-data").write_bytes((out / "nodes/bare/user-data").read_bytes())
    plan = plan_compute_engine(tmp_path / "user-data")
    disk = Disk(path=tmp_path / "disk.raw", format="raw", snapshot=True, device="scsi-hd")
    spec = _spec(tmp_path, disk, firmware="uefi", extra="-device virtio-scsi-pci")
    spec = replace(
        spec,
        nics=(Nic(mac=GCE_MAC, tap=plan.taps[0]),),
        smbios=("type=1,manufacturer=Google,product=Google Compute Engine",),
    )
    with LabNetwork(plan, tmp_path / "network") as network:
        boot = boot_image(spec, network)
    check_report(boot, hostname="bare", source="DataSourceGCE")
