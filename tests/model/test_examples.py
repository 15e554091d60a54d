"""The examples are what a user starts from: they pass the strictest check and describe what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagegen.diagnostics import Report, Severity
from imagegen.model.cluster import Cluster, Role
from imagegen.model.load import load_cluster

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: what an example has to be warned of, because it shows it
WARNED = {"flannel-etcd": ["IMG126", "IMG126"]}
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/cluster.yaml"))


def load(name: str) -> tuple[Cluster, Report]:
    report = Report()
    cluster = load_cluster(EXAMPLES / name / "cluster.yaml", report)
    assert cluster is not None, report.render_text()
    return cluster, report


@pytest.mark.parametrize("name", NAMES)
def test_an_example_has_no_warning_and_nobodys_key(name: str) -> None:
    cluster, report = load(name)
    stated = (EXAMPLES / name.removesuffix("-today") / "deviations.yaml").is_file()
    if not stated:  # else tests/seeds judge the warnings, and the name is the source's
        found = [f.code for f in report.findings if f.severity is not Severity.NOTE]
        assert found == WARNED.get(name, [])
    if not (EXAMPLES / name / "deviations.yaml").is_file():
        assert cluster.name == name
    assert cluster.access.ssh_authorized_keys == ()
    assert (EXAMPLES / name / "README.md").is_file()


def test_quickstart_is_the_cluster_of_the_design() -> None:
    cluster, _ = load("quickstart")
    assert [(n.name, n.role_set, str(n.address), n.mac) for n in cluster.nodes] == [
        ("etcd-0", "etcd", "10.240.0.10", None),
        ("master-0", "master", "10.240.0.11", None),
        ("worker-0", "worker", "10.240.0.21", None),
        ("worker-1", "worker", "None", "52:54:00:00:00:22"),
    ]


def test_all_in_one_is_one_image() -> None:
    cluster, _ = load("all-in-one")
    assert cluster.role_sets == ((Role.ETCD, Role.MASTER, Role.WORKER),)
    assert len(cluster.nodes) == 1


def test_flannel_etcd_is_the_way_of_old() -> None:
    cluster, _ = load("flannel-etcd")
    assert (cluster.network.cni.value, cluster.runtime.value, cluster.bootstrap.method.value) == (
        "flannel-etcd",
        "docker",
        "token-file",
    )


def test_the_balancer_of_lb_dns_is_the_name_server_of_the_others() -> None:
    cluster, _ = load("lb-dns")
    (balancer,) = cluster.nodes_with(Role.LB)
    for node in cluster.nodes:
        servers = cluster.network.nameservers if node is balancer else (balancer.address,)
        assert cluster.nameservers_of(node) == servers
    assert all(node.address is None for node in cluster.nodes_with(Role.WORKER))


def test_ha_has_three_of_everything_behind_one_balancer() -> None:
    cluster, _ = load("ha")
    assert {role.value: len(cluster.nodes_with(role)) for role in Role} == {
        "base": 0,
        "etcd": 3,
        "master": 3,
        "worker": 3,
        "lb": 1,
    }
    assert cluster.endpoint.host == str(cluster.nodes_with(Role.LB)[0].address)


@pytest.mark.parametrize("name", ["quickstart"])
def test_what_a_remark_calls_a_default_is_one(name: str) -> None:
    """Removing the remark sign from the defaults in the text changes nothing in the cluster."""
    path = EXAMPLES / name / "cluster.yaml"
    lines = path.read_text().splitlines(keepends=True)
    marked = [line.replace("# ", "", 1) if _is_default(line) else line for line in lines]
    assert marked != lines
    report = Report()
    from imagegen.model.load import load_text

    changed = load_text("".join(marked), path, report)
    assert changed is not None, report.render_text()
    assert changed == load(name)[0]


def _is_default(line: str) -> bool:
    words = line.strip().split()
    sections = ("control_plane:", "pki:", "bootstrap:", "image:")
    is_key = len(words) > 1 and words[0] == "#" and words[1].endswith(":")
    return is_key and (words[1] in sections or len(words) > 2) and words[1] != "extra_args:"
