"""What people get for each platform: quoted right, complete, and as secret as what it holds."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from imagegen.backends.cloudinit import CloudInit
from imagegen.backends.handover import lower_guestinfo, lower_handover
from imagegen.backends.image.formats.ova import PROPERTIES
from tests.backends.nodeplans import FakeStore
from tests.judges.tools import Tool
from tests.plan.plans import make_plan, write_cluster

ALL = "targets: [qemu, virtualbox, vmware, gce]\nimage: {size: 8GiB}\n"


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    return write_cluster(tmp_path, more=ALL)


def test_every_node_is_in_every_file(cluster_file: Path) -> None:
    cluster = make_plan(cluster_file).cluster
    files = lower_handover(cluster)
    names = {node.name for node in cluster.nodes}
    assert files.keys() == {
        f"handover/{name}"
        for name in ("qemu.sh", "virtualbox.sh", "vmware.sh", "gce.sh", "terraform.tfvars.json")
    }
    for path, body in files.items():
        assert all(name in body.decode() for name in names), path
    variables = json.loads(files["handover/terraform.tfvars.json"])
    assert variables["nodes"].keys() == names
    assert variables["nodes"]["worker-1"]["mac"] == "52:54:00:00:00:22"
    assert variables["nodes"]["etcd-0"]["address"] == "10.240.0.10"


def test_commands_are_words_that_a_shell_understands(cluster_file: Path) -> None:
    files = lower_handover(make_plan(cluster_file).cluster)
    gce = files["handover/gce.sh"].decode().replace("\\\n", "")
    create = [shlex.split(line) for line in gce.splitlines() if "instances create" in line]
    assert [words[4] for words in create] == ["etcd-0", "master-0", "worker-0", "worker-1"]
    assert "--private-network-ip=10.240.0.10" in create[0]
    assert not any("private-network-ip" in word for word in create[3]), "worker-1 has no fixed address"
    assert "--metadata-from-file=user-data=nodes/etcd-0/user-data" in create[0]
    box = files["handover/virtualbox.sh"].decode()
    assert "--macaddress1 525400000022" in box
    assert box.count("clonemedium") == 4
    assert "mac=52:54:00:00:00:22" in files["handover/qemu.sh"].decode()
    assert not re.search(r"-e=?\s*guestinfo\.(userdata|metadata)=", files["handover/vmware.sh"].decode())


BAKED = "targets: [qemu, virtualbox, vmware, gce]\nimage: {size: 8GiB, pki: baked}\n"


@pytest.fixture
def baked(tmp_path: Path) -> dict[str, str]:
    """What people get whose images have their node's seed inside, by the file's name."""
    (tmp_path / "baked").mkdir()
    file = write_cluster(tmp_path / "baked", more=BAKED)
    file.write_text(re.sub(r"(?m)^ *- \{name: worker-1,.*\n", "", file.read_text()))
    files = lower_handover(make_plan(file).cluster)
    return {path.rpartition("/")[2]: body.decode() for path, body in files.items()}


@pytest.mark.parametrize("name", ["qemu.sh", "virtualbox.sh", "vmware.sh", "gce.sh"])
def test_images_with_their_seed_inside_are_told_to_be_secrets(baked: dict[str, str], name: str) -> None:
    text = baked[name]
    assert "has that node's keys" in text
    assert "images/quickstart-worker-0" in text, "an image of its own for every node"
    for word in ("seed.iso", "user-data", "guestinfo."):
        assert word not in text, "such a machine gets no seed from outside"


def test_copies_of_images_with_keys_are_private(baked: dict[str, str], cluster_file: Path) -> None:
    for name in ("qemu.sh", "virtualbox.sh"):
        assert "\numask 077\nset -eu\n" in baked[name]
    lines = baked["gce.sh"].splitlines()
    copied = [line.split()[-1] for line in lines if line.startswith("gcloud storage cp")]
    assert len(copied) == 3
    assert [line.split()[-1] for line in lines if line.startswith("gcloud storage rm")] == copied
    for path, body in lower_handover(make_plan(cluster_file).cluster).items():
        assert b"has that node's keys" not in body, path


def test_guestinfo_is_what_cloud_init_decodes(cluster_file: Path) -> None:
    plan = make_plan(cluster_file)
    seed = CloudInit(plan.cluster, FakeStore()).lower_node(plan.node_plan("worker-0"))
    files = lower_guestinfo(seed)
    snippet = files["handover/vmware/worker-0.vmx"].decode()
    values = dict(re.findall(r'^(\S+) = "([^"]*)"$', snippet, re.MULTILINE))
    assert len(snippet.splitlines()) == len(values) == 4, "one value a line, each quoted whole"
    assert gzip.decompress(base64.b64decode(values["guestinfo.userdata"])) == seed.user_data
    assert values["guestinfo.userdata.encoding"] == "gzip+base64"
    metadata = yaml.safe_load(base64.b64decode(values["guestinfo.metadata"]))
    assert metadata["instance-id"] == yaml.safe_load(seed.meta_data)["instance-id"]
    assert metadata["network"] == yaml.safe_load(seed.network_config)
    options = json.loads(files["handover/vmware/worker-0.options.json"])
    properties = {row["Key"]: row["Value"] for row in options["PropertyMapping"]}
    assert properties.keys() <= {key for key, _, _ in PROPERTIES}, "an OVA takes only what it declares"
    assert gzip.decompress(base64.b64decode(properties["user-data"])) == seed.user_data
    network = yaml.safe_load(base64.b64decode(properties["network-config"]))
    assert network == {"network": yaml.safe_load(seed.network_config)}
    assert properties["instance-id"] == metadata["instance-id"]
    assert files["handover/vmware/worker-0.userdata"].decode() == values["guestinfo.userdata"]
    assert files["handover/vmware/worker-0.metadata"].decode() == values["guestinfo.metadata"]


@pytest.mark.judge
def test_shellcheck(cluster_file: Path, baked: dict[str, str], tmp_path: Path) -> None:
    from tests.conftest import require_judge

    shellcheck: Tool = require_judge("shellcheck")
    files = {path: body.decode() for path, body in lower_handover(make_plan(cluster_file).cluster).items()}
    for path, text in (files | baked).items():
        if path.endswith(".sh"):
            script = tmp_path / path.replace("/", "-")
            script.write_text(text)
            done = shellcheck.run(script)
            assert done.returncode == 0, done.stdout
