"""Every TLS connection of a cluster as data: who dials whom, by which name, trusting whom, as whom.

Of edges that differ only in which of several equal partners they join, as many are listed as it takes to have
each certificate on each of its sides; the list grows with the control plane, not with the workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from imagegen.content import Content
from imagegen.model.cluster import Addon, CertificateSet, Cluster, Cni, Layout, Node, Role
from imagegen.pki import inventory, kubeconfigs, spec
from imagegen.pki.inventory import LOOPBACK
from imagegen.pki.spec import CLUSTER_CA, ETCD_CA, FRONT_PROXY_CA, Subject

#: Stems of pairs that exist only during the proof: what the controller manager will sign for a kubelet, and
#: an aggregated API server that somebody installs later.
KUBELET_SERVER = "virtual/kubelet-server"
KUBELET_CLIENT = "virtual/kubelet-client"
EXTENSION_SERVER = "virtual/extension-server"
EXTENSION_HOST = "extension.example.svc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One connection. ``client`` and ``server`` are how people call the two ends (``etcd@etcd-1:2379``).

    ``pair`` and ``trust`` are stems in the store: the dialled side's certificate and the authority that the
    client judges it by. ``client_pair`` and ``client_trust`` are the other direction; both None when the
    client shows no certificate. With ``kubeconfig`` the client's half comes out of that file instead.
    ``source`` is the address that the client dials from, where the server compares it with the client's
    names, as etcd does.
    """

    client: str
    server: str
    hosts: tuple[str, ...]
    pair: str
    trust: str
    client_pair: str | None = None
    client_trust: str | None = None
    subject: Subject | None = None
    kubeconfig: Content | None = None
    source: str = ""

    def __str__(self) -> str:
        return f"edge {self.client} → {self.server}"


def list_edges(cluster: Cluster) -> Iterator[Edge]:
    """The edges in the order in which a cluster needs them: etcd, API server, everything that talks to it."""
    edges = _list_edges(cluster)
    if not inventory.is_single(cluster):
        yield from edges
        return
    merged = {
        leaf.name
        for node in cluster.nodes
        for leaf in inventory.list_node_certificates(_with_each(cluster), node)
        if inventory.is_merged(leaf)
    }
    for edge in edges:
        yield _use_single(edge, merged)


def _with_each(cluster: Cluster) -> Cluster:
    return replace(cluster, pki=replace(cluster.pki, certificates=CertificateSet.EACH))


def _use_single(edge: Edge, merged: set[str]) -> Edge:
    """The edge as it is when each node has one certificate, of the cluster's authority."""

    def find_stem(stem: str | None) -> str | None:
        return f"{stem.rpartition('/')[0]}/{spec.SINGLE}" if stem in merged and stem is not None else stem

    def find_trust(stem: str | None) -> str | None:
        return CLUSTER_CA if stem == ETCD_CA else stem

    return replace(
        edge,
        pair=find_stem(edge.pair) or edge.pair,
        trust=find_trust(edge.trust) or edge.trust,
        client_pair=find_stem(edge.client_pair),
        client_trust=find_trust(edge.client_trust),
        subject=spec.SINGLE_SUBJECT if edge.client_pair in merged else edge.subject,
    )


def _list_edges(cluster: Cluster) -> Iterator[Edge]:
    masters = cluster.nodes_with(Role.MASTER)
    yield from _list_etcd_edges(cluster)
    yield from _list_flannel_edges(cluster)
    for number, master in enumerate(masters):
        yield from _list_local_edges(cluster, master)
        yield from _list_endpoint_edges(cluster, master, number)
        if cluster.kubernetes.layout is not Layout.KUBEADM:
            yield from _list_serving_edges(master)
    yield from _list_kubelet_edges(cluster)
    yield from _list_metrics_edges(cluster)


def _address(node: Node) -> str:
    return str(node.address) if node.address else node.name


def _list_etcd_edges(cluster: Cluster) -> Iterator[Edge]:
    members, masters = cluster.nodes_with(Role.ETCD), cluster.nodes_with(Role.MASTER)
    for number in range(max(len(members), len(masters)) if members and masters else 0):
        member, master = members[number % len(members)], masters[number % len(masters)]
        yield Edge(
            client=f"kube-apiserver@{master.name}",
            server=f"etcd@{member.name}:2379",
            hosts=(_address(member),),
            pair=f"nodes/{member.name}/etcd-server",
            trust=ETCD_CA,
            client_pair=f"nodes/{master.name}/apiserver-etcd-client",
            client_trust=ETCD_CA,
            subject=Subject("kube-apiserver"),
            source=_address(master),
        )
    for number, member in enumerate(members):
        partner = members[(number + 1) % len(members)]
        yield Edge(
            client=f"etcd@{member.name}",
            server=f"etcd@{partner.name}:2380",
            hosts=(_address(partner),),
            pair=f"nodes/{partner.name}/etcd-peer",
            trust=ETCD_CA,
            client_pair=f"nodes/{member.name}/etcd-peer",
            client_trust=ETCD_CA,
            subject=Subject("etcd-peer"),
            source=_address(member),
        )
        for client, pair, subject in (
            ("etcdctl", "etcd-healthcheck-client", "kube-etcd-healthcheck-client"),
            ("etcd-gateway", "etcd-server", "etcd"),
        ):
            yield Edge(
                client=f"{client}@{member.name}",
                server=f"etcd@{member.name}:2379",
                hosts=("127.0.0.1", "localhost", _address(member)),
                pair=f"nodes/{member.name}/etcd-server",
                trust=ETCD_CA,
                client_pair=f"nodes/{member.name}/{pair}",
                client_trust=ETCD_CA,
                subject=Subject(subject),
                source=str(LOOPBACK),
            )


def _list_flannel_edges(cluster: Cluster) -> Iterator[Edge]:
    """flanneld of each node at some etcd member, where it keeps its subnets there."""
    members = cluster.nodes_with(Role.ETCD)
    if cluster.network.cni is not Cni.FLANNEL_ETCD or not members:
        return
    nodes = [node for node in cluster.nodes if node.has(Role.MASTER) or node.has(Role.WORKER)]
    for number, node in enumerate(nodes):
        member = members[number % len(members)]
        yield Edge(
            client=f"flanneld@{node.name}",
            server=f"etcd@{member.name}:2379",
            hosts=(_address(member),),
            pair=f"nodes/{member.name}/etcd-server",
            trust=ETCD_CA,
            client_pair=f"nodes/{node.name}/flannel",
            client_trust=ETCD_CA,
            subject=spec.FLANNEL_SUBJECT,
            source=_address(node),
        )


def _list_local_edges(cluster: Cluster, master: Node) -> Iterator[Edge]:
    """What runs on a master talks to the API server of that master, with a kubeconfig."""
    for client, subject, body in _list_local_clients(cluster, master):
        yield _from_kubeconfig(f"{client}@{master.name}", master, subject, body)


def _list_local_clients(cluster: Cluster, master: Node) -> Iterator[tuple[str, Subject, Content]]:
    """kubeadm issues the identities of the daemons on the master itself."""
    if cluster.kubernetes.layout is not Layout.KUBEADM:
        body = kubeconfigs.controller_manager_kubeconfig(cluster, master)
        yield "kube-controller-manager", spec.CONTROLLER_MANAGER_SUBJECT, body
        yield "kube-scheduler", spec.SCHEDULER_SUBJECT, kubeconfigs.scheduler_kubeconfig(cluster, master)
    if not cluster.joins_by_token(master.roles) and cluster.has_kubelet(master.roles):
        subject = Subject(f"system:node:{master.name}", "system:nodes")
        yield "kubelet", subject, kubeconfigs.master_kubelet_kubeconfig(cluster, master)
    yield "csr-approver", spec.CSR_APPROVER_SUBJECT, kubeconfigs.csr_approver_kubeconfig(cluster, master)
    yield "first-boot", spec.FIRST_BOOT_SUBJECT, kubeconfigs.first_boot_kubeconfig(cluster, master)


def _from_kubeconfig(
    client: str, master: Node, subject: Subject, body: Content, hosts: tuple[str, ...] = ()
) -> Edge:
    stem = next(part.name for part in body[3:] if not isinstance(part, str | bytes)).removesuffix(".crt")
    return Edge(
        client=client,
        server=f"kube-apiserver@{master.name}:6443",
        hosts=hosts,
        pair=f"nodes/{master.name}/apiserver",
        trust=CLUSTER_CA,
        client_pair=stem,
        client_trust=CLUSTER_CA,
        subject=subject,
        kubeconfig=body,
    )


def _list_endpoint_edges(cluster: Cluster, master: Node, number: int) -> Iterator[Edge]:
    """What reaches this master's API server through the endpoint, a load balancer or the Service."""
    names = (*inventory.service_names(cluster), str(cluster.network.api_service))
    balancers = cluster.nodes_with(Role.LB)
    through = tuple(host for node in balancers for host in dict.fromkeys((node.name, _address(node))))
    yield _from_kubeconfig(
        "admin", master, spec.ADMIN_SUBJECT, kubeconfigs.admin_kubeconfig(cluster), through
    )
    body = kubeconfigs.super_admin_kubeconfig(cluster)
    yield _from_kubeconfig(
        "super-admin", master, spec.SUPER_ADMIN_SUBJECT, body, (master.name, _address(master))
    )
    both = [node for node in cluster.kubelet_nodes if node.has(Role.MASTER)]
    if both and cluster.kubernetes.layout is not Layout.KUBEADM:
        node = both[number % len(both)]
        body = kubeconfigs.kube_proxy_kubeconfig(cluster, node)
        yield _from_kubeconfig(f"kube-proxy@{node.name}", master, spec.KUBE_PROXY_SUBJECT, body)
    kubelets = cluster.kubelet_nodes
    kubelet = f"kubelet@{kubelets[number % len(kubelets)].name}" if kubelets else "kubelet"
    anonymous = Edge(
        client=f"{kubelet} (bootstrap)",
        server=f"kube-apiserver@{master.name}:6443",
        hosts=(cluster.endpoint.host,),
        pair=f"nodes/{master.name}/apiserver",
        trust=CLUSTER_CA,
    )
    yield anonymous
    yield Edge(
        client="pods",
        server=anonymous.server,
        hosts=names,
        pair=anonymous.pair,
        trust=CLUSTER_CA,
    )


def _list_serving_edges(master: Node) -> Iterator[Edge]:
    """Probes and metrics of the controller manager and the scheduler."""
    for server, port in (("controller-manager", 10257), ("scheduler", 10259)):
        yield Edge(
            client="monitoring",
            server=f"kube-{server}@{master.name}:{port}",
            hosts=("127.0.0.1", "localhost", master.name, _address(master)),
            pair=f"nodes/{master.name}/{server}-server",
            trust=CLUSTER_CA,
        )


def _list_kubelet_edges(cluster: Cluster) -> Iterator[Edge]:
    """What only exists once the cluster runs: certificates that the cluster CA will sign, and aggregation."""
    kubelets, masters = cluster.kubelet_nodes, cluster.nodes_with(Role.MASTER)
    for number, master in enumerate(masters):
        if kubelets:
            kubelet = kubelets[number % len(kubelets)]
            yield Edge(
                client=f"kube-apiserver@{master.name}",
                server=f"kubelet@{kubelet.name}:10250",
                hosts=(_address(kubelets[0]),),
                pair=KUBELET_SERVER,
                trust=CLUSTER_CA,
                client_pair=f"nodes/{master.name}/apiserver-kubelet-client",
                client_trust=CLUSTER_CA,
                subject=spec.KUBELET_CLIENT_SUBJECT,
            )
            yield Edge(
                client=f"kubelet@{kubelet.name}",
                server=f"kube-apiserver@{master.name}:6443",
                hosts=(cluster.endpoint.host,),
                pair=f"nodes/{master.name}/apiserver",
                trust=CLUSTER_CA,
                client_pair=KUBELET_CLIENT,
                client_trust=CLUSTER_CA,
            )
        yield Edge(
            client=f"kube-apiserver@{master.name}",
            server="aggregated API server",
            hosts=(EXTENSION_HOST,),
            pair=EXTENSION_SERVER,
            trust=EXTENSION_SERVER,
            client_pair=f"nodes/{master.name}/front-proxy-client",
            client_trust=FRONT_PROXY_CA,
            subject=spec.FRONT_PROXY_SUBJECT,
        )


def _list_metrics_edges(cluster: Cluster) -> Iterator[Edge]:
    """metrics-server between the API server and the kubelets, both of which it proves or checks."""
    kubelets = cluster.kubelet_nodes
    if Addon.METRICS_SERVER not in cluster.addons or not kubelets:
        return
    for master in cluster.nodes_with(Role.MASTER):
        yield Edge(
            client=f"kube-apiserver@{master.name}",
            server="metrics-server",
            hosts=(inventory.METRICS_SERVER_HOST,),
            pair=spec.METRICS_SERVER,
            trust=CLUSTER_CA,
            client_pair=f"nodes/{master.name}/front-proxy-client",
            client_trust=FRONT_PROXY_CA,
            subject=spec.FRONT_PROXY_SUBJECT,
        )
    yield Edge(
        client="metrics-server",
        server=f"kubelet@{kubelets[0].name}:10250",
        hosts=(_address(kubelets[0]),),
        pair=KUBELET_SERVER,
        trust=CLUSTER_CA,
    )


def list_virtual_names(cluster: Cluster) -> tuple[str, str]:
    """Name and address of the kubelet whose future certificates take part in the proof."""
    kubelet = cluster.kubelet_nodes[0]
    return (kubelet.name, _address(kubelet))
