"""The daemons' components: who gets what, in which phase, owned by whom."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TypeVar

import pytest

from imagegen.content import Ref
from imagegen.kubernetes.releases import load_releases
from imagegen.model.cluster import Cluster, Role
from imagegen.plan.items import (
    Binary,
    ContainerImage,
    Directory,
    File,
    Item,
    Phase,
    Port,
    Sysctl,
    Unit,
    UnitState,
    User,
)
from tests.kubernetes.clusters import MINORS, make_cluster
from tests.plan.components.daemons import ALL_IN_ONE, COMPONENTS, ROLE_SETS, make_context, plan_items

T = TypeVar("T", bound=Item)


@pytest.fixture(name="cluster")
def _cluster(tmp_path: Path) -> Cluster:
    return make_cluster(tmp_path)[0]


def of_kind(cluster: Cluster, roles: tuple[Role, ...], kind: type[T]) -> list[T]:
    return [item for item in plan_items(cluster, roles) if isinstance(item, kind)]


@pytest.mark.parametrize(
    ("roles", "units"),
    [
        ((Role.BASE,), set()),
        ((Role.LB,), set()),
        ((Role.ETCD,), {"etcd"}),
        ((Role.MASTER,), {"kube-apiserver", "kube-controller-manager", "kube-scheduler"}),
        ((Role.WORKER,), {"containerd", "kubelet", "kube-proxy"}),
        (
            ALL_IN_ONE,
            {
                "containerd",
                "etcd",
                "kube-apiserver",
                "kube-controller-manager",
                "kube-proxy",
                "kube-scheduler",
                "kubelet",
            },
        ),
    ],
)
def test_every_role_gets_its_daemons(cluster: Cluster, roles: tuple[Role, ...], units: set[str]) -> None:
    names = {u.name.removesuffix(".service") for u in of_kind(cluster, roles, Unit) if ".path" not in u.name}
    assert names == units


@pytest.mark.parametrize("roles", ROLE_SETS, ids="+".join)
def test_what_is_baked_depends_on_no_node_and_holds_no_secret(
    cluster: Cluster, roles: tuple[Role, ...]
) -> None:
    other = dataclasses.replace(cluster, nodes=cluster.nodes[:1])
    baked = [item for item in plan_items(cluster, roles) if item.phase is Phase.BAKE]
    assert baked == [item for item in plan_items(other, roles) if item.phase is Phase.BAKE]
    for item in baked:
        if isinstance(item, File):
            assert not any(isinstance(part, Ref) for part in item.content), item.path
    assert all(item.origin.reason for item in plan_items(cluster, roles))


@pytest.mark.parametrize("minor", MINORS)
def test_every_binary_is_a_member_of_its_part(tmp_path: Path, minor: str) -> None:
    cluster, _ = make_cluster(tmp_path, minor)
    releases = load_releases(cluster.kubernetes.version)
    for binary in of_kind(cluster, ALL_IN_ONE, Binary):
        part = releases.part(binary.part)
        assert binary.version == part.version
        assert (binary.member in part.members) if part.members else binary.member == ""


def test_secrets_and_node_lists_come_at_boot(cluster: Cluster) -> None:
    boot = {item.path: item for item in of_kind(cluster, ALL_IN_ONE, File) if item.phase is Phase.BOOT}
    assert set(boot) == {"/etc/kubernetes/encryption.yaml", "/etc/kubernetes/kube-apiserver.env"}
    encryption = boot["/etc/kubernetes/encryption.yaml"]
    assert (encryption.mode, encryption.owner) == ("0600", "kube-apiserver")


def test_only_etcd_nodes_get_a_file_of_their_own(cluster: Cluster) -> None:
    ctx = make_context(cluster)
    for node in cluster.nodes:
        items = [item for component in COMPONENTS for item in component.plan_node(ctx, node).items]
        paths = [item.path for item in items if isinstance(item, File)]
        assert paths == (["/etc/etcd/etcd.yaml"] if node.has(Role.ETCD) else [])
        assert all(item.phase is Phase.BOOT for item in items)


@pytest.mark.parametrize("roles", ROLE_SETS, ids="+".join)
def test_users_exist_for_every_owner_and_unit(cluster: Cluster, roles: tuple[Role, ...]) -> None:
    users = {user.name for user in of_kind(cluster, roles, User)}
    named = set()
    for item in plan_items(cluster, roles):
        if isinstance(item, File | Directory):
            named |= {item.owner, item.group}
        if isinstance(item, Unit) and item.content is not None:
            named |= set(re.findall(r"^(?:User|Group)=(.*)$", item.content, re.MULTILINE))
    assert named - {"root"} == users


def test_kube_proxy_waits_for_a_certificate_only_where_it_has_none(cluster: Cluster) -> None:
    def states(roles: tuple[Role, ...]) -> dict[str, UnitState]:
        return {u.name: u.state for u in of_kind(cluster, roles, Unit) if "kube-proxy" in u.name}

    assert states((Role.WORKER,)) == {
        "kube-proxy.path": UnitState.ENABLED,
        "kube-proxy.service": UnitState.STATIC,
    }
    assert states((Role.MASTER, Role.WORKER)) == {"kube-proxy.service": UnitState.ENABLED}
    (path,) = (u for u in of_kind(cluster, (Role.WORKER,), Unit) if u.name == "kube-proxy.path")
    assert "PathExists=/var/lib/kubelet/pki/kubelet-client-current.pem" in str(path.content)


def test_ports(cluster: Cluster) -> None:
    table = {
        (port.first, port.last, port.protocol): port.sources for port in of_kind(cluster, ALL_IN_ONE, Port)
    }
    nodes, pods = str(cluster.network.nodes), str(cluster.network.pods)
    assert table == {
        (2379, 2380, "tcp"): (nodes,),
        (6443, 6443, "tcp"): (),
        (10250, 10250, "tcp"): (nodes, pods),
        (10256, 10256, "tcp"): (nodes,),
        (30000, 32767, "tcp"): (),
        (30000, 32767, "udp"): (),
    }


def test_the_kernel_is_as_the_kubelet_insists(cluster: Cluster) -> None:
    sysctls = {s.key: s.value for s in of_kind(cluster, (Role.WORKER,), Sysctl)}
    assert sysctls["vm.overcommit_memory"] == "1"
    assert sysctls["kernel.panic"] == "10"


def test_pods_can_start_before_there_is_a_network(cluster: Cluster) -> None:
    (image,) = of_kind(cluster, (Role.WORKER,), ContainerImage)
    (config,) = (f for f in of_kind(cluster, (Role.WORKER,), File) if f.path == "/etc/containerd/config.toml")
    assert f'"{image.reference}"' in "".join(map(str, config.content))


@pytest.mark.parametrize("minor", MINORS)
def test_every_unit_restarts_for_ever_and_waits_for_its_files(tmp_path: Path, minor: str) -> None:
    cluster, _ = make_cluster(tmp_path, minor)
    for unit in of_kind(cluster, ALL_IN_ONE, Unit):
        text = str(unit.content)
        assert "\nStartLimitIntervalSec=0\n" in text, unit.name
        assert "\nRestart=always\n" in text, unit.name
        assert "cloud-config.target" in text, unit.name
        assert "cloud-init.target" not in text, unit.name
        assert ("ConditionPathExists=" in text) == (unit.name != "containerd.service"), unit.name


def test_flags_of_the_user_arrive_escaped(tmp_path: Path) -> None:
    flags = """{kube-scheduler: {vmodule: 'a=1,"b c"=$HOME%n'}}"""
    cluster, _ = make_cluster(tmp_path, flags=flags)
    (unit,) = (u for u in of_kind(cluster, (Role.MASTER,), Unit) if u.name == "kube-scheduler.service")
    assert '  "--vmodule=a=1,\\"b c\\"=$$HOME%%n"' in str(unit.content)
