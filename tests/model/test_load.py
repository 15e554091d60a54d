"""From a text to the resolved cluster: defaults, places, and how findings of all kinds come together."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from imagegen.diagnostics import Report, Severity
from imagegen.errors import InputError
from imagegen.model import cluster as model
from imagegen.model.load import load_cluster, read_cluster
from imagegen.model.version import Version
from tests.model.texts import BASE, add, edit, findings, lines, load, resolve


def test_everything_but_five_keys_has_a_default() -> None:
    cluster = resolve(BASE)
    assert cluster.kubernetes == model.Kubernetes(
        version=Version(1, 36, 4), layout=model.Layout.SYSTEMD, extra_args=()
    )
    assert cluster.network == model.Network(
        nodes=IPv4Network("10.240.0.0/24"),
        gateway=IPv4Address("10.240.0.1"),
        nameservers=(IPv4Address("10.240.0.1"),),
        services=IPv4Network("10.32.0.0/16"),
        pods=IPv4Network("10.200.0.0/16"),
        dns=IPv4Address("10.32.0.10"),
        domain="cluster.local",
        cni=model.Cni.FLANNEL,
        proxy=model.ProxyMode.NFTABLES,
        node_cidr_mask_size=24,
    )
    assert cluster.endpoint == model.Endpoint(host="10.240.0.11", port=6443)
    assert cluster.runtime is model.Runtime.CONTAINERD
    assert cluster.pki == model.PkiPolicy(
        key=model.KeyAlgorithm.ECDSA_P256, ca_lifetime=timedelta(days=3650), lifetime=timedelta(days=365)
    )
    assert cluster.bootstrap == model.Bootstrap(
        method=model.BootstrapMethod.TOKEN, token_lifetime=timedelta(hours=24), approve_serving=True
    )
    assert cluster.image == model.Image(
        os=model.OperatingSystem.DEBIAN_13,
        mode=model.ImageMode.GOLDEN,
        pki=model.ImagePki.SEED,
        size_mib=8192,
        firmware=(model.Firmware.BIOS, model.Firmware.UEFI),
        formats=(model.DiskFormat.QCOW2,),
        snapshot=None,
        packages=(),
    )
    assert cluster.targets == (model.Target.QEMU,)
    assert cluster.access.user == "ops"
    assert cluster.profile_dirs == ()
    assert findings(BASE) == []


def test_every_key_reaches_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    text = """
version: 1
name: full
kubernetes:
  version: 1.33.0
  layout: systemd
  extra_args: {kubelet: {v: 4}, kube-apiserver: {profiling: false, audit-log-maxage: "30"}}
network:
  nodes: 192.168.7.0/24
  gateway: 192.168.7.254
  nameservers: [9.9.9.9, 1.1.1.1]
  services: 172.16.0.0/20
  pods: 172.24.0.0/14
  dns: 172.16.0.99
  domain: k8s.example
  cni: bridge
  proxy: iptables
  node_cidr_mask_size: 25
  ntp_servers: [192.168.7.254, time.example]
control_plane: {endpoint: "api.k8s.example:8443"}
runtime: containerd
pki: {key: rsa-3072, ca_lifetime: 20y, lifetime: 90d}
bootstrap: {method: token, token_lifetime: 1h30m, approve_serving: false}
image:
  os: ubuntu-24.04
  mode: stock
  pki: seed
  size: 20480MiB
  firmware: [uefi]
  formats: [raw, ova]
  snapshot: 20261101T000000Z
  packages: [tcpdump, strace]
targets: [vmware, gce]
access: {user: admin, ssh_authorized_keys: []}
profiles: [mine]
nodes:
  - {name: a, roles: [worker, master, etcd], address: 192.168.7.1, mac: 52-54-00-AA-BB-CC}
  - {name: b, roles: [base], address: dhcp}
"""
    cluster, report = load(text, tmp_path)
    assert cluster is not None, report.render_text()
    assert cluster.kubernetes.extra_args_of("kube-apiserver") == {
        "profiling": "false",
        "audit-log-maxage": "30",
    }
    assert cluster.kubernetes.extra_args_of("kubelet") == {"v": "4"}
    assert cluster.kubernetes.extra_args_of("etcd") == {}
    network = cluster.network
    assert network.gateway == IPv4Address("192.168.7.254")
    assert network.nameservers == (IPv4Address("9.9.9.9"), IPv4Address("1.1.1.1"))
    assert (str(network.services), str(network.pods), str(network.dns)) == (
        "172.16.0.0/20",
        "172.24.0.0/14",
        "172.16.0.99",
    )
    assert (network.domain, network.cni, network.proxy) == ("k8s.example", "bridge", "iptables")
    assert network.node_cidr_mask_size == 25
    assert network.ntp_servers == ("192.168.7.254", "time.example")
    assert cluster.endpoint.url == "https://api.k8s.example:8443"
    assert (cluster.pki.key, cluster.pki.ca_lifetime.days, cluster.pki.lifetime.days) == (
        "rsa-3072",
        7300,
        90,
    )
    assert cluster.bootstrap.token_lifetime == timedelta(minutes=90)
    assert not cluster.bootstrap.approve_serving
    image = cluster.image
    assert (image.os, image.mode, image.size_mib, image.snapshot) == (
        "ubuntu-24.04",
        "stock",
        20480,
        "20261101T000000Z",
    )
    assert image.firmware == (model.Firmware.UEFI,)
    assert image.formats == (model.DiskFormat.RAW, model.DiskFormat.OVA)
    assert image.packages == ("tcpdump", "strace")
    assert cluster.targets == (model.Target.VMWARE, model.Target.GCE)
    assert cluster.access == model.Access(user="admin", ssh_authorized_keys=())
    assert cluster.profile_dirs == (str(tmp_path / "mine"),)
    first, second = cluster.nodes
    assert (first.role_set, first.mac) == ("etcd+master+worker", "52:54:00:aa:bb:cc")
    assert (second.address, second.mac) == (None, None)


@pytest.mark.parametrize(
    ("version", "system", "proxy"),
    [
        ("1.37.0", "debian-13", "nftables"),
        ("1.33.0", "debian-12", "nftables"),
        ("1.33.0", "ubuntu-22.04", "nftables"),
        ("1.32.9", "debian-13", "iptables"),
        ("1.30.0", "ubuntu-24.04", "iptables"),
    ],
)
def test_the_default_proxy_follows_version_and_kernel(version: str, system: str, proxy: str) -> None:
    text = edit(("1.36.4", version), ("access:\n", f"image: {{os: {system}}}\naccess:\n"))
    assert resolve(text).network.proxy == proxy


def test_the_balancer_is_the_default_endpoint() -> None:
    text = BASE + "  - {name: lb-0, roles: [lb], address: 10.240.0.5}\n"
    assert resolve(text).endpoint.host == "10.240.0.5"
    assert resolve(edit(add("network", "gateway: 10.240.0.9"), text=text)).endpoint.host == "10.240.0.5"


@pytest.mark.parametrize(
    ("given", "services", "pods"),
    [
        ("nodes: 10.240.0.0/24", "10.32.0.0/16", "10.200.0.0/16"),
        ("nodes: 10.32.0.0/24", "172.20.0.0/16", "10.200.0.0/16"),
        ("nodes: 10.0.0.0/8", "172.20.0.0/16", "172.28.0.0/16"),
        ("nodes: 10.240.0.0/24\n  pods: 10.0.0.0/9", "172.20.0.0/16", "10.0.0.0/9"),
        ("nodes: 10.240.0.0/24\n  services: 10.200.0.0/16", "10.200.0.0/16", "172.28.0.0/16"),
    ],
)
def test_default_ranges_give_way(given: str, services: str, pods: str) -> None:
    address = given.split()[1].split("/")[0].removesuffix(".0")
    text = (
        edit(("nodes: 10.240.0.0/24", given))
        .replace("10.240.0.", address + ".")
        .replace(f"nodes: {address}.0.", f"nodes: {address}.0.")
    )
    cluster, report = load(text)
    assert cluster is not None, report.render_text()
    assert (str(cluster.network.services), str(cluster.network.pods)) == (services, pods)
    assert str(cluster.network.dns) == str(IPv4Network(services)[10])
    moved = services != "10.32.0.0/16" and "services:" not in given
    assert ("IMG127" in {f.code for f in report.findings}) == (moved or pods == "172.28.0.0/16")


def test_the_gateway_is_not_taken_from_a_node() -> None:
    text = edit(("10.240.0.21", "10.240.0.1"))
    cluster, report = load(text)
    assert cluster is not None
    assert cluster.network.gateway is None
    assert cluster.network.nameservers == ()
    assert [f.code for f in report.findings] == ["IMG124"]
    assert report.findings[0].severity is Severity.WARNING


def test_no_name_servers_can_be_said() -> None:
    assert resolve(edit(add("network", "nameservers: []"))).network.nameservers == ()


def test_values_know_their_place() -> None:
    cluster = resolve(BASE)
    assert str(cluster.spans["network.nodes"]) == "/nonexistent/cluster.yaml:6:10"
    assert str(cluster.span_of("nodes[1].address")) == "/nonexistent/cluster.yaml:12:48"
    assert str(cluster.span_of("network.pods")) == "/nonexistent/cluster.yaml:5:1"
    assert cluster.span_of("pki.key") is None
    assert [node.span.line for node in cluster.nodes if node.span] == [11, 12, 13]
    assert "nodes[2].name" in list(cluster.spans)
    assert len(cluster.spans) == len(list(cluster.spans))
    assert "nodes[9]" not in cluster.spans


def test_equal_files_make_equal_clusters() -> None:
    assert resolve(BASE) == resolve("# a remark\n" + BASE)
    assert resolve(BASE) != resolve(BASE.replace("demo", "other"))


def test_yaml_words_are_typed_by_the_schema() -> None:
    text = edit(
        ("name: demo", "name: no"),
        ("name: worker-0", "name: 1e3"),
        add("network", "domain: 0644.on"),
        ("access:\n", "access:\n  user: y\n"),
    )
    cluster = resolve(text)
    assert (cluster.name, cluster.nodes[2].name) == ("no", "1e3")
    assert (cluster.network.domain, cluster.access.user) == ("0644.on", "y")


def test_shape_and_meaning_are_reported_together() -> None:
    text = """\
version: 1
name: Bad_Name
kubernetes: {version: 1.36}
network:
  nodes: 10.240.0.0/24
  pods: 10.240.0.0/16
  podz: 10.0.0.0/8
pki: {key: rsa-1024}
nodes:
  - {name: a, roles: [etcd, master], address: 10.240.0.10}
  - {name: a, roles: [worker], address: 10.99.0.10}
  - {name: c, roles: [wroker], address: 10.240.0.10}
  - {name: d, roles: [worker], address: 10.240.0.10, mac: "zz"}
"""
    assert [line.split(" ")[:2] for line in lines(text) if "IMG143" not in line] == [
        ["2:7", "IMG107"],
        ["3:23", "IMG108"],
        ["6:9", "IMG104"],
        ["7:3", "IMG101"],
        ["8:12", "IMG106"],
        ["11:12", "IMG110"],
        ["11:41", "IMG113"],
        ["12:23", "IMG106"],
        ["12:41", "IMG111"],
        ["13:41", "IMG111"],
        ["13:59", "IMG105"],
    ]


def test_one_mistake_does_not_cause_others() -> None:
    assert [f.code for f in findings(edit(("roles: [etcd]", "roles: [etdc]")))] == ["IMG106"]
    assert [f.code for f in findings(edit(("10.240.0.0/24", "10.240.0.5/24")))] == ["IMG105"]
    assert [f.code for f in findings(edit(("10.240.0.11", "10.240.11")))] == ["IMG105"]
    assert [f.code for f in findings(edit(("nodes: 10.240.0.0/24", "nodez: 10.240.0.0/24")))] == [
        "IMG102",
        "IMG101",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("version: 1\n", ["name", "kubernetes", "network", "nodes"]),
        ("{}", ["version", "name", "kubernetes", "network", "nodes"]),
    ],
)
def test_every_missing_key_is_named(text: str, found: list[str]) -> None:
    messages = [f.message for f in findings(text) if f.code == "IMG102"]
    assert sorted(messages) == sorted(f"the key {key!r} is missing" for key in found)


@pytest.mark.parametrize("text", ["[]", "text", "'1'", "- version: 1"])
def test_something_else_than_a_mapping_is_refused(text: str) -> None:
    cluster, report = load(text)
    assert cluster is None
    assert [f.code for f in report.findings] == ["IMG103"]


def test_very_many_findings_are_counted() -> None:
    nodes = "".join(f"  - {{name: n-{i}, roles: [worker], adress: 10.0.0.1}}\n" for i in range(2000))
    found = findings(BASE + nodes)
    assert len(found) < 600
    assert any("more findings" in f.message for f in found)
    nodes = "".join(f"  - {{name: n-{i}, roles: [worker], address: 10.0.0.1}}\n" for i in range(2000))
    found = findings(BASE + nodes)
    assert len(found) < 600
    assert any("more findings" in f.message for f in found)


def test_read_cluster_raises_with_the_report(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(BASE)
    assert read_cluster(path).name == "demo"
    path.write_text(BASE.replace("demo", "De mo"))
    with pytest.raises(InputError) as caught:
        read_cluster(path)
    assert [f.code for f in caught.value.report.findings] == ["IMG107"]
    assert caught.value.report.sources


def test_earlier_errors_of_a_report_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(BASE)
    report = Report()
    report.error("IMG001", "something else")
    assert load_cluster(path, report) is not None


def test_a_half_wrong_node_still_takes_part() -> None:
    text = BASE + (
        "  - {name: worker-0, roles: [wroker], address: 10.240.0.11}\n"
        "  - {name: Worker, roles: [worker], address: 10.240.0.11}\n"
        "  - {name: worker-0, roles: [base, worker]}\n"
        "  - nothing\n"
        "  - {name: etcd-0, roles: [etcd], address: dhcp}\n"
    )
    assert [" ".join(line.split()[:2]) for line in lines(text)] == [
        "14:12 IMG110",
        "14:30 IMG106",
        "14:48 IMG111",
        "15:12 IMG107",
        "15:46 IMG111",
        "16:5 IMG102",
        "16:12 IMG110",
        "16:22 IMG118",
        "17:5 IMG103",
        "18:12 IMG110",
        "18:44 IMG119",
    ]
    assert "stand-in" not in str(findings(text))
