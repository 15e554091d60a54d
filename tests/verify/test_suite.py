"""A root made from the plan passes every check, and whatever is broken in it is told by the right check."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from imagegen.backends.image.hygiene import HYGIENE, Action
from imagegen.backends.image.payload import Payload, plan_payload, write_payload
from imagegen.diagnostics import Report
from imagegen.errors import ImagegenError
from imagegen.model.load import load_cluster
from imagegen.plan.build import build_plan
from imagegen.plan.items import Binary, Group, Item, Origin, Phase, Sysctl, Unit, UnitState, User
from imagegen.plan.plan import RolePlan
from imagegen.plan.profiles import load_profiles
from imagegen.resources import find_resource
from imagegen.verify.roots import Root
from imagegen.verify.suite import list_checks, run_checks

PROGRAM = b"\x7fELF made up"
#: what packages bring and the plan only switches
UNIT = "[Unit]\n\n[Service]\nExecStart=/bin/true\n\n[Install]\nWantedBy=multi-user.target\n"

pytestmark = pytest.mark.process


def plan_role(name: str) -> RolePlan:
    report = Report()
    cluster = load_cluster(find_resource("examples", "quickstart", "cluster.yaml"), report)
    assert cluster is not None
    plan = build_plan(cluster, load_profiles((), report), report)
    assert plan is not None, report.render_text()
    return next(role_plan for role_plan in plan.role_plans if role_plan.name == name)


def make_root(role_plan: RolePlan, folder: Path) -> Path:
    """A root like the image builder's, but with made-up programs and packages."""
    payload, tree = plan_payload(role_plan.items), folder / "tree"
    tree.mkdir()
    program = folder / "program"
    program.write_bytes(PROGRAM)
    write_payload(payload, lambda source: program, folder / "payload.tar", epoch=1_767_225_600)
    with tarfile.open(folder / "payload.tar") as archive:
        archive.extraction_filter = lambda info, path: info
        for info in archive.getmembers():
            info.uid, info.gid, info.uname, info.gname = os.geteuid(), os.getegid(), "", ""
        archive.extractall(tree)
    for path, text in _list_databases(role_plan.items, payload).items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    _switch_units(role_plan.items, tree)
    return tree


def _list_databases(items: tuple[Item, ...], payload: Payload) -> Mapping[str, str]:
    users = [item for item in items if isinstance(item, User)]
    groups = [item for item in items if isinstance(item, Group)]
    names = [
        "root",
        "daemon",
        *dict.fromkeys([group.name for group in groups] + [user.group for user in users]),
    ]
    members = {name: ",".join(user.name for user in users if name in user.groups) for name in names}
    rows = [f"{u.name}:x:{800 + n}:{names.index(u.group)}::{u.home}:{u.shell}\n" for n, u in enumerate(users)]
    status = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"
    return {
        "etc/machine-id": "",
        "etc/passwd": "root:x:0:0::/root:/bin/sh\n" + "".join(rows),
        "etc/group": "".join(f"{name}:x:{number}:{members[name]}\n" for number, name in enumerate(names)),
        "etc/shadow": "root:!:20000:0:99999:7:::\n" + "".join(f"{u.name}:!*:20000::::::\n" for u in users),
        "var/lib/dpkg/status": "".join(status.format(name) for name in payload.packages),
    }


def _switch_units(items: tuple[Item, ...], tree: Path) -> None:
    units = [item for item in items if isinstance(item, Unit) and item.phase is Phase.BAKE]
    folder = tree / "usr/lib/systemd/system"
    folder.mkdir(parents=True, exist_ok=True)
    for unit in units:
        if unit.content is None:
            (folder / unit.name).write_text(UNIT)
    for action, state in (("enable", UnitState.ENABLED), ("mask", UnitState.MASKED)):
        names = [unit.name for unit in units if unit.state is state]
        if names:
            subprocess.run(["systemctl", f"--root={tree}", "--quiet", action, *names], check=True)


@pytest.fixture(scope="session", params=["worker", "master", "etcd"])
def every_root(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RolePlan, Path]:
    role_plan = plan_role(request.param)
    return role_plan, make_root(role_plan, tmp_path_factory.mktemp("every"))


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[RolePlan, Path]:
    role_plan = plan_role("worker")
    return role_plan, make_root(role_plan, tmp_path_factory.mktemp("pristine"))


def failures(
    role_plan: RolePlan, tree: Path, digests: Mapping[str, str] | None = None, *, owners: bool = False
) -> dict[str, str]:
    payload = plan_payload(role_plan.items)
    checks = list_checks(role_plan.items, payload, digests or {}, owners=owners)
    return {answer.name: answer.problem for answer in run_checks(checks, Root(tree)) if not answer.passed}


def test_a_root_made_from_the_plan_passes(every_root: tuple[RolePlan, Path]) -> None:
    role_plan, tree = every_root
    assert failures(role_plan, tree) == {}
    checks = list(list_checks(role_plan.items, plan_payload(role_plan.items), {}, owners=False))
    assert len(checks) > 100
    assert len({check.name for check in checks}) == len(checks)
    assert sum(check.name.startswith("hygiene") for check in checks) >= 25


def _append(path: str, text: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        with open(tree / path, "a") as handle:
            handle.write(text)

    return change


def _replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        text = (tree / path).read_text()
        assert old in text
        (tree / path).write_text(text.replace(old, new))

    return change


def _remove(path: str) -> Callable[[Path], None]:
    return lambda tree: (tree / path).unlink()


def _link(path: str, target: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        (tree / path).unlink(missing_ok=True)
        (tree / path).symlink_to(target)

    return change


_KUBELET = "etc/systemd/system/kubelet.service"
_SYSCTLS = "etc/sysctl.d/90-imagegen.conf"
MUTATIONS: tuple[tuple[str, Callable[[Path], object], str], ...] = (
    ("content", _append(_KUBELET, "#"), f"file /{_KUBELET}"),
    ("mode", lambda tree: (tree / _KUBELET).chmod(0o600), f"file /{_KUBELET}"),
    ("missing", _remove(_KUBELET), f"file /{_KUBELET}"),
    ("link instead of file", _link(_KUBELET, "/etc/passwd"), f"file /{_KUBELET}"),
    ("no program", _remove("usr/local/bin/kubelet"), "executable /usr/local/bin/kubelet"),
    (
        "not a program",
        lambda tree: (tree / "usr/local/bin/kubelet").write_bytes(b"#!"),
        "executable /usr/local/bin/kubelet",
    ),
    ("package", _replace("var/lib/dpkg/status", "Package: nftables\n", "Package: x\n"), "package nftables"),
    (
        "package removed",
        _replace("var/lib/dpkg/status", "install ok installed", "deinstall ok config-files"),
        "package nftables",
    ),
    ("module", _remove("etc/modules-load.d/90-imagegen.conf"), "module br_netfilter"),
    ("sysctl", _remove(_SYSCTLS), "sysctl net.ipv4.ip_forward"),
    (
        "sysctl overruled",
        _append("etc/sysctl.d/99-x.conf", "net.ipv4.ip_forward=0\n"),
        "sysctl net.ipv4.ip_forward",
    ),
    (
        "sysctl with slashes",
        _append("usr/lib/sysctl.d/99-x.conf", "net/ipv4/ip_forward = 0\n"),
        "sysctl net.ipv4.ip_forward",
    ),
    ("password", _replace("etc/shadow", "root:!:", "root:$y$j9T$x:"), "no account with a password"),
    ("empty password", _replace("etc/shadow", "root:!:", "root::"), "no account with a password"),
    ("no shadow", _remove("etc/shadow"), "no account with a password"),
)


@pytest.mark.parametrize(("change", "check"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
def test_what_is_broken_is_told(
    change: Callable[[Path], object], check: str, pristine: tuple[RolePlan, Path], tmp_path: Path
) -> None:
    role_plan, source = pristine
    tree = shutil.copytree(source, tmp_path / "tree", symlinks=True)
    change(tree)
    assert failures(role_plan, tree).get(check)


@pytest.mark.parametrize("state", [UnitState.ENABLED, UnitState.MASKED])
def test_units(state: UnitState, pristine: tuple[RolePlan, Path], tmp_path: Path) -> None:
    role_plan, source = pristine
    tree = shutil.copytree(source, tmp_path / "tree", symlinks=True)
    unit = next(
        i for i in role_plan.items if isinstance(i, Unit) and i.state is state and i.phase is Phase.BAKE
    )
    verb = "unmask" if state is UnitState.MASKED else "disable"
    subprocess.run(["systemctl", f"--root={tree}", "--quiet", verb, unit.name], check=True)
    assert failures(role_plan, tree)[f"unit {unit.name}"]


@pytest.mark.parametrize(
    "pattern", [p for rule in HYGIENE if rule.action is not Action.CREATE for p in rule.pattern.split()]
)
def test_leftovers(pattern: str, pristine: tuple[RolePlan, Path], tmp_path: Path) -> None:
    name = pattern.replace("[!.]*", "x").replace("*", "x")
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("left")
    (check,) = [name for name in failures(pristine[0], tmp_path) if name.startswith(f"hygiene /{pattern}:")]
    assert "because" in check


def test_machine_id_is_an_empty_file(pristine: tuple[RolePlan, Path], tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    names = {
        name: problem for name, problem in failures(pristine[0], tmp_path).items() if "machine-id: an" in name
    }
    assert list(names.values()) == ["there is no such file"]


def test_sums_of_programs(pristine: tuple[RolePlan, Path]) -> None:
    role_plan, tree = pristine
    path = next(item.path for item in role_plan.items if isinstance(item, Binary))
    assert list(failures(role_plan, tree, {path: "0" * 64})) == [f"executable {path}"]


def test_owners(pristine: tuple[RolePlan, Path], tmp_path: Path) -> None:
    role_plan, source = pristine
    tree = shutil.copytree(source, tmp_path / "tree", symlinks=True)
    for name in ("passwd", "group"):
        path = tree / "etc" / name
        me = os.geteuid() if name == "passwd" else os.getegid()
        path.write_text(f"other:x:{me}:{me}::/:/bin/sh\n{path.read_text()}")
    wrong = failures(role_plan, tree, owners=True)
    assert "got other:other" in wrong[f"file /{_KUBELET}"]


def test_users_and_groups() -> None:
    from imagegen.verify.accounts import check_group, check_user

    role_plan = plan_role("master")
    user = next(item for item in role_plan.items if isinstance(item, User))
    group = Group(phase=Phase.BAKE, origin=Origin("test"), name="x", gid=9)
    root = _Memory({"/etc/passwd": f"{user.name}:x:1:7::/home:/bin/sh\n", "/etc/group": "x:x:7:\n"})
    assert check_user(user, root).count("wanted") == 3
    assert check_group(group, root) == "wanted id 9, got 7"
    assert check_user(user, _Memory({})) == "there is no such user"


class _Memory(Root):
    """A root whose files are given."""

    def __init__(self, files: Mapping[str, str]) -> None:
        super().__init__(Path("/nonexistent"))
        object.__setattr__(self, "_files", files)

    def read(self, path: str) -> bytes:
        files: Mapping[str, str] = object.__getattribute__(self, "_files")
        return files.get(path, "").encode()


def test_links_never_lead_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "a").symlink_to("../../../outside")
    (tree / "etc" / "loop").symlink_to("loop")
    (tree / "lib").symlink_to("/usr/lib")
    (tmp_path / "outside").write_text("outside")
    root = Root(tree)
    assert root.read("/etc/a") == b""
    assert root.find("/lib/x") == tree / "usr" / "lib" / "x"
    with pytest.raises(ImagegenError, match="symbolic links"):
        root.read("/etc/loop")


def test_a_sysctl_that_is_set_nowhere(tmp_path: Path) -> None:
    from imagegen.verify.settings import check_sysctl

    sysctl = Sysctl(phase=Phase.BAKE, origin=Origin("test"), key="vm.x", value="1")
    assert check_sysctl(sysctl, Root(tmp_path)) == "set nowhere"
