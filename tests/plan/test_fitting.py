"""Oracle Linux gets what it knows: its package names, its Python, and units for its systemd 219."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagegen.cli.examples import example_file, list_examples
from imagegen.model.cluster import OperatingSystem
from imagegen.model.systems import SYSTEMS
from imagegen.plan.fitting import fit_items
from imagegen.plan.items import Directory, File, Item, Origin, Package, Phase, Unit
from imagegen.plan.oldunits import UNKNOWN, fit_unit
from imagegen.plan.plan import Plan
from tests.judges.seeds import NODES, TEXT
from tests.plan.plans import make_plan, try_plan


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: every directive of systemd 219-67 of RHEL 7 (load-fragment-gperf.gperf.m4) for units of our kinds
KNOWN_219 = words(
    """
    AmbientCapabilities BlockIOAccounting BlockIODeviceWeight BlockIOReadBandwidth BlockIOWeight
    BlockIOWriteBandwidth CPUAccounting CPUAffinity CPUQuota CPUSchedulingPolicy
    CPUSchedulingPriority CPUShares CapabilityBoundingSet Delegate DeviceAllow DevicePolicy
    Environment EnvironmentFile Group IOSchedulingClass IOSchedulingPriority IgnoreSIGPIPE
    InaccessibleDirectories KillMode KillSignal LimitAS LimitCORE LimitCPU LimitDATA LimitFSIZE
    LimitLOCKS LimitMEMLOCK LimitNICE LimitNOFILE LimitNPROC LimitRSS LimitSTACK MemoryAccounting
    MemoryLimit MountFlags Nice NoNewPrivileges OOMScoreAdjust PAMName PassEnvironment
    PrivateDevices PrivateNetwork PrivateTmp ProtectHome ProtectSystem ReadOnlyDirectories
    ReadWriteDirectories RestrictAddressFamilies RootDirectory RuntimeDirectory RuntimeDirectoryMode
    SELinuxContext SecureBits SendSIGHUP SendSIGKILL Slice StandardError StandardInput
    StandardOutput SupplementaryGroups SyslogIdentifier SystemCallArchitectures
    SystemCallErrorNumber SystemCallFilter TTYPath TasksAccounting TasksMax UMask User
    WorkingDirectory Alias Also RequiredBy WantedBy DirectoryNotEmpty MakeDirectory PathChanged
    PathExists PathExistsGlob PathModified Unit BusName ExecReload ExecStart ExecStartPost
    ExecStartPre ExecStop ExecStopPost FailureAction GuessMainPID NotifyAccess PIDFile
    PermissionsStartOnly RemainAfterExit Restart RestartForceExitStatus RestartPreventExitStatus
    RestartSec Sockets StartLimitAction StartLimitBurst StartLimitInterval SuccessExitStatus
    TimeoutSec TimeoutStartSec TimeoutStopSec Type WatchdogSec After AllowIsolate AssertPathExists
    Before BindsTo ConditionDirectoryNotEmpty ConditionFileIsExecutable ConditionFileNotEmpty
    ConditionFirstBoot ConditionKernelCommandLine ConditionPathExists ConditionPathExistsGlob
    ConditionPathIsDirectory ConditionPathIsMountPoint ConditionSecurity ConditionVirtualization
    Conflicts DefaultDependencies Description Documentation JobTimeoutSec JoinsNamespaceOf OnFailure
    PartOf PropagatesReloadTo RefuseManualStart RefuseManualStop ReloadPropagatedFrom Requires
    RequiresMountsFor Requisite StopWhenUnneeded Wants
    """
)
OL7 = SYSTEMS[OperatingSystem.ORACLELINUX_7]
ORIGIN = Origin("component test")


def list_items(folder: Path, system: str, version: str, mode: str) -> Iterator[Item]:
    path = folder / "cluster.yaml"
    path.write_text(TEXT.format(version=version, mode=mode, os=system, targets="[vmware]") + NODES)
    plan = make_plan(path)
    for role_plan in plan.role_plans:
        yield from role_plan.items
    for node_plan in plan.node_plans():
        yield from node_plan.items


@pytest.fixture(scope="module", params=["golden", "stock"])
def items(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    return list(list_items(tmp_path_factory.mktemp("ol7"), "oraclelinux-7", "1.20.2", request.param))


def directives(text: str) -> Iterator[tuple[str, str]]:
    goes_on = False
    for line in text.splitlines():
        if "=" in line and not goes_on:
            key, _, value = line.partition("=")
            yield key, value
        goes_on = line.endswith("\\")


def test_systemd_219_knows_every_directive(items: list[Item]) -> None:
    units = [item for item in items if isinstance(item, Unit) and item.content]
    assert len({unit.name for unit in units}) > 12
    assert not UNKNOWN & KNOWN_219
    for unit in units:
        pairs = list(directives(unit.content or ""))
        assert {key for key, _ in pairs} - KNOWN_219 == set(), unit.name
        values = dict(pairs)
        assert values.get("Type", "simple") in {"simple", "oneshot", "notify"}, unit.name
        assert not (values.get("Type") == "oneshot" and values.get("Restart", "no") != "no"), unit.name
        assert values.get("ProtectSystem", "full") in {"yes", "full"}, unit.name
        assert "@" not in values.get("SystemCallFilter", ""), unit.name
        assert values.get("TimeoutStartSec") != "infinity", unit.name


@pytest.mark.parametrize("name", [name for name in list_examples() if name.startswith("seed-")])
def test_units_of_examples_on_old_systems(name: str) -> None:
    plan = make_plan_of(name)
    if plan.cluster.image.os is not OperatingSystem.ORACLELINUX_7:
        assert name.endswith("-today")
        return
    for role_plan in plan.role_plans:
        for item in role_plan.items:
            if isinstance(item, Unit) and item.content:
                assert {key for key, _ in directives(item.content)} - KNOWN_219 == set(), item.name


def make_plan_of(name: str) -> Plan:
    plan, report = try_plan(example_file(name))
    assert plan is not None, report.render_text()
    return plan


def test_directories_that_systemd_does_not_make(items: list[Item]) -> None:
    made = {item.path: (item.mode, item.owner, item.group) for item in items if isinstance(item, Directory)}
    assert made["/var/lib/etcd"] == ("0700", "etcd", "etcd")
    assert made["/var/log/kubernetes"][0] == "0700"


def test_programs_have_a_python_that_is_new_enough(items: list[Item]) -> None:
    files = {item.path: item for item in items if isinstance(item, File)}
    first = {path: str(file.content[0]).partition("\n")[0] for path, file in files.items() if file.content}
    ours = [path for path, line in first.items() if "python3 -E" in line]
    assert ours
    assert {first[path].split()[0] for path in ours} == {f"#!{OL7.python}"}
    assert str(files[OL7.python].content[0]).endswith('/bin/python3 "$@"\n')
    packages = {item.name for item in items if isinstance(item, Package)}
    assert "rh-python38-python" in packages
    assert not packages & set(OL7.packages)


def test_what_users_name_stays_as_they_named_it() -> None:
    own = Origin("cluster.yaml", 3, "image.packages of the cluster file")
    item = Package(phase=Phase.BAKE, origin=own, name="python3-yaml")
    assert fit_items([item], OL7) == (item,)


def test_packages_of_oracle_linux_9(tmp_path: Path) -> None:
    packages = {
        item.name
        for item in list_items(tmp_path, "oraclelinux-9", "1.36.4", "stock")
        if isinstance(item, Package)
    }
    wanted = {"conntrack-tools", "procps-ng", "iproute", "util-linux", "python3-pyyaml"}
    assert packages >= wanted
    assert not packages & {"conntrack", "procps", "iproute2", "mount", "python3-yaml", "libpam-systemd"}


def test_golden_systems_stay_as_they_are() -> None:
    unit = Unit(phase=Phase.BAKE, origin=ORIGIN, name="a.service", content="[Service]\nMemoryMax=1M\n")
    for system in ("debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04"):
        (same,) = fit_items([unit], SYSTEMS[OperatingSystem(system)])
        assert same is unit


def test_a_unit_before_and_after() -> None:
    text = "\n".join(
        [
            "[Unit]",
            "Description=x",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "Type=oneshot",
            "ExecStart=/bin/a \\",
            "  --b=c \\",
            "  --d",
            "Restart=on-failure",
            "User=me",
            "StateDirectory=one two",
            "StateDirectoryMode=0700",
            "CPUWeight=200",
            "IOWeight=100",
            "SystemCallFilter=@system-service",
            "RestrictAddressFamilies=none",
            "ProtectClock=yes",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        ]
    )
    fitted, made = fit_unit(text)
    assert fitted.splitlines() == [
        "[Unit]",
        "Description=x",
        "",
        "[Service]",
        "Type=simple",
        "ExecStart=/bin/a \\",
        "  --b=c \\",
        "  --d",
        "Restart=on-failure",
        "User=me",
        "CPUShares=2048",
        "BlockIOWeight=500",
        "RestrictAddressFamilies=AF_UNIX",
        "StartLimitInterval=0",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    assert made == (("/var/lib/one", "0700", "me"), ("/var/lib/two", "0700", "me"))
