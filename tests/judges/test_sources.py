"""Where a golden image believes its configuration from: ds-identify and cloud-init's own sources decide.

ds-identify(8) runs in a made-up root that holds the plan's files and looks like a platform.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagegen.content import Content
from imagegen.diagnostics import Report
from imagegen.model.load import load_text
from imagegen.plan.build import build_plan
from imagegen.plan.items import File
from imagegen.plan.profiles import load_profiles
from tests.judges.tools import Tool, Unavailable, acquire_tool

CLUSTER = """\
version: 1
name: sources
kubernetes: {{version: 1.36.4}}
network: {{nodes: 10.240.0.0/24}}
image: {{pki: {pki}}}
targets: [{targets}]
nodes:
  - {{name: one, roles: [base], address: 10.240.0.10}}
"""

pytestmark = [pytest.mark.judge, pytest.mark.process]


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a machine shows: DMI, systemd's word for its hypervisor, discs, guestinfo, kernel arguments."""

    product: str = "Standard PC (Q35 + ICH9, 2009)"
    virtualization: str = "vm:qemu"
    #: (device, label) of ISO 9660 file systems
    discs: tuple[tuple[str, str], ...] = ()
    guestinfo: tuple[str, ...] = ()
    arguments: str = "root=UUID=1 ro quiet"


SEED = ("/dev/vdb", "cidata")
GCE = Platform(product="Google Compute Engine", virtualization="vm:google", discs=(SEED,))
VMWARE = Platform(product="VMware7,1", virtualization="vm:vmware")


@pytest.fixture(params=["cloud_init_bookworm", "cloud_init_sid"])
def cloud_init(request: pytest.FixtureRequest) -> Tool:
    try:
        return acquire_tool(request.param)
    except Unavailable as error:
        pytest.skip(str(error))


def _write_files(folder: Path, targets: str, pki: str = "seed") -> None:
    report = Report()
    cluster = load_text(CLUSTER.format(targets=targets, pki=pki), folder / "cluster.yaml", report)
    assert cluster is not None, report.render_text()
    plan = build_plan(cluster, load_profiles((), report), report)
    assert plan is not None, report.render_text()
    (role_plan,) = plan.role_plans
    for item in role_plan.items:
        if isinstance(item, File) and item.path.startswith("/etc/cloud/"):
            target = folder / item.path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_text(item.content))


def _text(content: Content) -> str:
    return "".join(part for part in content if isinstance(part, str))


def _make_root(cloud_init: Tool, folder: Path, platform: Platform) -> None:
    assert cloud_init.root is not None
    (folder / "etc/cloud").mkdir(parents=True, exist_ok=True)
    for name in ("etc/cloud/cloud.cfg", "etc/cloud/ds-identify.cfg"):
        if (cloud_init.root / name).exists():
            (folder / name).write_bytes((cloud_init.root / name).read_bytes())
    texts = {
        "proc/cmdline": f"BOOT_IMAGE=/vmlinuz {platform.arguments}\n",
        "proc/uptime": "5.0 5.0\n",
        "proc/1/cmdline": "/sbin/init",
        "proc/1/environ": "",
        "sys/class/dmi/id/product_name": platform.product,
        "sys/class/dmi/id/product_serial": "",
        "sys/class/dmi/id/product_uuid": "",
        "sys/class/dmi/id/sys_vendor": platform.product.split()[0],
        "sys/class/dmi/id/chassis_asset_tag": "",
        "run/systemd/x": "",
    }
    for path, text in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    discs = "".join(f"DEVNAME={device}\nLABEL={label}\nTYPE=iso9660\n\n" for device, label in platform.discs)
    variables = " ".join(f"*guestinfo.{name}*) echo '<?xml value' ;;" for name in platform.guestinfo)
    _write_program(folder, "blkid", f"cat <<'END'\n{discs}END")
    _write_program(folder, "vmware-rpctool", f'case "$*" in {variables} *) exit 1 ;; esac')
    _write_program(folder, "systemd-detect-virt", f"echo {platform.virtualization.partition(':')[2]}")


def _write_program(folder: Path, name: str, text: str) -> None:
    program = folder / "programs" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def _identify(cloud_init: Tool, folder: Path, platform: Platform) -> list[str]:
    """The sources that cloud-init will ask on this platform, in order; none when it stays off."""
    _make_root(cloud_init, folder, platform)
    assert cloud_init.root is not None
    done = subprocess.run(
        ["sh", str(cloud_init.root / "usr/lib/cloud-init/ds-identify"), "--force"],
        env={
            "PATH": f"{folder / 'programs'}:{os.environ['PATH']}",
            "PATH_ROOT": str(folder),
            "DI_LOG": "stderr",
            "SYSTEMD_VIRTUALIZATION": platform.virtualization,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 1 and "No ds found" in done.stderr:
        return []
    assert done.returncode == 0, done.stderr[-3000:]
    text = (folder / "run/cloud-init/cloud.cfg").read_text()
    listed = next(line for line in text.splitlines() if "datasource_list" in line)
    return [word.strip(" []") for word in listed.partition(":")[2].split(",")]


@pytest.mark.parametrize(
    ("targets", "platform", "wanted"),
    [
        pytest.param("qemu", Platform(discs=(SEED,)), ["NoCloud", "None"], id="qemu with a seed"),
        pytest.param("qemu", Platform(), ["NoCloud", "None"], id="qemu without a seed"),
        pytest.param(
            "virtualbox", Platform(discs=(("/dev/sr0", "cidata"),)), ["NoCloud", "None"], id="virtualbox"
        ),
        pytest.param("gce", GCE, ["GCE", "None"], id="gce ignores a stray seed"),
        pytest.param("vmware", VMWARE, [], id="vmware without anything"),
        pytest.param(
            "vmware",
            Platform(virtualization="vm:vmware", guestinfo=("metadata", "userdata")),
            ["VMware", "None"],
            id="vmware with guestinfo",
        ),
        pytest.param(
            "vmware",
            Platform(virtualization="vm:vmware", guestinfo=("ovfEnv",)),
            ["OVF", "None"],
            id="vmware with properties in guestinfo",
        ),
        pytest.param(
            "vmware",
            Platform(virtualization="vm:vmware", discs=(("/dev/sr0", "OVF ENV"),)),
            ["OVF", "None"],
            id="vmware with properties on a CD",
        ),
        pytest.param(
            "vmware",
            Platform(virtualization="vm:vmware", discs=(("/dev/sr0", "cidata"),)),
            ["NoCloud", "None"],
            id="vmware with a seed",
        ),
    ],
)
def test_a_platform_gets_the_source_of_its_target(
    cloud_init: Tool, tmp_path: Path, targets: str, platform: Platform, wanted: list[str]
) -> None:
    _write_files(tmp_path, targets)
    assert _identify(cloud_init, tmp_path, platform) == wanted


#: Reads the seed as cloud-init does on first boot, with a stray disk attached: prints id and user-data.
_READ = """
import sys
from cloudinit import util, sources
from cloudinit.helpers import Paths
from cloudinit.sources import DataSourceNoCloud as module

folder, stray, label = sys.argv[1:4]
configs = sorted(__import__("pathlib").Path(folder, "etc/cloud").glob("cloud.cfg.d/*.cfg"))
config = util.mergemanydict([util.load_yaml(path.read_text()) for path in reversed(configs)])
module.dmi.read_dmi_data = lambda name: None
module.util.get_cmdline = lambda: open(folder + "/proc/cmdline").read()
module.DataSourceNoCloud._get_devices = lambda self, wanted: ["/dev/stray"] if wanted == label else []
module.util.mount_cb = lambda device, callback, data: callback(stray, data)
paths = Paths({"cloud_dir": folder + "/var/lib/cloud", "run_dir": folder + "/run", "templates_dir": "/none"})
source = module.DataSourceNoCloud(config, None, paths)
print(source._get_data(), source.metadata.get("instance-id"), source.metadata.get("local-hostname"))
print(source.get_userdata_raw())
"""


def _read_seed(cloud_init: Tool, folder: Path, own: Path | None, arguments: str = "") -> str:
    """What cloud-init's NoCloud source takes where ``own`` is the seed and a stray disk is there."""
    _make_root(cloud_init, folder, Platform(arguments=arguments))
    stray = folder / "stray"
    _write_seed(stray, "intruder")
    if own is not None:
        _write_seed(own, "one")
    done = Tool(name="python", argv=cloud_init.argv[:1], env=cloud_init.env).run(
        "-c", _READ, folder, stray, "cidata", cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _write_seed(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    (folder / "user-data").write_text(f"#cloud-config\nhostname: {name}\n")
    (folder / "meta-data").write_text(f"instance-id: iid-{name}\nlocal-hostname: {name}\n")


def test_the_judge_is_awake_a_disk_wins_over_a_seed_in_an_ordinary_image(
    cloud_init: Tool, tmp_path: Path
) -> None:
    _write_files(tmp_path, "qemu")
    text = _read_seed(cloud_init, tmp_path, tmp_path / "var/lib/cloud/seed/nocloud")
    assert "intruder" in text


def test_a_disk_does_not_take_over_an_image_with_its_own_seed(cloud_init: Tool, tmp_path: Path) -> None:
    _write_files(tmp_path, "qemu", pki="baked")
    text = _read_seed(cloud_init, tmp_path, tmp_path / "var/lib/cloud/seed/nocloud")
    assert text.startswith("True iid-one one\n")
    assert "hostname: one" in text
    assert "intruder" not in text


def test_a_disk_does_not_take_over_an_iso_with_its_own_seed(cloud_init: Tool, tmp_path: Path) -> None:
    """The kernel's arguments of such an ISO, without the setting of ``image.pki: baked``."""
    _write_files(tmp_path, "qemu")
    medium = tmp_path / "medium/seed"
    arguments = f"boot=live ds=nocloud;i=iid-one;h=one;s=file://{medium}/"
    text = _read_seed(cloud_init, tmp_path, medium, arguments)
    assert text.startswith("True iid-one one\n")
    assert "hostname: one" in text
    assert "intruder" not in text
