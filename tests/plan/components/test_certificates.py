"""Where certificates, keys and kubeconfigs lie: each node its own, workers none."""

from __future__ import annotations

from typing import cast

import pytest

from imagegen.content import Ref
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.releases import Releases
from imagegen.model.cluster import Cluster, Node, Role
from imagegen.pki import inventory, paths
from imagegen.plan.component import Context
from imagegen.plan.components import certificates
from imagegen.plan.items import File, Phase
from tests.pki.clusters import all_in_one, ha, quickstart


def plan_files(cluster: Cluster, node: Node) -> dict[str, File]:
    """The files of one node by path; the component reads neither gates nor releases."""
    ctx = Context(cluster=cluster, gates=cast(Gates, None), releases=cast(Releases, None))
    items = (certificates.plan_role(ctx, node.roles) + certificates.plan_node(ctx, node)).items
    return {item.path: item for item in items if isinstance(item, File)}


def list_secrets(files: dict[str, File]) -> set[str]:
    return {
        part.name
        for file in files.values()
        for part in file.content
        if isinstance(part, Ref) and not part.public
    }


@pytest.mark.parametrize(
    "cluster", [quickstart(), all_in_one(), ha()], ids=["quickstart", "all-in-one", "ha"]
)
def test_node_gets_its_own_secrets_only(cluster: Cluster) -> None:
    shared = {"pki/ca.key", "pki/sa.key"}
    for node in cluster.nodes:
        secrets = list_secrets(plan_files(cluster, node))
        foreign = {name for name in secrets if not name.startswith(f"nodes/{node.name}/")}
        assert foreign == (shared if node.has(Role.MASTER) else set())


def test_pure_worker_has_a_token_and_no_key() -> None:
    cluster = quickstart()
    files = plan_files(cluster, cluster.node("worker-1"))
    assert list_secrets(files) == {"nodes/worker-1/bootstrap-token"}
    assert set(files) == {paths.CA, paths.KUBE_PROXY_KUBECONFIG, paths.BOOTSTRAP_KUBECONFIG}


def test_authority_keys_are_where_they_are_used() -> None:
    cluster = ha()
    for node in cluster.nodes:
        keys = {name for name in list_secrets(plan_files(cluster, node)) if name.endswith("ca.key")}
        assert keys == ({"pki/ca.key"} if node.has(Role.MASTER) else set())


def test_balancer_has_nothing() -> None:
    cluster = ha()
    assert plan_files(cluster, cluster.node("lb-0")) == {}


@pytest.mark.parametrize("cluster", [all_in_one(), ha()], ids=["all-in-one", "ha"])
def test_every_issued_leaf_lies_on_its_node(cluster: Cluster) -> None:
    for node in cluster.nodes:
        secrets = list_secrets(plan_files(cluster, node))
        assert {f"{each.name}.key" for each in inventory.list_node_certificates(cluster, node)} <= secrets


def test_files_with_secrets_are_closed_and_of_the_boot_phase() -> None:
    cluster = all_in_one()
    owners = {
        paths.USER_ETCD,
        paths.USER_APISERVER,
        paths.USER_CONTROLLER_MANAGER,
        paths.USER_SCHEDULER,
        paths.USER_CSR_APPROVER,
        "root",
    }
    files = plan_files(cluster, cluster.nodes[0])
    for file in files.values():
        assert file.phase is Phase.BOOT
        assert file.owner == file.group
        assert file.owner in owners
        if any(isinstance(part, Ref) and not part.public for part in file.content):
            assert file.mode == "0600", file.path
    assert files[paths.CA_KEY].owner == paths.USER_CONTROLLER_MANAGER
    assert files[f"{paths.ETCD_PEER}.key"].owner == paths.USER_ETCD
    assert files[paths.FIRST_BOOT_KUBECONFIG].owner == "root"
