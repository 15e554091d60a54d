"""QEMU's command line as data."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagegen.lab.accelerator import EMULATION
from imagegen.lab.machine import Disk, MachineSpec, Nic, build_argv, choose_cpus, choose_memory
from imagegen.model.cluster import Firmware, Role


def _spec(**changes: object) -> MachineSpec:
    values: dict[str, object] = {
        "name": "one",
        "folder": Path("/lab/machines/one"),
        "disks": (
            Disk(path=Path("/lab/machines/one/disk.qcow2"), base=Path("/out/images/one.qcow2")),
            Disk(path=Path("/lab/a,b/seed.iso"), format="raw", read_only=True),
        ),
        "serial": Path("/lab/consoles/one.log"),
        "nics": (Nic(mac="52:54:00:00:00:01", tap="tap0"),),
    }
    return MachineSpec(**{**values, **changes})  # type: ignore[arg-type]


def _values(argv: list[str], option: str) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == option]


def test_emulation_gets_every_feature_and_kvm_the_hosts_processor() -> None:
    assert _values(build_argv(_spec(), EMULATION), "-cpu") == ["max,-erms"]
    assert _values(build_argv(_spec(), "kvm"), "-cpu") == ["host"]


def test_the_seed_is_the_second_disk_and_read_only() -> None:
    first, second = _values(build_argv(_spec(), EMULATION), "-drive")
    assert "file=/lab/machines/one/disk.qcow2" in first
    assert "readonly" not in first
    assert second == "if=none,id=disk1,format=raw,file=/lab/a,,b/seed.iso,readonly=on"


def test_the_console_log_grows_over_restarts() -> None:
    assert _values(build_argv(_spec(), EMULATION), "-chardev") == [
        "file,id=console,path=/lab/consoles/one.log,append=on"
    ]


def test_a_card_without_a_tap_reaches_nothing() -> None:
    nic = Nic(mac="52:54:00:00:00:01", forwards=((2222, 22),))
    (net,) = _values(build_argv(_spec(nics=(nic,)), EMULATION), "-netdev")
    assert net == "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22"


def test_uefi_brings_its_own_variables() -> None:
    drives = _values(build_argv(_spec(firmware=Firmware.UEFI), EMULATION), "-drive")
    assert drives[0].endswith("OVMF_CODE_4M.fd")
    assert "readonly=on" in drives[0]
    assert drives[1] == "if=pflash,format=raw,file=one.vars.fd"


def test_clock_smbios_and_more_are_handed_on() -> None:
    spec = _spec(
        rtc_base="1970-01-02T00:00:00", smbios=("type=1,serial=ds=nocloud",), extra=("-S",), no_reboot=True
    )
    argv = build_argv(spec, EMULATION)
    assert _values(argv, "-rtc") == ["base=1970-01-02T00:00:00"]
    assert _values(argv, "-smbios") == ["type=1,serial=ds=nocloud"]
    assert "-S" in argv
    assert "-no-reboot" in argv


@pytest.mark.parametrize(
    ("roles", "mib"),
    [
        ((Role.ETCD,), 768),
        ((Role.MASTER,), 2048),
        ((Role.WORKER,), 1536),
        ((Role.LB,), 512),
        ((Role.BASE,), 512),
        ((Role.ETCD, Role.MASTER), 2560),
        ((Role.ETCD, Role.MASTER, Role.WORKER), 3072),
    ],
)
def test_memory_follows_the_roles(roles: tuple[Role, ...], mib: int) -> None:
    assert choose_memory(roles) == mib


def test_in_emulation_only_a_master_has_two_processors() -> None:
    assert choose_cpus((Role.ETCD,), EMULATION) == choose_cpus((Role.WORKER,), EMULATION) == 1
    assert choose_cpus((Role.MASTER,), EMULATION) == 2
    assert choose_cpus((Role.ETCD,), "kvm") == 2
