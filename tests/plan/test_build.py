"""The whole plan: all examples in all minors, bake items that know no node, determinism, ports."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagegen.diagnostics import Report
from imagegen.errors import ImagegenError
from imagegen.kubernetes.releases import load_releases
from imagegen.model.load import load_cluster
from imagegen.model.version import parse_version
from imagegen.plan.build import COMPONENTS, build_plan
from imagegen.plan.dump import iter_plan_json, render_plan_json
from imagegen.plan.items import File, Item, Phase, Ref
from imagegen.plan.plan import Plan
from imagegen.plan.ports import list_ports
from imagegen.plan.profiles import load_profiles
from imagegen.resources import find_resource
from tests.plan.plans import QUICKSTART, make_plan, write_cluster

EXAMPLES = ("quickstart", "all-in-one", "ha")
MINORS = range(30, 38)


def plan_example(name: str, minor: int) -> tuple[Plan | None, Report]:
    report = Report()
    cluster = load_cluster(find_resource("examples", name, "cluster.yaml"), report)
    assert cluster is not None, report.render_text()
    version = parse_version(load_releases(parse_version(f"1.{minor}.0")).version("kubelet"))
    cluster = dataclasses.replace(
        cluster, kubernetes=dataclasses.replace(cluster.kubernetes, version=version)
    )
    return build_plan(cluster, load_profiles((), report), report), report


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_has_a_plan_in_every_minor(name: str, minor: int) -> None:
    plan, report = plan_example(name, minor)
    assert plan is not None, report.render_text()
    assert not report.has_warnings, report.render_text()
    for node_plan in plan.node_plans():
        assert node_plan.items
        assert all(item.phase is Phase.BOOT for item in node_plan.items)


def every_item(plan: Plan) -> list[Item]:
    shared = [item for role_plan in plan.role_plans for item in role_plan.items]
    return shared + [item for node_plan in plan.node_plans() for item in node_plan.items]


def test_every_item_says_who_wants_it_and_why() -> None:
    plan, _ = plan_example("ha", 36)
    assert plan is not None
    silent = [item.identity for item in every_item(plan) if not item.origin.reason]
    assert not silent
    known = {f"component {module.__name__.rpartition('.')[2]}" for module in COMPONENTS}
    assert {item.origin.where for item in every_item(plan) if not item.origin.line} <= known


@pytest.mark.parametrize("cni", ["loopback", "bridge", "flannel"])
@pytest.mark.parametrize("proxy", ["iptables", "nftables"])
def test_bake_items_do_not_know_the_nodes(tmp_path: Path, cni: str, proxy: str) -> None:
    others = (
        "{name: e-7, roles: [etcd], address: 10.240.0.40}",
        "{name: m-7, roles: [master], address: 10.240.0.11}",
        "{name: w-7, roles: [worker], address: 10.240.0.41}",
        "{name: w-8, roles: [worker], address: 10.240.0.42}",
    )
    network = f"cni: {cni}, proxy: {proxy}"
    nodes = QUICKSTART[:3] if cni == "bridge" else QUICKSTART
    one = make_plan(write_cluster(tmp_path, nodes, network=network))
    two = make_plan(write_cluster(tmp_path, others, network=network))
    assert [p.name for p in one.role_plans] == [p.name for p in two.role_plans]
    for mine, theirs in zip(one.role_plans, two.role_plans, strict=True):
        assert mine.of_phase(Phase.BAKE) == theirs.of_phase(Phase.BAKE)
        names = {node.name for node in one.cluster.nodes}
        for item in mine.of_phase(Phase.BAKE):
            if isinstance(item, File):
                assert not any(name in str(part) for part in item.content for name in names), item.path
                assert not any(isinstance(part, Ref) for part in item.content)


def test_no_secret_of_one_node_is_named_on_another(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    for node_plan in plan.node_plans():
        mine = f"nodes/{node_plan.node.name}/"
        for item in (*node_plan.items, *node_plan.role_plan.items):
            if isinstance(item, File) and node_plan.node.name.startswith("worker"):
                for part in item.content:
                    if isinstance(part, Ref) and not part.public:
                        assert part.name.startswith(mine), item.path


def test_a_static_node_knows_its_address_and_a_dhcp_node_does_not(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    env = {
        name: next(
            i.content
            for i in plan.node_plan(name).items
            if isinstance(i, File) and i.path.endswith("node.env")
        )
        for name in ("worker-0", "worker-1")
    }
    assert env["worker-0"] == ("NODE_NAME=worker-0\nNODE_ADDRESS=10.240.0.21\n",)
    assert env["worker-1"] == ("NODE_NAME=worker-1\n",)


def test_hosts_name_the_control_plane_and_the_node_but_no_other_worker(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    for name, own in (("worker-0", "10.240.0.21 worker-0"), ("worker-1", "127.0.1.1 worker-1")):
        item = next(i for i in plan.node_plan(name).items if isinstance(i, File) and i.path == "/etc/hosts")
        lines = str(item.content[0]).splitlines()
        assert own in lines
        assert {"10.240.0.10 etcd-0", "10.240.0.11 master-0"} <= set(lines)
        assert sum("worker" in line for line in lines) == 1
    master = next(
        i for i in plan.node_plan("master-0").items if isinstance(i, File) and i.path == "/etc/hosts"
    )
    assert str(master.content[0]).count("master-0") == 1


def test_a_plan_of_an_unknown_node_is_a_key_error(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    with pytest.raises(KeyError):
        plan.node_plan("nobody")


def test_ports_of_the_table(tmp_path: Path) -> None:
    rows = {(row.port, row.protocol): row.roles for row in list_ports(make_plan(write_cluster(tmp_path)))}
    assert rows["22", "tcp"] == ("etcd", "master", "worker")
    assert "master" in rows["6443", "tcp"]
    assert rows["10250", "tcp"] == ("worker",)
    assert rows["30000-32767", "tcp"] == ("worker",)
    assert ("10255", "tcp") not in rows
    assert any("etcd" in roles for (port, _), roles in rows.items() if port.startswith("2379"))


def test_a_component_that_contradicts_itself_between_nodes_fails_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(write_cluster(tmp_path))
    from imagegen.plan.components import identity
    from imagegen.plan.items import Fragment, Origin, Sysctl

    wrong = Sysctl(phase=Phase.BOOT, origin=Origin("component identity"), key="kernel.panic", value="7")
    monkeypatch.setattr(identity, "plan_node", lambda ctx, node: Fragment((wrong,)))
    with pytest.raises(ImagegenError, match=r"worker-0: sysctl kernel\.panic"):
        plan.node_plan("worker-0")


_SCRIPT = """
import sys, hashlib
from pathlib import Path
from tests.plan.plans import make_plan
from imagegen.plan.dump import render_plan_json
plan = make_plan(Path(sys.argv[1]), [Path(sys.argv[2])])
print(hashlib.sha256(render_plan_json(plan).encode()).hexdigest())
"""


@pytest.mark.process
def test_the_same_input_gives_the_same_plan_everywhere(tmp_path: Path) -> None:
    seen = set()
    for number, (seed, zone, locale) in enumerate((("0", "UTC", "C"), ("4711", "Asia/Kathmandu", "C.UTF-8"))):
        folder = tmp_path / f"here-{number}"
        profiles = folder / "mine"
        profiles.mkdir(parents=True)
        (profiles / "base.yaml").write_text("packages: [htop]\nfiles: [{path: /etc/a, content: b}]\n")
        env = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "TZ": zone,
            "LC_ALL": locale,
            "PYTHONPATH": str(Path.cwd()),
        }
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(write_cluster(folder)), str(profiles)],
            env=env,
            capture_output=True,
            check=True,
            text=True,
        )
        seen.add(done.stdout)
    assert len(seen) == 1


def test_the_dump_of_a_large_plan_comes_in_small_pieces(tmp_path: Path) -> None:
    workers = (
        f"{{name: w-{n}, roles: [worker], address: 10.240.{1 + n // 250}.{1 + n % 250}}}" for n in range(2000)
    )
    plan = make_plan(write_cluster(tmp_path, [*QUICKSTART[:2], *workers], network="pods: 100.64.0.0/10"))
    assert max(len(piece) for piece in iter_plan_json(plan)) < 1_000_000


def test_streaming_and_whole_text_are_the_same(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    assert "".join(iter_plan_json(plan, nodes=list(plan.node_plans()))) == render_plan_json(plan)
