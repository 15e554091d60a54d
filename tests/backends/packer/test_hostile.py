"""What a user may write, from profile to machine: every byte arrives, and nothing of it is run.

The install script and the hand-over scripts run on this machine, into a folder and with programs that write
down how they were called.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from imagegen.backends.cloudinit import CloudInit
from imagegen.backends.handover import lower_guestinfo, lower_handover
from imagegen.backends.output import OutputFolder
from imagegen.backends.packer.build import check_place
from imagegen.backends.packer.folder import lower_packer, write_packer
from imagegen.backends.packer.versions import PackerStyle
from imagegen.errors import UsageError
from imagegen.model.cluster import Target
from imagegen.plan.items import Directory, File, Symlink
from imagegen.plan.plan import Plan
from tests.backends.nodeplans import FakeStore, make_cluster
from tests.backends.packer.test_install_script import HOSTILE
from tests.plan.plans import make_plan, try_plan, write_cluster

#: one name each for what a layer could stumble over
NAMES = (
    "${var.name}",
    "%{ if true }x%{ endif }",
    "{{ 7*7 }}{% raw %}<%= 7*7 %>",
    "$(touch pwned)",
    "`touch pwned`",
    "'single' \"double\"",
    "-rf",
    "back\\slash\\n",
    "two  spaces ",
    "*?[a-z]~",
    "ü日本\U0001f600",
    "#not a comment",
    "a;b&c|d>e<f",
    "@SSH_PUBLIC_KEY@",
    "%m %% %s",
    "EOF",
)
BODIES = {
    "text": HOSTILE.encode(),
    "script": b'#!/bin/sh\necho "$@" ${x:-y} $(id) `id` {{ .Vars }} %{ x } <%= y %>\n',
    "windows": b"\xef\xbb\xbfone\r\ntwo\r\n",
    "no-newline": b"end",
    "here": b"<<EOF\nEOF\n<<'END'\nEND\n",
    "bytes": bytes(range(1, 256)),
    "blanks": b" \n\t\n\n \n",
    "empty": b"",
}
COMMENT = "${x} $(id) `id` {{y}} 'ü' 日本 <z>"
BASE = "{name: bare, roles: [base], address: 10.240.0.30}"


def write_profile(folder: Path, role: str = "base") -> Path:
    """A profile of a role with every name and every body."""
    folder.mkdir(exist_ok=True)
    files = [{"path": f"/etc/hostile/{name}", "content": f"{name}\n", "mode": "0640"} for name in NAMES]
    for name, body in BODIES.items():
        (folder / name).write_bytes(body)
        files.append({"path": f"/etc/bodies/{name}", "source": name, "mode": "0600"})
    profile = {
        "description": "what every layer could stumble over",
        "files": files,
        "directories": [{"path": f"/etc/folders/{name}", "mode": "0750"} for name in NAMES],
        "symlinks": [
            {"path": f"/etc/links/{place}", "target": f"/etc/hostile/{name}"}
            for place, name in enumerate(NAMES)
        ],
        "users": [{"name": "odd", "gecos": COMMENT}],
    }
    (folder / f"{role}.yaml").write_text(yaml.safe_dump(profile, allow_unicode=True), encoding="utf-8")
    return folder


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    found, report = try_plan(write_cluster(tmp_path, [BASE]), [write_profile(tmp_path / "profiles")])
    assert found is not None, report.render_text()
    return found


def wanted_bodies() -> dict[str, bytes]:
    bodies = {f"/etc/hostile/{name}": f"{name}\n".encode() for name in NAMES}
    return bodies | {f"/etc/bodies/{name}": body for name, body in BODIES.items()}


@pytest.mark.process
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to root")
def test_the_payload_puts_every_byte_in_place(plan: Plan, tmp_path: Path) -> None:
    (role_plan,) = plan.role_plans
    out, root = tmp_path / "out $(id)", tmp_path / "root"
    with OutputFolder(out, cluster="quickstart") as folder:
        write_packer(folder, plan, {}, PackerStyle.CURRENT)
        folder.commit(lambda path: False)
    place = out / "packer" / "base"
    root.mkdir()
    done = subprocess.run(
        ["sh", place / "payload" / "install.sh"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "IMAGEGEN_ROOT": str(root), "IMAGEGEN_PAYLOAD": f"{place}/payload"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for path, body in wanted_bodies().items():
        assert Path(f"{root}{path}").read_bytes() == body, path
    assert {path.name for path in (root / "etc/folders").iterdir()} == set(NAMES)
    assert [os.readlink(root / f"etc/links/{n}") for n in range(len(NAMES))] == [
        f"/etc/hostile/{name}" for name in NAMES
    ]
    assert not list(tmp_path.rglob("pwned"))
    # and that is all that the plan bakes, and what the tests in the machine look for
    baked = {i.path for i in role_plan.items if isinstance(i, File | Directory | Symlink)}
    expected = json.loads((place / "verify" / "expected.json").read_text(encoding="utf-8"))
    assert baked >= wanted_bodies().keys()
    assert {entry["path"] for entry in expected["entries"]} >= wanted_bodies().keys()


@pytest.mark.process
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-sysusers") is None,
    reason="needs root and systemd-sysusers",
)
def test_a_users_comment_is_as_it_was_written(plan: Plan, tmp_path: Path) -> None:
    (role_plan,) = plan.role_plans
    files = lower_packer(plan, role_plan, {}, PackerStyle.CURRENT).files
    (tmp_path / "root" / "etc").mkdir(parents=True)
    table = tmp_path / "sysusers.conf"
    table.write_bytes(files["payload/sysusers.conf"])
    done = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path / 'root'}", table], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(":") for line in (tmp_path / "root/etc/passwd").read_text().splitlines()]
    assert next(row[4] for row in rows if row[0] == "odd") == COMMENT


@pytest.mark.parametrize("gecos", ['a "quoted" word', "50% off", "a\\nb", "a:b", "a,b"])
def test_a_comment_that_sysusers_would_change_is_refused(gecos: str, tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "base.yaml").write_text(
        yaml.safe_dump({"description": "d", "users": [{"name": "odd", "gecos": gecos}]})
    )
    plan, report = try_plan(write_cluster(tmp_path, [BASE]), [folder])
    assert plan is None or report.has_errors
    assert "wanted none of" in report.render_text()


def test_user_data_and_guestinfo_carry_every_byte(tmp_path: Path) -> None:
    """Without a golden image the same files travel in user-data, on VMware packed once more."""
    cluster_file = write_cluster(
        tmp_path, [BASE], more="image: {mode: stock, size: 8GiB}\ntargets: [qemu, vmware]\n"
    )
    plan = make_plan(cluster_file, [write_profile(tmp_path / "profiles")])
    seed = CloudInit(plan.cluster, FakeStore()).lower_node(plan.node_plan("bare"))
    snippet = lower_guestinfo(seed)["handover/vmware/bare.vmx"].decode()
    assert re.fullmatch(r'(guestinfo\.[a-z.]+ = "[A-Za-z0-9+/=]+"\n)+', snippet)
    packed = re.search(r'guestinfo\.userdata = "([^"]*)"', snippet)
    assert packed is not None
    document = yaml.safe_load(gzip.decompress(base64.b64decode(packed[1])))
    written = {entry["path"]: _decode(entry) for entry in document["write_files"]}
    for path, body in wanted_bodies().items():
        assert written[path] == body, path


def _decode(entry: dict[str, str]) -> bytes:
    match entry.get("encoding"):
        case None:
            return entry["content"].encode()
        case "b64":
            return base64.b64decode(entry["content"])
        case "gz+b64":
            return gzip.decompress(base64.b64decode(entry["content"]))
        case other:
            raise AssertionError(other)


@pytest.mark.process
@pytest.mark.parametrize("target", list(Target))
def test_hand_over_commands_get_names_as_single_words(target: Target, tmp_path: Path) -> None:
    """The cluster file allows DNS labels only; should that ever change, the scripts are ready."""
    cluster = make_cluster(targets=[target])
    names = [name for name in NAMES if "/" not in name]
    nodes = tuple(dataclasses.replace(cluster.nodes[0], name=name) for name in names)
    cluster = dataclasses.replace(cluster, name="c $(touch pwned) 'x' `touch pwned`", nodes=nodes)
    files = lower_handover(cluster)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("gcloud", "VBoxManage", "govc", "qemu-img", "qemu-system-x86_64"):
        (tools / name).write_text('#!/bin/sh\nprintf "%s\\0" "${0##*/}" "$@" >>log\necho >>log\n')
        (tools / name).chmod(0o755)
    script = tmp_path / "script.sh"
    script.write_bytes(files[f"handover/{target.value}.sh"])
    variables = {"BUCKET": "gs://b", "SUBNET": "s", "BRIDGE": "en0 'x'", "GOVC_URL": "https://v"}
    done = subprocess.run(
        ["/bin/sh", script],
        cwd=tmp_path,
        env={"PATH": str(tools), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    calls = [line.split("\0")[:-1] for line in (tmp_path / "log").read_text().split("\n")[:-1]]
    assert not (tmp_path / "pwned").exists()
    words = {word for call in calls for word in call}
    for name in names:
        assert any(word.removeprefix("-vm=").removeprefix("-name=") == name for word in words), name
    # no name was taken apart: the same number of words for each node
    lengths: dict[tuple[str, ...], set[int]] = {}
    for call in calls:
        verb = tuple(call[: {"gcloud": 4, "qemu-system-x86_64": 1}.get(call[0], 2)])
        lengths.setdefault(verb, set()).add(len(call))
    assert all(len(counts) == 1 for counts in lengths.values()), lengths
    assert json.loads(files["handover/terraform.tfvars.json"])["nodes"].keys() == set(names)


@pytest.mark.parametrize("name", ["a\\b", "a{{b", "a*b", "a[b", "a,b"])
def test_a_folder_that_packer_would_read_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Packer cannot build in"):
        check_place(tmp_path / name)
    check_place(tmp_path / "a b ${c} 'd' $(e) ü")
