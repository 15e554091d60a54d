"""The real etcd, etcdctl and flanneld of the mirror, with the flags and files of a plan; the real dockerd."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagegen.emit import emit_json, emit_yaml
from imagegen.fetch.archive import extract_members
from imagegen.kubernetes import docker, flannel
from imagegen.kubernetes.arguments import FromEnvironment
from imagegen.kubernetes.etcd import etcd_config
from imagegen.kubernetes.flannel import uses_etcd_v2
from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import load_releases
from imagegen.model.cluster import Cni, Runtime
from imagegen.model.version import Version, parse_version
from imagegen.pki import inventory, paths, spec
from tests.judges.test_flags import MIRROR
from tests.judges.tools import Tool, Unavailable, unpack_package
from tests.pki.clusters import E, M, W, make_cluster, make_node
from tests.pki.workshop import issue_store

pytestmark = pytest.mark.judge

ADDRESS = "10.240.0.10"
MEMBERS = ("etcd", "etcdctl")
#: etcd 3.4, 3.6 and 3.7
VERSIONS = ("1.20.2", "1.36.4", "1.37.1")
#: the same etcd 3.4 with a flannel of its time, which nobody has built: etcdctl looks in its place
VERSION_2 = "1.18.20"


def extract_programs(version: Version, folder: Path) -> None:
    """etcd, etcdctl, flanneld and mk-docker-opts.sh of that version's releases."""
    parts = {"etcd": MEMBERS, "flannel": ("flanneld", "mk-docker-opts.sh")}
    if uses_etcd_v2(load_gates(version)):
        del parts["flannel"]
    for name, members in parts.items():
        part = load_releases(version).part(name)
        archive = MIRROR / part.url.removeprefix("https://")
        if not archive.exists():
            pytest.skip(f"no {part.file_name} in {MIRROR}; make mirror builds it")
        extract_members(archive, {part.member(member): folder / member for member in members})


@pytest.mark.parametrize("version", [*VERSIONS, VERSION_2])
def test_flanneld_finds_its_network_in_etcd(tmp_path: Path, version: str) -> None:
    gates = load_gates(parse_version(version))
    extract_programs(gates.version, tmp_path)
    node = make_node("one", [E, M, W], ADDRESS)
    cluster = make_cluster([node], endpoint=ADDRESS)
    cluster = replace(cluster, network=replace(cluster.network, cni=Cni.FLANNEL_ETCD))
    store = issue_store(cluster, tmp_path / "secrets", now=datetime.now(UTC))
    for each in inventory.list_node_certificates(cluster, node):
        if each.placement is not None:
            stem = tmp_path / each.placement.stem.lstrip("/")
            stem.parent.mkdir(parents=True, exist_ok=True)
            for suffix in ("crt", "key"):
                Path(f"{stem}.{suffix}").write_bytes(store.read(f"{each.name}.{suffix}"))
    for path in (paths.ETCD_CA, paths.FLANNEL_ETCD_CA):
        (tmp_path / path.lstrip("/")).write_bytes(store.read(f"{spec.ETCD_CA}.crt"))

    def move(text: str) -> str:
        for folder in ("/etc/etcd", "/etc/flannel", "/run/flannel"):
            text = text.replace(folder, f"{tmp_path}{folder}")
        return text.replace("/usr/local/bin", str(tmp_path)).replace("$$", "$")

    config = dict(etcd_config(cluster, gates, node)) | {"data-dir": str(tmp_path / "data")}
    (tmp_path / "etcd.yaml").write_text(move(emit_yaml(config)))
    (tmp_path / "etc/etcd/flannel-network.json").write_text(flannel.network_config(cluster))
    values = {"ETCD_ENDPOINTS": f"https://{ADDRESS}:2379", "NODE_ADDRESS": ADDRESS}
    flags = [
        move(f"--{name}={values[value.variable] if isinstance(value, FromEnvironment) else value}")
        for name, value in flannel.flanneld_arguments().items()
    ]
    command = move(flannel.write_network_command(gates))
    proof = f"""{tmp_path}/flanneld {" ".join(flags)} >{tmp_path}/flanneld.log 2>&1 &
n=0
until grep -q "flannel is ready" {tmp_path}/flanneld.log; do
    n=$((n + 1)); [ $n -lt 100 ]; sleep 0.2
done"""
    if uses_etcd_v2(gates):
        proof = command.partition("||")[0].replace(">/dev/null 2>&1", "")
    script = tmp_path / "run.sh"
    script.write_text(
        f"""set -eu
ip link set lo up
ip address add {ADDRESS}/16 dev lo
{tmp_path}/etcd --config-file {tmp_path}/etcd.yaml >{tmp_path}/etcd.log 2>&1 &
# what systemd does with a unit that fails
until sh -ec '{command}'; do sleep 0.2; done
sh -ec '{command}'
{proof}
"""
    )
    user = ["--map-root-user"] if os.geteuid() else []
    done = subprocess.run(
        ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "sh", str(script)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    if uses_etcd_v2(gates):
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith(flannel.network_config(cluster))
        return
    log = (tmp_path / "flanneld.log").read_text() if (tmp_path / "flanneld.log").exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    assert "Backend type: vxlan" in log
    # the second time, what is there stays
    assert done.stdout.split() == ["OK"]
    lines = dict(x.split("=") for x in (tmp_path / "run/flannel/subnet.env").read_text().splitlines())
    assert lines["FLANNEL_NETWORK"] == str(cluster.network.pods)
    assert lines["FLANNEL_SUBNET"].endswith(f".1/{cluster.network.node_cidr_mask_size}")
    assert lines["FLANNEL_IPMASQ"] == "true"


def find_dockerd(suite: str) -> Tool:
    try:
        root = unpack_package(suite, "docker.io")
    except Unavailable as error:
        pytest.skip(str(error))
    return Tool(name="dockerd", argv=(str(root / "usr/sbin/dockerd"),))


@pytest.mark.parametrize("cni", [Cni.FLANNEL, Cni.FLANNEL_ETCD])
def test_dockerd_takes_its_configuration(tmp_path: Path, cni: Cni) -> None:
    cluster = make_cluster([make_node("one", [E, M, W], ADDRESS)], endpoint=ADDRESS)
    cluster = replace(cluster, runtime=Runtime.DOCKER, network=replace(cluster.network, cni=cni))
    file = tmp_path / "daemon.json"
    file.write_text(emit_json(docker.daemon_config(cluster)))
    flags: list[str] = []
    if docker.has_docker_network(cluster):
        extract_programs(parse_version(VERSIONS[0]), tmp_path)
        (tmp_path / "subnet.env").write_text(
            "FLANNEL_NETWORK=10.200.0.0/16\nFLANNEL_SUBNET=10.200.5.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        )
        options = ["-k", flannel.DOCKER_VARIABLE, "-f", tmp_path / "subnet.env", "-d", tmp_path / "docker"]
        subprocess.run([tmp_path / "mk-docker-opts.sh", *options], check=True)
        written = dict(line.split("=", 1) for line in (tmp_path / "docker").read_text().splitlines())
        flags = written[flannel.DOCKER_VARIABLE].strip('"').split()
        assert sorted(flags) == ["--bip=10.200.5.1/24", "--ip-masq=false", "--mtu=1450"]
    dockerd = find_dockerd("trixie")
    flags.append("--userland-proxy=false")  # its helper lies elsewhere in an unpacked package
    done = dockerd.run("--validate", "--config-file", file, *flags)
    assert done.returncode == 0, done.stderr
    assert "configuration OK" in done.stderr + done.stdout
    # the same thing twice, as a flag and in the file, is what it must refuse
    file.write_text(emit_json({**docker.daemon_config(cluster), "bip": "10.0.0.1/24", "unknown": 1}))
    assert dockerd.run("--validate", "--config-file", file, *flags).returncode != 0


def test_debian_s_unit_starts_the_daemon_that_our_drop_in_replaces() -> None:
    """But for the flags at its end, the command line is the one that the package's unit has."""
    for suite, folder, os_name in (("bookworm", "lib", "debian-12"), ("trixie", "usr/lib", "debian-13")):
        unit = (
            find_dockerd(suite).argv[0].replace("usr/sbin/dockerd", f"{folder}/systemd/system/docker.service")
        )
        (line,) = [x for x in Path(unit).read_text().splitlines() if x.startswith("ExecStart=")]
        known = {system.value: package.daemon for system, package in docker.PACKAGES.items()}
        assert line == f"ExecStart={known[os_name]} $DOCKER_OPTS"
