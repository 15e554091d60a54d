"""One certificate a node: what it says, that every connection holds with it, and what keeps its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imagegen.diagnostics import Report
from imagegen.model.cluster import CertificateSet, Cluster, Cni
from imagegen.pki import inventory, spec
from imagegen.pki.spec import Usage
from imagegen.pki.verify import verify_edges
from tests.pki.clusters import all_in_one, ha, quickstart
from tests.pki.workshop import NOW, issue_store


def make_single(cluster: Cluster, cni: Cni = Cni.FLANNEL) -> Cluster:
    return replace(
        cluster,
        pki=replace(cluster.pki, certificates=CertificateSet.SINGLE),
        network=replace(cluster.network, cni=cni),
    )


@pytest.mark.parametrize("cni", [Cni.FLANNEL, Cni.FLANNEL_ETCD])
@pytest.mark.parametrize("make", [quickstart, ha, all_in_one])
def test_every_connection_holds(tmp_path: Path, make: object, cni: Cni) -> None:
    cluster = make_single(make(), cni)  # type: ignore[operator]
    store, report = issue_store(cluster, tmp_path / "secrets"), Report()
    proof = verify_edges(cluster, store, NOW, report)
    assert (proof.broken, report.findings) == (0, [])
    assert proof.edges >= 17
    assert not store.exists(f"{spec.ETCD_CA}.crt")


def test_a_master_has_one_certificate_and_its_identities() -> None:
    cluster = make_single(quickstart())
    leaves = {leaf.name: leaf for leaf in inventory.list_node_certificates(cluster, cluster.node("master-0"))}
    assert set(leaves) == {
        f"nodes/master-0/{name}"
        for name in (
            "controller-manager",
            "csr-approver",
            "first-boot",
            "front-proxy-client",
            "scheduler",
            "kubernetes",
        )
    }
    single = leaves["nodes/master-0/kubernetes"]
    assert (str(single.subject), single.issuer) == ("CN=kubernetes", spec.CLUSTER_CA)
    assert single.usages == (Usage.SERVER, Usage.CLIENT)
    assert {"kubernetes", "master-0", "localhost"} <= set(single.dns_names)
    assert cluster.network.api_service in single.addresses
    # the API server as a server, at kubelets and at etcd; two daemons as servers
    assert len({place.stem for place in (single.placement, *single.further) if place}) == 5


def test_a_worker_with_flannel_in_etcd_is_a_client_from_wherever_it_is() -> None:
    """etcd compares a client's address with those in its certificate, and DHCP tells nobody before."""
    cluster = make_single(quickstart(), Cni.FLANNEL_ETCD)
    (leaf,) = inventory.list_node_certificates(cluster, cluster.node("worker-1"))
    assert (leaf.usages, leaf.dns_names, leaf.addresses) == ((Usage.CLIENT,), (), ())


def test_each_stays_as_it_was() -> None:
    cluster = quickstart()
    assert all(not leaf.further for leaf in inventory.list_certificates(cluster))
    assert [authority.name for authority in inventory.list_authorities(cluster)] == [
        spec.CLUSTER_CA,
        spec.ETCD_CA,
        spec.FRONT_PROXY_CA,
    ]
