"""cloud-init's own readers of guestinfo and of OVF properties take the hand-over files of a node."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from imagegen.backends.cloudinit import CloudInit, Seed
from imagegen.backends.handover import lower_guestinfo
from tests.backends.nodeplans import FakeStore
from tests.judges.tools import Tool, Unavailable, acquire_tool
from tests.plan.plans import make_plan, write_cluster

pytestmark = [pytest.mark.judge, pytest.mark.process]

ENVIRONMENT = "http://schemas.dmtf.org/ovf/environment/1"
_READ_OVF = """
import json, sys
from cloudinit import util
from cloudinit.sources.DataSourceOVF import read_ovf_environment

metadata, user_data, _ = read_ovf_environment(open(sys.argv[1]).read(), True)
print(json.dumps([metadata, util.decomp_gzip(user_data)]))
"""
_READ_GUESTINFO = """
import json, sys
from cloudinit.sources.DataSourceVMware import decode, load_json_or_yaml, process_metadata

values = json.load(open(sys.argv[1]))
read = lambda key: decode(key, values[f"guestinfo.{key}.encoding"], values[f"guestinfo.{key}"])
print(json.dumps([process_metadata(load_json_or_yaml(read("metadata"))), read("userdata")]))
"""


@pytest.fixture(params=["cloud_init_bookworm", "cloud_init_sid"])
def cloud_init(request: pytest.FixtureRequest) -> Tool:
    try:
        return acquire_tool(request.param)
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def seed(tmp_path: Path) -> Seed:
    plan = make_plan(write_cluster(tmp_path, more="targets: [vmware]\nimage: {size: 8GiB}\n"))
    return CloudInit(plan.cluster, FakeStore()).lower_node(plan.node_plan("worker-0"))


def read_by(cloud_init: Tool, program: str, path: Path) -> tuple[dict[str, object], str]:
    python = Tool(name="python", argv=cloud_init.argv[:1], env=cloud_init.env)
    done = python.run("-c", program, path, cwd=path.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    metadata, user_data = json.loads(done.stdout)
    return metadata, user_data


def test_ovf_properties(cloud_init: Tool, seed: Seed, tmp_path: Path) -> None:
    options = json.loads(lower_guestinfo(seed)["handover/vmware/worker-0.options.json"])
    environment = ET.Element(f"{{{ENVIRONMENT}}}Environment")
    section = ET.SubElement(environment, f"{{{ENVIRONMENT}}}PropertySection")
    for row in options["PropertyMapping"]:
        names = {f"{{{ENVIRONMENT}}}key": row["Key"], f"{{{ENVIRONMENT}}}value": row["Value"]}
        ET.SubElement(section, f"{{{ENVIRONMENT}}}Property", names)
    path = tmp_path / "ovf-env.xml"
    path.write_text(ET.tostring(environment, encoding="unicode"))
    metadata, user_data = read_by(cloud_init, _READ_OVF, path)
    meta_data = yaml.safe_load(seed.meta_data)
    assert user_data.encode() == seed.user_data
    assert metadata["instance-id"] == meta_data["instance-id"]
    assert metadata["local-hostname"] == meta_data["local-hostname"]
    assert metadata["network-config"] == yaml.safe_load(seed.network_config)


def test_guestinfo(cloud_init: Tool, seed: Seed, tmp_path: Path) -> None:
    snippet = lower_guestinfo(seed)["handover/vmware/worker-0.vmx"].decode()
    path = tmp_path / "values.json"
    path.write_text(json.dumps(dict(re.findall(r'^(\S+) = "([^"]*)"$', snippet, re.MULTILINE))))
    metadata, user_data = read_by(cloud_init, _READ_GUESTINFO, path)
    assert user_data.encode() == seed.user_data
    assert metadata["instance-id"] == yaml.safe_load(seed.meta_data)["instance-id"]
    network = metadata["network"]
    assert isinstance(network, dict)
    assert network["config"] == yaml.safe_load(seed.network_config)
