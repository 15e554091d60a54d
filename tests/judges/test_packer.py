"""Packer itself, old and current, over the builds of every operating system, set of roles and builder;
hcl2json as a third reader; and the installers' own checkers over what they will read.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from imagegen.backends.packer.folder import BUILDERS, HCL_OF, lower_packer
from imagegen.backends.packer.seeds import lower_seeds
from imagegen.backends.packer.systems import SYSTEMS, Installer
from imagegen.backends.packer.versions import PackerStyle
from imagegen.model.cluster import OperatingSystem
from imagegen.plan.plan import Plan
from imagegen.resources import find_resource
from tests.conftest import require_judge
from tests.judges.conftest import skip_unless
from tests.judges.packers import Packer, acquire_hcl2json
from tests.judges.tools import CACHE, Unavailable
from tests.plan.plans import try_plan

pytestmark = pytest.mark.judge

CLUSTER = """\
version: 1
name: judged
kubernetes: {version: 1.36.4}
network: {nodes: 10.240.0.0/16}
image: {os: %s}
targets: [qemu, virtualbox, vmware, gce]
nodes:
  - {name: a, roles: [etcd], address: 10.240.0.10}
  - {name: b, roles: [master], address: 10.240.0.11}
  - {name: c, roles: [worker], address: 10.240.0.12}
  - {name: d, roles: [lb], address: 10.240.0.13}
  - {name: e, roles: [base], address: 10.240.0.14}
  - {name: f, roles: [master, worker], address: 10.240.0.15}
"""
ROLES = ("etcd", "master", "worker", "lb", "base", "master+worker")
SUM = "sha256:" + "1" * 64
#: one system for each installer
FIRSTS = list({system.installer: name for name, system in SYSTEMS.items()}.values())
ALL_BUILDERS = [builder for builders in BUILDERS.values() for builder in builders]
DOCS = Path(__file__).resolve().parents[2] / "docs"
#: what docs/packer.md says about choosing builds, and what it comes to
PATTERNS = {
    ("only", "worker.*"): ALL_BUILDERS,
    ("only", "*.qemu.*"): ["qemu.cloud", "qemu.installer"],
    ("only", "*.vmware-*.*"): ["vmware-iso.installer", "vmware-vmx.machine"],
    ("only", "*.qemu.cloud"): ["qemu.cloud"],
    ("except", "*.installer"): [name for name in ALL_BUILDERS if not name.endswith(".installer")],
}


@functools.cache
def plan_for(system: OperatingSystem) -> Plan:
    """The plan of one system."""
    text = CLUSTER % system.value
    if system is OperatingSystem.ORACLELINUX_7:  # cgroup v1
        text = text.replace("1.36.4", "1.28.15")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{system.value}.yaml")
        path.write_text(text)
        plan, report = try_plan(path)
    assert plan is not None, report.render_text()
    return plan


def write_build(plan: Plan, roles: str, style: PackerStyle, folder: Path) -> Path:
    """The folder of one build as `render` and `new-key.sh` leave it."""
    role_plan = next(one for one in plan.role_plans if one.name == roles)
    for path, body in lower_packer(plan, role_plan, {}, style).files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
    for name in ("base.vmx", "base.ova"):
        (folder / name).touch()
    subprocess.run(["sh", folder / "new-key.sh"], check=True, capture_output=True)
    return folder


def variables(folder: Path) -> list[str]:
    values = {
        # where the distributions publish their sums cannot be asked here
        "base_checksum": SUM,
        "iso_checksum": SUM,
        "gce_project": "a-project",
        "machine": str(folder / "base.vmx"),
        "appliance": str(folder / "base.ova"),
        "appliance_checksum": SUM,
    }
    return [word for name, value in values.items() for word in ("-var", f"{name}={value}")]


def check_build(packer: Packer, system: OperatingSystem, roles: str, folder: Path) -> None:
    """Formatted, valid for all seven builders, and read as what it is."""
    write_build(plan_for(system), roles, packer.style, folder)
    done = packer.run("fmt", "-check", "-diff", ".", cwd=folder)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    # Compute Engine has no image of it any more
    without = ["-except=*.googlecompute.*"] if system is OperatingSystem.ORACLELINUX_7 else []
    done = packer.run("validate", *variables(folder), *without, ".", cwd=folder)
    assert done.returncode == 0, f"{roles}: {done.stdout}{done.stderr}"
    assert "Warning" not in done.stdout + done.stderr, done.stdout + done.stderr
    done = packer.run("inspect", ".", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"> {roles}:" in done.stdout
    for word in (*ALL_BUILDERS, "artifice.compress", "compress", "checksum", "manifest"):
        assert word in done.stdout.split(), done.stdout


@pytest.mark.long
@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("system", list(OperatingSystem))
def test_every_build_is_valid(packer: Packer, system: OperatingSystem, roles: str, tmp_path: Path) -> None:
    """Every set of roles, by every builder, of every operating system."""
    check_build(packer, system, roles, tmp_path / "build")


@pytest.mark.parametrize(("system", "roles"), list(zip(OperatingSystem, ROLES, strict=True)))
def test_every_system_and_every_set_of_roles_is_valid(
    packer: Packer, system: OperatingSystem, roles: str, tmp_path: Path
) -> None:
    """Each once, with every builder: what is the same whichever of the others it meets."""
    if packer.style is PackerStyle.CURRENT and system not in FIRSTS:
        pytest.skip("a process of the current Packer takes seconds; the long half judges all combinations")
    check_build(packer, system, roles, tmp_path / "build")


def test_the_hand_written_files_are_formatted(packer: Packer) -> None:
    folder = find_resource("packer")
    done = packer.run("fmt", "-check", "-diff", ".", cwd=folder)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_misspelt_attribute_would_be_found(packer: Packer, tmp_path: Path) -> None:
    folder = write_build(plan_for(OperatingSystem.DEBIAN_13), "worker", packer.style, tmp_path / "x")
    hcl = folder / "qemu.pkr.hcl"
    hcl.write_text(hcl.read_text().replace("disk_compression", "disk_compresion"))
    done = packer.run("validate", *variables(folder), "-only=*.qemu.cloud", ".", cwd=folder)
    assert done.returncode != 0
    assert "disk_compresion" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["base_checksum", "iso_checksum", "appliance_checksum"])
def test_a_missing_checksum_is_refused(packer: Packer, name: str, tmp_path: Path) -> None:
    folder = write_build(plan_for(OperatingSystem.DEBIAN_13), "worker", packer.style, tmp_path / "x")
    values = ["", "none", "sha256:", "md5:" + "1" * 32, "sha256:" + "1" * 63, "http://x/y"]
    # a process of the current Packer takes seconds; the old one has judged all of them
    for value in values if packer.style is PackerStyle.COMPAT else values[:1]:
        done = packer.run("validate", *variables(folder), "-var", f"{name}={value}", ".", cwd=folder)
        assert done.returncode != 0
        # words are wrapped
        assert re.search(r"must\s+be\s+sha256:", done.stdout + done.stderr), done.stdout + done.stderr


def check_choice(packer: Packer, patterns: Iterable[tuple[str, str]], folder: Path) -> None:
    """Builders that are not chosen are not looked at: only the others miss the key that new-key.sh makes."""
    write_build(plan_for(OperatingSystem.DEBIAN_13), "worker", packer.style, folder)
    shutil.rmtree(folder / "work")
    for option, pattern in patterns:
        done = packer.run("validate", *variables(folder), f"-{option}={pattern}", ".", cwd=folder)
        said = done.stdout + done.stderr
        missed = set(re.findall(r"on (\S+\.pkr\.hcl) line (\d+)", said))
        chosen = PATTERNS.get((option, pattern), [])
        assert len(missed) == len(chosen), f"{pattern}: {said}"
        files = {HCL_OF[target] for target, names in BUILDERS.items() if set(names) & set(chosen)}
        assert {name for name, _ in missed} == files


@pytest.mark.long
def test_every_documented_way_to_choose(packer: Packer, tmp_path: Path) -> None:
    documented = re.findall(r"`-(only|except)='([^']+)'`", (DOCS / "packer.md").read_text())
    assert set(documented) == set(PATTERNS)
    check_choice(packer, PATTERNS, tmp_path / "x")


@pytest.mark.parametrize("pattern", ["*.vmware-*.*", "etcd.*"])
def test_only_by_role_and_by_target(packer: Packer, pattern: str, tmp_path: Path) -> None:
    check_choice(packer, [("only", pattern)], tmp_path / "x")


@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("style", list(PackerStyle))
def test_two_more_readers(style: PackerStyle, roles: str, tmp_path: Path) -> None:
    """hcl2json, by the makers' own library, and python-hcl2 see the same blocks; systems differ in values."""
    import hcl2

    try:
        program = acquire_hcl2json()
    except Unavailable as reason:
        skip_unless(reason)
    folder = write_build(plan_for(OperatingSystem.DEBIAN_13), roles, style, tmp_path / "x")
    for system in OperatingSystem:
        role_plan = next(one for one in plan_for(system).role_plans if one.name == roles)
        files = lower_packer(plan_for(system), role_plan, {}, style).files
        hcl = {path: body for path, body in files.items() if path.endswith(".hcl")}
        assert hcl == {path.name: path.read_bytes() for path in folder.glob("*.pkr.hcl")}
    paths = sorted(folder.glob("*.pkr.hcl"))
    assert len(paths) == (6 if style is PackerStyle.COMPAT else 7)
    for path in paths:
        done = subprocess.run([program, path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with path.open() as stream:
            other = hcl2.load(stream)
        assert set(json.loads(done.stdout)) <= set(other)
    build = json.loads(subprocess.run([program, folder / "build.pkr.hcl"], capture_output=True).stdout)[
        "build"
    ][0]
    assert build["name"] == roles
    assert build["sources"] == [f"source.{builder}" for builder in ALL_BUILDERS]


def seeds_of(installer: Installer) -> Iterator[tuple[str, dict[str, bytes]]]:
    for name, system in SYSTEMS.items():
        if system.installer is installer:
            yield name.value, lower_seeds(system, name, "ops")


def test_preseeds(tmp_path: Path) -> None:
    """debconf's own checker; its complaint about a broken line shows that it reads."""
    if shutil.which("debconf-set-selections") is None:
        pytest.skip("debconf-set-selections is not installed")
    for name, files in seeds_of(Installer.PRESEED):
        text = files["seeds/installer/preseed.cfg"].decode()
        path = tmp_path / f"{name}.cfg"
        path.write_text(text)
        done = subprocess.run(["debconf-set-selections", "-c", path], capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        path.write_text(text + "d-i broken\n")
        done = subprocess.run(["debconf-set-selections", "-c", path], capture_output=True, text=True)
        assert done.returncode != 0


def test_kickstarts(tmp_path: Path) -> None:
    pytest.importorskip("pykickstart", reason="pykickstart is not installed")
    versions = {"oraclelinux-7": "RHEL7", "oraclelinux-9": "RHEL9"}
    for name, files in seeds_of(Installer.KICKSTART):
        path = tmp_path / f"{name}.cfg"
        path.write_bytes(files["seeds/installer/ks.cfg"])
        argv = [Path(sys.executable).with_name("ksvalidator"), "-e", "-v", versions[name], path]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        path.write_text(path.read_text().replace("rootpw --lock", "rootpw --no-such-option"))
        assert subprocess.run(argv, capture_output=True).returncode != 0


def test_autoinstalls() -> None:
    """The installer's own JSON schema, which no package brings: put it there to have it judge."""
    path = CACHE / "subiquity" / "autoinstall-schema.json"
    if not path.exists():
        skip_unless(
            Unavailable(f"no {path}; it is autoinstall-schema.json in the source of canonical/subiquity")
        )
    schema = json.loads(path.read_text())
    for _, files in seeds_of(Installer.AUTOINSTALL):
        text = files["seeds/installer/user-data"].decode()
        assert text.startswith("#cloud-config\n")
        document = yaml.safe_load(text)
        jsonschema.validate(document["autoinstall"], schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document["autoinstall"] | {"version": "one"}, schema)


@pytest.mark.parametrize("judge", ["cloud_init_bookworm", "cloud_init_sid"])
def test_cidata(judge: str, tmp_path: Path) -> None:
    tool = require_judge(judge)
    system = SYSTEMS[OperatingSystem.DEBIAN_13]
    body = lower_seeds(system, OperatingSystem.DEBIAN_13, "ops")["seeds/cidata/user-data"]
    path = tmp_path / "user-data"
    path.write_bytes(body)
    done = tool.run("schema", "--config-file", path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
