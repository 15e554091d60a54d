"""systemd over the units of the daemons: correct, ordered without a cycle, and little exposed."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from imagegen.model.cluster import Role
from imagegen.plan.items import Binary, File, Item, Unit, UnitState
from tests.judges.tools import Tool, Unavailable, unpack_package
from tests.kubernetes.clusters import MINORS, make_cluster
from tests.plan.components.daemons import ALL_IN_ONE, plan_items
from tests.plan.layouts import list_items, plan_layout
from tests.plan.plans import make_plan, try_plan, write_cluster

pytestmark = pytest.mark.judge

#: 0 is unreachable, 10 is a daemon without any sandbox
EXPOSURE_LIMIT = 4.0
WAIVERS = yaml.safe_load(Path(__file__).with_name("waivers.yaml").read_text())["exposure"]
SINGLE = ((Role.ETCD,), (Role.MASTER,), (Role.WORKER,))


@pytest.fixture(scope="session", name="system")
def _system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the units that systemd itself brings."""
    root = tmp_path_factory.mktemp("system")
    shutil.copytree("/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    (root / "lib").symlink_to("usr/lib")
    return root


def install(root: Path, items: Iterable[Item]) -> list[str]:
    """Write our units, and an executable in the place of every program they start; the units' names."""
    names: list[str] = []
    folder = root / "etc/systemd/system"
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        if isinstance(item, Unit) and item.content is not None:
            names.append(item.name)
            path = folder / item.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(item.content)
            for line in item.content.splitlines():
                if line.startswith(("ExecStart", "ExecReload", "ExecStop")):
                    _make_executable(root, line.partition("=")[2].lstrip("@-:+!").split()[0])
        elif isinstance(item, Binary):
            _make_executable(root, item.path)
    return names


def _make_executable(root: Path, program: str) -> None:
    path = root / program.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)


def copy_system(system: Path, target: Path) -> Path:
    shutil.copytree(system, target, symlinks=True)
    return target


@pytest.mark.parametrize("minor", MINORS)
def test_systemd_finds_nothing_in_the_units(
    tmp_path: Path, system: Path, systemd_analyze: Tool, minor: str
) -> None:
    cluster, _ = make_cluster(tmp_path, minor)
    for number, sets in enumerate((SINGLE, (ALL_IN_ONE,))):
        root = copy_system(system, tmp_path / f"root-{number}")
        names = install(root, (item for roles in sets for item in plan_items(cluster, roles)))
        assert {"etcd.service", "kube-apiserver.service", "kubelet.service"} <= set(names)
        done = systemd_analyze.run("verify", f"--root={root}", "--man=no", *names)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("layout", ["static-pods", "kubeadm"])
@pytest.mark.parametrize("minor", ["1.20", MINORS[-1]])
def test_systemd_finds_nothing_where_the_control_plane_is_pods(
    tmp_path: Path, system: Path, systemd_analyze: Tool, minor: str, layout: str
) -> None:
    """Every unit of ours on such a machine, with those that wait for each other."""
    plan = plan_layout(tmp_path, minor, layout)
    for node in ("master-0", "both-0", "worker-0"):
        root = copy_system(system, tmp_path / node)
        names = install(root, list_items(plan, node))
        ours = [name for name in names if name.startswith(("imagegen-", "kube", "containerd", "csr-"))]
        assert "kubelet.service" in ours
        done = systemd_analyze.run("verify", f"--root={root}", "--man=no", *ours)
        # cloud-init and chrony are not on this machine
        said = [line for line in done.stderr.splitlines() if "cloud-" not in line and "chrony" not in line]
        assert said == []


def test_a_wrong_directive_is_a_finding(tmp_path: Path, system: Path, systemd_analyze: Tool) -> None:
    """The judge is awake: the same call complains about one misspelt directive."""
    cluster, _ = make_cluster(tmp_path)
    root = copy_system(system, tmp_path / "root")
    install(root, plan_items(cluster, (Role.ETCD,)))
    unit = root / "etc/systemd/system/etcd.service"
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHomes="))
    done = systemd_analyze.run("verify", f"--root={root}", "--man=no", "etcd.service")
    assert "ProtectHomes" in done.stderr


@pytest.mark.parametrize("roles", [*SINGLE, ALL_IN_ONE], ids="+".join)
def test_daemons_are_little_exposed(
    tmp_path: Path, system: Path, systemd_analyze: Tool, roles: tuple[Role, ...]
) -> None:
    cluster, _ = make_cluster(tmp_path)
    root = copy_system(system, tmp_path / "root")
    names = [n for n in install(root, plan_items(cluster, roles)) if n.endswith(".service")]
    limit = f"--threshold={EXPOSURE_LIMIT * 10:.0f}"
    for name in names:
        done = systemd_analyze.run("security", "--offline=true", f"--root={root}", "--no-pager", limit, name)
        assert f"Overall exposure level for {name}" in done.stdout
        assert (done.returncode == 0) != (name in WAIVERS), done.stdout.splitlines()[-1]


NODES = (
    "{name: one, roles: [etcd, master, worker], address: 10.240.0.10}",
    "{name: lb, roles: [lb], address: 10.240.0.5}",
    "{name: worker-0, roles: [worker], address: 10.240.0.21}",
)


def verify_boot(systemd_analyze: Tool, root: Path, items: tuple[Item, ...]) -> str:
    """What systemd says about the whole boot of a machine with these items."""
    names = install(root, items)
    units = root / "etc/systemd/system"
    for item in items:
        if not (isinstance(item, Unit) and item.state is UnitState.ENABLED and item.name in names):
            continue
        targets = re.findall(r"(?m)^WantedBy=(.+)$", (units / item.name).read_text())
        for target in " ".join(targets).split() or ["multi-user.target"]:
            wants = units / f"{target}.wants"
            wants.mkdir(exist_ok=True)
            (wants / item.name).symlink_to(f"../{item.name}")
    # as cloud-init's own generator does
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/cloud-init.target").symlink_to("/lib/systemd/system/cloud-init.target")
    return systemd_analyze.run("verify", f"--root={root}", "--man=no", "multi-user.target").stderr


@pytest.mark.parametrize(
    ("cloud_init", "layout"),
    [
        ("cloud_init_bookworm", "systemd"),
        ("cloud_init_sid", "systemd"),
        ("cloud_init_sid", "static-pods"),
        ("cloud_init_sid", "kubeadm"),
    ],
)
def test_no_order_of_boot_is_a_cycle(
    tmp_path: Path,
    system: Path,
    systemd_analyze: Tool,
    request: pytest.FixtureRequest,
    cloud_init: str,
    layout: str,
) -> None:
    """Everything that a node starts, beside the real units of two generations of cloud-init."""
    tool: Tool = request.getfixturevalue(cloud_init)
    for role_plan in make_plan(
        write_cluster(tmp_path, NODES, version=f"1.36.4, layout: {layout}")
    ).role_plans:
        root = copy_system(system, tmp_path / role_plan.name)
        install_cloud_init(root, tool)
        assert "cycle" not in verify_boot(systemd_analyze, root, role_plan.items)


CHOICES = {
    "lb-dns": ("1.36.4", "cni: flannel-etcd, node_dns: lb", "addons: [metrics-server]\n"),
    "docker": ("1.20.2", "cni: flannel-etcd", "runtime: docker\n"),
}
#: what these choices start, by the set of roles that starts it
THEIRS = {"flanneld.service": 3.0, "coredns.service": 2.0, "imagegen-flannel-network.service": 2.0}


def install_docker(root: Path) -> None:
    """The units of Debian's package, and programs in the places of its own."""
    try:
        package = unpack_package("trixie", "docker.io")
    except Unavailable as error:
        pytest.skip(str(error))
    for unit in (package / "usr/lib/systemd/system").glob("docker.*"):
        shutil.copy(unit, root / "usr/lib/systemd/system" / unit.name)
    containerd = root / "usr/lib/systemd/system/containerd.service"
    containerd.write_text("[Service]\nExecStart=/usr/bin/containerd\n")
    for program in ("usr/bin/containerd", "usr/sbin/dockerd", "usr/sbin/iptables"):
        _make_executable(root, program)


@pytest.mark.parametrize("choice", CHOICES)
def test_units_of_choices_fit_into_the_boot(
    tmp_path: Path, system: Path, systemd_analyze: Tool, cloud_init_sid: Tool, choice: str
) -> None:
    """No cycle, no complaint about a unit of ours, and the daemons are little exposed."""
    version, network, more = CHOICES[choice]
    plan, report = try_plan(write_cluster(tmp_path, NODES, version=version, network=network, more=more))
    assert plan is not None, report.render_text()
    for role_plan in plan.role_plans:
        root = copy_system(system, tmp_path / role_plan.name)
        install_cloud_init(root, cloud_init_sid)
        install_docker(root)
        for item in role_plan.items:
            if isinstance(item, File) and item.path.startswith("/etc/systemd/system/"):
                path = root / item.path.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(item.content[0]))
        said = verify_boot(systemd_analyze, root, role_plan.items)
        assert "cycle" not in said
        names = [item.name for item in role_plan.items if isinstance(item, Unit)]
        names += ["docker.service"] if choice == "docker" and Role.WORKER in role_plan.roles else []
        assert [line for line in said.splitlines() if any(name in line for name in {*names, *THEIRS})] == []
        for name in THEIRS.keys() & set(names):
            limit = f"--threshold={THEIRS[name] * 10:.0f}"
            argv = ("security", "--offline=true", f"--root={root}", "--no-pager", limit, name)
            done = systemd_analyze.run(*argv)
            assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_a_cycle_is_seen(
    tmp_path: Path, system: Path, systemd_analyze: Tool, cloud_init_bookworm: Tool
) -> None:
    """The well-known trap: cloud-init.target comes after multi-user.target, which wants the unit."""
    root = copy_system(system, tmp_path / "root")
    install_cloud_init(root, cloud_init_bookworm)
    cluster, _ = make_cluster(tmp_path)
    items = tuple(
        dataclasses.replace(item, content=item.content.replace("cloud-config.target", "cloud-init.target"))
        if isinstance(item, Unit) and item.content is not None
        else item
        for item in plan_items(cluster, (Role.ETCD,))
    )
    assert "cycle" in verify_boot(systemd_analyze, root, items)


def install_cloud_init(root: Path, tool: Tool) -> None:
    assert tool.root is not None
    found = [path for path in tool.root.rglob("systemd/system/cloud-*") if path.is_file()]
    assert {"cloud-config.service", "cloud-config.target"} <= {path.name for path in found}
    for path in found:
        shutil.copy(path, root / "usr/lib/systemd/system" / path.name)
    wants = root / "etc/systemd/system/cloud-init.target.wants"
    wants.mkdir(parents=True)
    for path in found:
        if path.suffix == ".service" and "hotplug" not in path.name:
            (wants / path.name).symlink_to(f"/usr/lib/systemd/system/{path.name}")
    wants = root / "etc/systemd/system/multi-user.target.wants"
    (root / "usr/lib/systemd/system/multi-user.target.wants").mkdir(exist_ok=True)
    (root / "usr/lib/systemd/system/multi-user.target.wants/cloud-init.target").symlink_to(
        "../cloud-init.target"
    )
