"""Clusters for tests of the PKI, built without a cluster file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network

from imagegen.model.cluster import (
    Access,
    Bootstrap,
    BootstrapMethod,
    Cluster,
    Cni,
    DiskFormat,
    Endpoint,
    Firmware,
    Image,
    ImageMode,
    ImagePki,
    KeyAlgorithm,
    Kubernetes,
    Layout,
    Network,
    Node,
    OperatingSystem,
    PkiPolicy,
    ProxyMode,
    Role,
    Runtime,
    Target,
)
from imagegen.model.version import Version

E, M, W, L = Role.ETCD, Role.MASTER, Role.WORKER, Role.LB


def make_node(name: str, roles: Sequence[Role], address: str | None) -> Node:
    return Node(name=name, roles=tuple(roles), address=IPv4Address(address) if address else None, mac=None)


def make_cluster(
    nodes: Sequence[Node],
    *,
    endpoint: str,
    key: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    lifetime: timedelta = timedelta(days=365),
    ca_lifetime: timedelta = timedelta(days=3650),
    name: str = "test",
) -> Cluster:
    return Cluster(
        name=name,
        kubernetes=Kubernetes(version=Version(1, 36, 4), layout=Layout.SYSTEMD, extra_args=()),
        network=Network(
            nodes=IPv4Network("10.240.0.0/16"),
            gateway=IPv4Address("10.240.0.1"),
            nameservers=(),
            services=IPv4Network("10.32.0.0/16"),
            pods=IPv4Network("10.200.0.0/16"),
            dns=IPv4Address("10.32.0.10"),
            domain="cluster.local",
            cni=Cni.FLANNEL,
            proxy=ProxyMode.NFTABLES,
            node_cidr_mask_size=24,
        ),
        endpoint=Endpoint(host=endpoint, port=6443),
        runtime=Runtime.CONTAINERD,
        pki=PkiPolicy(key=key, ca_lifetime=ca_lifetime, lifetime=lifetime),
        bootstrap=Bootstrap(
            method=BootstrapMethod.TOKEN, token_lifetime=timedelta(hours=24), approve_serving=True
        ),
        image=Image(
            os=OperatingSystem.DEBIAN_13,
            mode=ImageMode.GOLDEN,
            pki=ImagePki.SEED,
            size_mib=8192,
            firmware=(Firmware.BIOS,),
            formats=(DiskFormat.QCOW2,),
            snapshot=None,
            packages=(),
        ),
        targets=(Target.QEMU,),
        access=Access(user="ops", ssh_authorized_keys=()),
        nodes=tuple(nodes),
        profile_dirs=(),
        file="cluster.yaml",
    )


def quickstart(key: KeyAlgorithm = KeyAlgorithm.ECDSA_P256) -> Cluster:
    """1 etcd, 1 master, 2 workers, one of them by DHCP."""
    return make_cluster(
        [
            make_node("etcd-0", [E], "10.240.0.10"),
            make_node("master-0", [M], "10.240.0.11"),
            make_node("worker-0", [W], "10.240.0.21"),
            make_node("worker-1", [W], None),
        ],
        endpoint="10.240.0.11",
        key=key,
    )


def all_in_one(key: KeyAlgorithm = KeyAlgorithm.ECDSA_P256) -> Cluster:
    return make_cluster([make_node("solo", [E, M, W], "10.240.0.10")], endpoint="10.240.0.10", key=key)


def ha(key: KeyAlgorithm = KeyAlgorithm.ECDSA_P256, *, endpoint: str = "api.example.com") -> Cluster:
    """3 etcd, 3 masters, a load balancer, 3 workers; the endpoint is a DNS name."""
    nodes = [make_node(f"etcd-{i}", [E], f"10.240.0.1{i}") for i in range(3)]
    nodes += [make_node(f"master-{i}", [M], f"10.240.0.2{i}") for i in range(3)]
    nodes += [make_node("lb-0", [L], "10.240.0.30")]
    nodes += [make_node(f"worker-{i}", [W], f"10.240.0.4{i}") for i in range(3)]
    return make_cluster(nodes, endpoint=endpoint, key=key)


def with_workers(count: int) -> Cluster:
    """1 etcd, 1 master and ``count`` workers."""
    nodes = [make_node("etcd-0", [E], "10.240.0.10"), make_node("master-0", [M], "10.240.0.11")]
    nodes += [make_node(f"worker-{i}", [W], f"10.240.{1 + i // 250}.{1 + i % 250}") for i in range(count)]
    return make_cluster(nodes, endpoint="10.240.0.11")
