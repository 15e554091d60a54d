"""Random cluster files: a good cluster or a located error, never a traceback. IMAGEGEN_FUZZ: how many."""

from __future__ import annotations

import os
import random
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from imagegen.diagnostics import CODES, Report, Severity
from imagegen.emit import emit_yaml
from imagegen.model.cluster import Cluster, Role
from imagegen.model.load import load_cluster, load_text
from imagegen.plan.build import build_plan
from imagegen.plan.profiles import load_profiles

COUNT = int(os.environ.get("IMAGEGEN_FUZZ", "500"))
BATCHES = 10
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*/cluster.yaml"))

NASTY: list[Any] = [
    *(None, True, 0, -1, 1.5, 10**30, "", " ", "~", "no", "0644", "1e3", "12:30", [], {}, [[]], {"": None}),
    *(
        "../x",
        "a/b",
        "-a",
        "a_b",
        "a" * 64,
        "x" * 5000,
        "\x00",
        "\n",
        "\u202e",
        "💥",
        "$(x)",
        "{{7*7}}",
        ";rm",
    ),
    *(
        "10.240.0.0/24",
        "10.240.0.300",
        "10.240.0.1/33",
        "::1",
        "0.0.0.0/0",
        "255.255.255.255",
        "dhcp",
        "DHCP",
    ),
    *("1.36.4", "1.5.0", "99.99.99", "v1.36.4", "10y", "-1h", "0", "8GiB", "0GiB", "9" * 400, "٣"),
]
RANGES = ["10.240.0.0/24", "10.240.0.0/16", "10.32.0.0/16", "10.200.0.0/16", "10.0.0.0/8", "192.168.0.0/30"]
ADDRESSES = ["10.240.0.1", "10.240.0.10", "10.240.0.11", "10.240.0.12", "10.240.0.255", "10.32.0.10", "dhcp"]
#: the first word of each list is a good one
WORDS: dict[str, list[Any]] = {
    "layout": ["systemd", "kubeadm"],
    "cni": ["flannel", "loopback", "bridge", "flannel-etcd", "calico"],
    "proxy": ["iptables", "nftables", "ipvs"],
    "runtime": ["containerd", "docker"],
    "key": ["ecdsa-p256", "ecdsa-p521", "rsa-4096", "ed25519"],
    "os": ["debian-13", "debian-12", "ubuntu-22.04", "ubuntu-24.04", "oraclelinux-7"],
    "mode": ["golden", "stock"],
    "lifetime": ["1y", "0", "1h", "90d", "20y"],
    "size": ["8GiB", "1GiB", "1500MiB"],
    "targets": [["qemu"], ["gce", "vmware"], ["gce", "gce"]],
    "endpoint": ["api.example:443", "10.240.0.11:6443", "10.240.0.1", "10.32.0.1:6443", "x:y"],
    "user": ["ops", "root", "kube-x"],
    "profiles": [[], ["missing"], ["../.."]],
    "nodes": ["10.240.0.0/24", *RANGES],
    "services": ["10.32.0.0/16", *RANGES],
    "pods": ["10.200.0.0/16", *RANGES],
    "gateway": ["10.240.0.1", *ADDRESSES],
    "dns": ["10.32.0.10", *ADDRESSES],
    "node_cidr_mask_size": [24, 20, 27, 30],
    "approve_serving": [True, False],
    "minor": [36, *range(4, 40), *range(30, 38)],
}
ROLES = [["worker"], ["etcd"], ["master"], ["lb"], ["base"], ["etcd", "master", "worker"], ["lb", "base"]]


class Maker:
    """Makes one cluster file. ``nasty``: how often a value is strange; ``luck``: how often a good one."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.nasty = rng.choice([0.0, 0.0, 0.02, 0.1])
        self.luck = rng.choice([0.99, 0.9, 0.3])

    def pick(self, choices: list[Any]) -> Any:
        if self.rng.random() < self.nasty:
            return self.rng.choice(NASTY)
        return choices[0] if self.rng.random() < self.luck else self.rng.choice(choices)

    def some(self, *keys: str, **sections: Any) -> dict[str, Any]:
        """Each key with a word, and each section, now and then."""
        named = {key: self.pick(WORDS[key]) for key in keys} | sections
        return {key: value for key, value in named.items() if self.rng.random() < 0.4}

    def node(self, number: int) -> Any:
        roles = (["etcd"], ["master"])[number] if number < 2 else self.pick(ROLES)
        node: dict[str, Any] = {
            "name": self.pick([f"node-{number}", f"Node-{number}", "node-0"]),
            "roles": self.pick([roles, *ROLES]),
            "address": self.pick([f"10.240.0.{20 + number}", *ADDRESSES]),
        }
        if self.rng.random() < 0.3:
            node["mac"] = self.pick([f"52:54:00:00:00:{number:02x}", "52:54:00:00:00:01"])
        if self.rng.random() < self.nasty:
            node[self.rng.choice(["rolles", "labels", ""])] = "x"
        return node

    def document(self) -> Any:
        version = f"1.{self.pick(WORDS['minor'])}.{self.rng.randrange(9)}"
        network = self.some(
            *("services", "pods", "gateway", "dns", "cni", "proxy", "node_cidr_mask_size"),
            nameservers=[self.pick(WORDS["gateway"])],
        )
        document = {
            "version": self.pick([1]),
            "name": self.pick(["demo"]),
            "kubernetes": {"version": self.pick([version])} | self.some("layout"),
            "network": {"nodes": self.pick(WORDS["nodes"])} | network,
            "nodes": [self.node(number) for number in range(self.rng.randrange(12))],
        }
        lifetimes = {"ca_lifetime": self.pick(WORDS["lifetime"]), "lifetime": self.pick(WORDS["lifetime"])}
        document |= self.some(
            *("runtime", "targets", "profiles"),
            control_plane=self.some("endpoint"),
            pki=self.some("key") | (lifetimes if self.rng.random() < 0.5 else {}),
            bootstrap=self.some("approve_serving", token_lifetime=self.pick(WORDS["lifetime"])),
            image=self.some("os", "mode", "size"),
            access=self.some("user", ssh_authorized_keys=self.pick([[]])),
        )
        for key in list(document):
            if self.rng.random() < self.nasty / 4:
                document[key] = self.rng.choice(NASTY)
            elif self.rng.random() < self.nasty / 4:
                del document[key]
        return document


PIECES = [
    *(
        "[",
        "]",
        "{",
        "}",
        ":",
        ": ",
        "- ",
        "&a ",
        "*a",
        "!!x ",
        "|\n",
        ">\n",
        "'",
        '"',
        "#",
        "\t",
        "\n",
        "\r",
        "%",
    ),
    *(
        "? ",
        ",",
        "<<: ",
        "---\n",
        "...\n",
        "\x00",
        "\x85",
        "\u2028",
        "\ufeff",
        "\u202e",
        "é",
        "💥",
        "@",
        "`",
        "\\",
    ),
]


def damage(rng: random.Random, text: str) -> str:
    """A few strokes of a bad editor: cut, doubled and moved pieces, stray signs."""
    for _ in range(rng.randrange(1, 6)):
        at, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        end = min(end, at + rng.randrange(40))
        kind = rng.randrange(4)
        if kind == 0:
            text = text[:at] + text[end:]
        elif kind == 1:
            text = text[:end] + text[at:]
        elif kind == 2:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        else:
            lines = text.split("\n")
            text = "\n".join(lines[: rng.randrange(len(lines) + 1)] + lines[rng.randrange(len(lines)) :])
    return text


def make_text(rng: random.Random) -> str:
    kind = rng.randrange(10)
    if kind == 0:
        return damage(rng, rng.choice(EXAMPLES).read_text())
    text = emit_yaml(Maker(rng).document())
    return damage(rng, text) if kind < 4 else text


def check_promises(cluster: Cluster) -> None:
    """What the rest of the program relies on without looking."""
    network = cluster.network
    ranges = (network.nodes, network.services, network.pods)
    assert not any(a.overlaps(b) for i, a in enumerate(ranges) for b in ranges[:i])
    assert network.dns in network.services
    assert network.dns != network.api_service
    names = [node.name for node in cluster.nodes]
    assert len(set(names)) == len(names)
    assert all(
        name.isascii() and 0 < len(name) < 64 and name == name.lower() for name in [cluster.name, *names]
    )
    static = [node.address for node in cluster.nodes if node.address]
    assert len(set(static)) == len(static)
    assert all(address in network.nodes and address != network.gateway for address in static)
    for node in cluster.nodes:
        assert node.roles == tuple(sorted(set(node.roles), key=list(Role).index))
        assert node.address or not {Role.ETCD, Role.MASTER, Role.LB} & set(node.roles)
    if cluster.nodes_with(Role.MASTER):
        assert cluster.nodes_with(Role.ETCD)
        assert cluster.endpoint.host
    assert IPv4Network(network.pods).prefixlen <= network.node_cidr_mask_size
    assert cluster.pki.lifetime <= cluster.pki.ca_lifetime
    assert hash(cluster.nodes) == hash(tuple(cluster.nodes))


def check_plan(cluster: Cluster) -> None:
    """A good cluster has a plan, down to the last node."""
    report = Report()
    plan = build_plan(cluster, load_profiles((), report), report)
    assert plan is not None, report.render_text()
    assert len(list(plan.node_plans())) == len(cluster.nodes)


def check_report(report: Report, text: str) -> None:
    rows = text.count("\n") + 1
    for finding in report.findings:
        assert finding.code in CODES
        assert finding.span is not None, finding
        assert 1 <= finding.span.line <= rows + 1
        assert finding.span.column >= 1
        assert 0 < len(finding.message) < 400
    shown = report.render_text()
    assert all(c == "\n" or c.isprintable() for c in shown)
    shown.encode("utf-8")
    report.render_json().encode("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_i8_any_file_is_a_cluster_or_a_located_error(batch: int, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    good = 0
    slowest = 0.0
    for number in range(COUNT // BATCHES):
        seed = batch * 1_000_003 + number
        text = make_text(random.Random(seed))
        report = Report()
        began = time.process_time()
        try:
            cluster = load_text(text, path, report)
            took = time.process_time() - began
            check_report(report, text)
            if cluster is None:
                assert any(f.severity is Severity.ERROR for f in report.findings)
            else:
                good += 1
                check_promises(cluster)
                check_plan(cluster)
        except Exception as error:
            raise AssertionError(f"seed {seed}:\n{text[:3000]}") from error
        slowest = max(slowest, took)
    assert slowest < 1
    assert good > COUNT // BATCHES // 50, "the generator makes no good files any more"


def test_i8_any_bytes_are_a_located_error(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    whole = EXAMPLES[0].read_bytes()
    for seed in range(300):
        rng = random.Random(seed)
        raw = bytearray(whole if seed % 2 else rng.randbytes(rng.randrange(400)))
        for _ in range(rng.randrange(1, 20)):
            at = rng.randrange(len(raw) + 1)
            raw[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        path.write_bytes(raw)
        report = Report()
        if load_cluster(path, report) is None:
            assert any(f.severity is Severity.ERROR and f.span for f in report.findings), f"seed {seed}"
        report.render_text().encode("utf-8")
