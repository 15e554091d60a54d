"""network-config read by netplan, the only true judge of version 2, and by cloud-init's other renderers."""

from __future__ import annotations

import configparser
import dataclasses
from pathlib import Path

import pytest
import yaml

from imagegen.backends.networkconfig import emit_network_config
from imagegen.model.cluster import Cluster
from imagegen.plan.components.platform import DROP_IN
from tests.backends.nodeplans import make_cluster
from tests.judges.tools import Tool

pytestmark = pytest.mark.judge

MAC = "52:54:00:00:00:22"


def read_unit(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def config_of(cluster: Cluster, name: str, mac: str | None) -> str:
    return emit_network_config(dataclasses.replace(cluster.node(name), mac=mac), cluster.network)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    cluster = make_cluster()
    servers = (cluster.network.dns, cluster.network.services[1])
    return dataclasses.replace(cluster, network=dataclasses.replace(cluster.network, nameservers=servers))


def generate(netplan: Tool, text: str, root: Path) -> dict[str, dict[str, str]]:
    """What netplan makes of a network-config, as systemd-networkd will read it."""
    folder = root / "etc/netplan"
    folder.mkdir(parents=True)
    (folder / "50-cloud-init.yaml").write_text(yaml.safe_dump({"network": yaml.safe_load(text)}))
    (folder / "50-cloud-init.yaml").chmod(0o600)
    done = netplan.run("--root-dir", root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (done.stdout + done.stderr).strip()
    (unit,) = (root / "run/systemd/network").glob("*.network")
    return read_unit(unit.read_text())


def test_a_static_node(netplan: Tool, cluster: Cluster, tmp_path: Path) -> None:
    unit = generate(netplan, config_of(cluster, "worker-0", None), tmp_path)
    assert unit == {
        "Match": {"Name": "e*"},
        "Network": {
            "LinkLocalAddressing": "no",
            "Address": "10.240.0.21/16",
            "IPv6AcceptRA": "no",
            "DNS": "10.32.0.1",
        },
        "Route": {"Destination": "0.0.0.0/0", "Gateway": "10.240.0.1"},
    }


def test_a_node_by_dhcp(netplan: Tool, cluster: Cluster, tmp_path: Path) -> None:
    unit = generate(netplan, config_of(cluster, "worker-1", MAC), tmp_path)
    assert unit["Match"] == {"PermanentMACAddress": MAC}
    assert unit["Network"]["DHCP"] == "ipv4"
    assert unit["Network"]["LinkLocalAddressing"] == "no"
    assert unit["Network"]["IPv6AcceptRA"] == "no"
    assert unit["DHCP"]["ClientIdentifier"] == "mac"


@pytest.mark.parametrize("suite", ["bookworm", "sid"])
@pytest.mark.parametrize("renderer", ["networkd", "netplan", "eni"])
@pytest.mark.parametrize(("name", "mac"), [("worker-0", None), ("worker-1", MAC)])
def test_every_renderer_of_cloud_init(
    suite: str,
    renderer: str,
    name: str,
    mac: str | None,
    request: pytest.FixtureRequest,
    cluster: Cluster,
    tmp_path: Path,
) -> None:
    cloud_init: Tool = request.getfixturevalue(f"cloud_init_{suite}")
    source = tmp_path / "network-config"
    source.write_text(config_of(cluster, name, mac))
    done = cloud_init.run(
        *(
            "devel",
            "net-convert",
            "--network-data",
            source,
            "--kind",
            "yaml",
            "--directory",
            tmp_path / "out",
        ),
        *("--distro", "debian", "--output-kind", renderer),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    text = "".join(p.read_text() for p in sorted((tmp_path / "out").rglob("*")) if p.is_file())
    if name == "worker-0":
        assert "10.240.0.21" in text
        assert "10.240.0.1" in text
        assert "10.32.0.10" in text
    if renderer == "networkd":
        # without netplan, cloud-init knows interfaces by name only: machines need net.ifnames=0 there
        unit = read_unit(text)
        assert unit["Match"] == {"Name": "eth0"} | ({"MACAddress": mac} if mac else {})
        assert unit["Network"]["DHCP"] == ("no" if name == "worker-0" else "ipv4")


@pytest.mark.parametrize("suite", ["bookworm", "sid"])
@pytest.mark.parametrize(("name", "mac"), [("worker-0", None), ("worker-0", MAC), ("worker-1", MAC)])
def test_the_renderer_of_golden_images(
    suite: str, name: str, mac: str | None, request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path
) -> None:
    """Interfaces have predictable names there: the file must match them by pattern, and be the one that the
    image has a drop-in for."""
    cloud_init: Tool = request.getfixturevalue(f"cloud_init_{suite}")
    source = tmp_path / "network-config"
    node = dataclasses.replace(cluster.node(name), mac=mac)
    source.write_text(emit_network_config(node, cluster.network, golden=True))
    options: list[str | Path] = ["--network-data", source, "--kind", "yaml", "--directory", tmp_path / "out"]
    options += ["--distro", "debian", "--output-kind", "networkd"]
    done = cloud_init.run("devel", "net-convert", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out/etc/systemd/network").glob("*.network")
    assert f"/etc/systemd/network/{path.name}.d" == str(Path(DROP_IN).parent)
    unit = read_unit(path.read_text())
    assert unit["Match"] == {"Name": "e*"} | ({"MACAddress": mac} if mac else {})
    # bookworm's says nothing; the drop-in does
    assert unit["Network"].get("IPv6AcceptRA", "no").lower() in {"no", "false"}
    if name == "worker-0":
        assert unit["Network"]["DHCP"] == "no"
        assert unit["Address"] == {"Address": "10.240.0.21/16"}
        assert unit["Route"] == {"Destination": "0.0.0.0/0", "Gateway": "10.240.0.1"}
        assert unit["Network"]["DNS"] == "10.32.0.10 10.32.0.1"
    else:
        assert unit["Network"]["DHCP"] == "ipv4"


def test_the_schema_of_version_2(cloud_init_sid: Tool, cluster: Cluster, tmp_path: Path) -> None:
    for name in ("worker-0", "worker-1"):
        path = tmp_path / name
        for golden in (False, True):
            path.write_text(emit_network_config(cluster.node(name), cluster.network, golden=golden))
            done = cloud_init_sid.run(
                "schema", "--schema-type", "network-config", "--config-file", path, cwd=tmp_path
            )
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("suite", ["bookworm", "sid"])
@pytest.mark.parametrize(("name", "mac"), [("worker-0", None), ("worker-0", MAC), ("worker-1", MAC)])
def test_the_renderer_of_the_rpm_family(
    suite: str, name: str, mac: str | None, request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path
) -> None:
    """Its files are named after the interface: eth0, as its images boot with net.ifnames=0."""
    cloud_init: Tool = request.getfixturevalue(f"cloud_init_{suite}")
    source = tmp_path / "network-config"
    node = dataclasses.replace(cluster.node(name), mac=mac)
    source.write_text(emit_network_config(node, cluster.network))
    options: list[str | Path] = ["--network-data", source, "--kind", "yaml", "--directory", tmp_path / "out"]
    done = cloud_init.run(
        "devel", "net-convert", *options, "--distro", "rhel", "--output-kind", "sysconfig", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / "out/etc/sysconfig/network-scripts/ifcfg-eth0"
    lines = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    values = {key: value for key, _, value in lines}
    assert values["DEVICE"] == "eth0"
    assert values.get("HWADDR", "").lower() == (mac or "")
    if name == "worker-0":
        assert values["BOOTPROTO"] == "none"
        assert (values["IPADDR"], values["NETMASK"]) == ("10.240.0.21", "255.255.0.0")
        assert (values["GATEWAY"], values["DNS1"]) == ("10.240.0.1", "10.32.0.10")
    else:
        assert values["BOOTPROTO"] == "dhcp"
