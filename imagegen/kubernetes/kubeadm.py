"""What kubeadm is told: the documents of ``kubeadm init`` and ``kubeadm join``, in the API of the version.

kubeadm knows most of what a cluster wants; here is only what differs from that. Shapes:
cmd/kubeadm/app/apis/kubeadm/v1beta1 to v1beta4 types.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imagegen.content import Content, Ref
from imagegen.emit import emit_yaml_documents
from imagegen.kubernetes import apiserver, controller_manager, kube_proxy, kubelet, scheduler
from imagegen.kubernetes.arguments import emit_exec_start
from imagegen.kubernetes.flags import list_flags
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.leader_election import leader_election_flags
from imagegen.kubernetes.releases import Releases
from imagegen.kubernetes.static_pods import fill_variables
from imagegen.kubernetes.tls import minimum
from imagegen.model.cluster import Cluster, KeyAlgorithm, Node, Role, Runtime
from imagegen.pki import inventory, paths, spec

COMPONENT = "kubeadm"
CONFIG = f"{paths.KUBERNETES}/kubeadm.yaml"
#: written by kubeadm
KUBELET_CONFIG = "/var/lib/kubelet/config.yaml"
KUBELET_FLAGS = "/var/lib/kubelet/kubeadm-flags.env"
KUBELET_KUBECONFIG = f"{paths.KUBERNETES}/kubelet.conf"
BOOTSTRAP_KUBECONFIG = f"{paths.KUBERNETES}/bootstrap-kubelet.conf"
#: tokens of this group may read what ``kubeadm join`` needs
TOKEN_GROUP = "system:bootstrappers:kubeadm:default-node-token"  # noqa: S105
#: what ``kubeadm join`` reads before it has a credential
CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
#: small machines need minutes where kubeadm waits for four
PATIENCE = "15m0s"

_DOCKER_SOCKET = "/var/run/dockershim.sock"
APIS = ("v1beta4", "v1beta3", "v1beta2", "v1beta1")
_CA_HASH = "@CA-HASH@"
_TOKEN = "@TOKEN@"  # noqa: S105

#: flags that kubeadm sets itself, from other fields or from what it finds below the folder of certificates
_OFAPISERVER = frozenset(
    {
        *("advertise-address", "allow-privileged", "anonymous-auth", "authorization-mode", "bind-address"),
        *("client-ca-file", "enable-admission-plugins", "enable-bootstrap-token-auth", "etcd-cafile"),
        *("etcd-certfile", "etcd-keyfile", "etcd-servers", "insecure-port", "kubelet-client-certificate"),
        *("kubelet-client-key", "kubelet-preferred-address-types", "proxy-client-cert-file"),
        *("proxy-client-key-file", "requestheader-allowed-names", "requestheader-client-ca-file"),
        *("requestheader-extra-headers-prefix", "requestheader-group-headers"),
        *("requestheader-username-headers", "secure-port", "service-account-key-file"),
        *("service-cluster-ip-range", "tls-cert-file", "tls-private-key-file"),
    }
)
_OF_CONTROLLER_MANAGER = frozenset(
    {
        *("authentication-kubeconfig", "authorization-kubeconfig", "bind-address", "client-ca-file"),
        *("cluster-cidr", "cluster-name", "cluster-signing-cert-file", "cluster-signing-key-file"),
        *("kubeconfig", "leader-elect", "port", "requestheader-client-ca-file", "root-ca-file"),
        *("service-account-private-key-file", "service-cluster-ip-range", "tls-cert-file"),
        *("tls-private-key-file", "use-service-account-credentials"),
    }
)
_KEYS = {
    KeyAlgorithm.ECDSA_P256: "ECDSA-P256",
    KeyAlgorithm.RSA_2048: "RSA-2048",
    KeyAlgorithm.RSA_3072: "RSA-3072",
    KeyAlgorithm.RSA_4096: "RSA-4096",
}


def choose_api(gates: Gates) -> str:
    """The newest configuration API that the version reads; raises KeyError before the first beta."""
    return gates.choose(COMPONENT, *APIS)


def is_first_master(cluster: Cluster, node: Node) -> bool:
    """Whether this node runs ``kubeadm init``; all others join it."""
    return node == cluster.nodes_with(Role.MASTER)[0]


def node_config(cluster: Cluster, gates: Gates, releases: Releases, node: Node) -> Content:
    """The file of one node: what ``init`` reads on the first master, else what ``join`` reads."""
    if is_first_master(cluster, node):
        documents = _list_init_documents(cluster, gates, releases, node)
    else:
        documents = [_join_configuration(cluster, gates, node)]
    return _place_secrets(emit_yaml_documents(documents), node)


def _list_init_documents(
    cluster: Cluster, gates: Gates, releases: Releases, node: Node
) -> list[Mapping[str, Any]]:
    return [
        _init_configuration(cluster, gates, node),
        cluster_configuration(cluster, gates, releases),
        {**kubelet.kubelet_config(cluster, gates), "staticPodPath": kubelet.STATIC_PODS},
        _proxy_configuration(cluster, gates),
    ]


def _head(gates: Gates, kind: str) -> dict[str, Any]:
    return {"apiVersion": f"kubeadm.k8s.io/{choose_api(gates)}", "kind": kind}


def _init_configuration(cluster: Cluster, gates: Gates, node: Node) -> dict[str, Any]:
    """The first master's own token stands for those of the others, which first boot brings in."""
    minutes = int(cluster.bootstrap.token_lifetime.total_seconds()) // 60
    token = {
        "token": _TOKEN,
        "description": f"node {node.name}",
        "groups": [TOKEN_GROUP],
        "ttl": f"{minutes // 60}h{minutes % 60}m0s",
        "usages": ["signing", "authentication"],
    }
    return {
        **_head(gates, "InitConfiguration"),
        "bootstrapTokens": [token],
        "localAPIEndpoint": _local_endpoint(node),
        "nodeRegistration": _node_registration(cluster, gates, node),
        **_timeouts(gates),
    }


def _join_configuration(cluster: Cluster, gates: Gates, node: Node) -> dict[str, Any]:
    endpoint = f"{cluster.endpoint.host}:{cluster.endpoint.port}"
    discovery: dict[str, Any] = {
        "bootstrapToken": {
            "apiServerEndpoint": endpoint,
            "caCertHashes": [f"sha256:{_CA_HASH}"],
            "token": _TOKEN,
        },
        "tlsBootstrapToken": _TOKEN,
    }
    if not _has_timeouts(gates):
        discovery["timeout"] = PATIENCE
    out = {**_head(gates, "JoinConfiguration"), "caCertPath": paths.CA}
    if node.has(Role.MASTER):
        out["controlPlane"] = {"localAPIEndpoint": _local_endpoint(node)}
    return {
        **out,
        "discovery": discovery,
        "nodeRegistration": _node_registration(cluster, gates, node),
        **_timeouts(gates),
    }


def _local_endpoint(node: Node) -> dict[str, Any]:
    return {"advertiseAddress": str(node.address), "bindPort": apiserver.SECURE_PORT}


def _node_registration(cluster: Cluster, gates: Gates, node: Node) -> dict[str, Any]:
    has_docker = cluster.runtime is Runtime.DOCKER
    out: dict[str, Any] = {
        "criSocket": _DOCKER_SOCKET if has_docker else kubelet.RUNTIME_ENDPOINT,
        "name": node.name,
    }
    if node.address is not None:
        out["kubeletExtraArgs"] = _extra_args(gates, {"node-ip": str(node.address)})
    if node.has(Role.MASTER) and node.has(Role.WORKER):
        # none: else kubeadm keeps other pods away
        out["taints"] = []
    return out


def _has_timeouts(gates: Gates) -> bool:
    """v1beta4 gathers all patience in one place."""
    return choose_api(gates) == "v1beta4"


def _timeouts(gates: Gates) -> dict[str, Any]:
    if not _has_timeouts(gates):
        return {}
    names = ("controlPlaneComponentHealthCheck", "discovery", "kubeletHealthCheck", "tlsBootstrap")
    return {"timeouts": dict.fromkeys(names, PATIENCE)}


def _extra_args(gates: Gates, arguments: Mapping[str, str]) -> Any:
    """A map, or the list of pairs that v1beta4 wants."""
    if choose_api(gates) != "v1beta4":
        return dict(arguments)
    return [{"name": name, "value": value} for name, value in arguments.items()]


def cluster_configuration(cluster: Cluster, gates: Gates, releases: Releases) -> Mapping[str, Any]:
    """ClusterConfiguration: the whole cluster, the same on every master."""
    dns, _, tag = releases.image("coredns").rpartition(":")
    api: dict[str, Any] = {
        "extraArgs": _extra_args(gates, apiserver_arguments(cluster, gates)),
        "extraVolumes": list(_list_volumes(gates)),
    }
    if not _has_timeouts(gates):
        api["timeoutForControlPlane"] = PATIENCE
    out = {
        **_head(gates, "ClusterConfiguration"),
        "apiServer": api,
        "certificatesDir": paths.PKI,
        "clusterName": cluster.name,
        "controlPlaneEndpoint": f"{cluster.endpoint.host}:{cluster.endpoint.port}",
        "controllerManager": {"extraArgs": _extra_args(gates, controller_manager_arguments(cluster, gates))},
        "dns": {"imageRepository": dns.rpartition("/")[0], "imageTag": tag},
        "etcd": {"external": _external_etcd(cluster)},
        "imageRepository": releases.image(apiserver.COMPONENT).rpartition("/")[0],
        "kubernetesVersion": f"v{cluster.kubernetes.version}",
        "networking": {
            "dnsDomain": cluster.network.domain,
            "podSubnet": str(cluster.network.pods),
            "serviceSubnet": str(cluster.network.services),
        },
        "scheduler": {"extraArgs": _extra_args(gates, scheduler_arguments(cluster, gates))},
    }
    if _has_timeouts(gates) and cluster.pki.key in _KEYS:
        out["encryptionAlgorithm"] = _KEYS[cluster.pki.key]
    return out


def _external_etcd(cluster: Cluster) -> dict[str, Any]:
    return {
        "endpoints": apiserver.etcd_servers(cluster).split(","),
        "caFile": paths.APISERVER_ETCD_CA,
        "certFile": f"{paths.APISERVER_ETCD_CLIENT}.crt",
        "keyFile": f"{paths.APISERVER_ETCD_CLIENT}.key",
    }


def apiserver_arguments(cluster: Cluster, gates: Gates) -> dict[str, str]:
    """What kubeadm does not say by itself, and the user's flags.

    Anonymous requests stay possible where they cannot be limited: kubeadm's probes and ``join`` make some.
    """
    extra = cluster.kubernetes.extra_args_of(apiserver.COMPONENT)
    ours = apiserver.apiserver_arguments(cluster, gates)
    kept = {n: v for n, v in ours.items() if n in extra or n not in _without_issuer(gates)}
    return fill_variables(kept, apiserver.apiserver_environment(cluster, gates))


def _without_issuer(gates: Gates) -> frozenset[str]:
    """kubeadm names an issuer of tokens where the API server wants one (#95896@1.20)."""
    issuer = {"service-account-issuer", "service-account-signing-key-file"}
    row = gates.row(apiserver.COMPONENT, "--service-account-issuer")
    return _OFAPISERVER | issuer if row.changed and gates.version >= row.changed else _OFAPISERVER


def kubelet_exec_start(cluster: Cluster) -> str:
    """The kubelet's command: identity and file are where kubeadm puts them, its flags stand between ours."""
    ours = {
        "bootstrap-kubeconfig": BOOTSTRAP_KUBECONFIG,
        "config": KUBELET_CONFIG,
        "kubeconfig": KUBELET_KUBECONFIG,
    }
    command = emit_exec_start("/usr/local/bin/kubelet", ours)
    extra = emit_exec_start("", cluster.kubernetes.extra_args_of(kubelet.COMPONENT))
    return f"{command}\n$KUBELET_KUBEADM_ARGS{extra}"


def controller_manager_arguments(cluster: Cluster, gates: Gates) -> dict[str, str]:
    extra = cluster.kubernetes.extra_args_of(controller_manager.COMPONENT)
    ours = controller_manager.controller_manager_arguments(cluster, gates)
    return {n: str(v) for n, v in ours.items() if n in extra or n not in _OF_CONTROLLER_MANAGER}


def scheduler_arguments(cluster: Cluster, gates: Gates) -> dict[str, str]:
    known = list_flags(scheduler.COMPONENT, cluster.kubernetes.version)
    ours = {
        **leader_election_flags(),
        "profiling": "false",
        "tls-min-version": minimum(cluster, gates),
        "v": "2",
    }
    extra = cluster.kubernetes.extra_args_of(scheduler.COMPONENT)
    return dict(sorted({**{n: v for n, v in ours.items() if n in known}, **extra}.items()))


def _list_volumes(gates: Gates) -> Sequence[dict[str, Any]]:
    """The files that our flags name, and the folder of the audit log."""
    files = {"audit-policy": apiserver.AUDIT_POLICY, "encryption": apiserver.ENCRYPTION_CONFIG}
    if apiserver.limits_anonymous(gates):
        files["authentication"] = apiserver.AUTHENTICATION_CONFIG
    volumes: list[dict[str, Any]] = [
        {"name": name, "hostPath": path, "mountPath": path, "readOnly": True, "pathType": "File"}
        for name, path in sorted(files.items())
    ]
    log = apiserver.AUDIT_DIRECTORY
    return [
        *volumes,
        {"name": "audit-log", "hostPath": log, "mountPath": log, "pathType": "DirectoryOrCreate"},
    ]


def _proxy_configuration(cluster: Cluster, gates: Gates) -> Mapping[str, Any]:
    """kube-proxy runs as a pod with an account of its own, and finds its kubeconfig where kubeadm puts it."""
    config = dict(kube_proxy.kube_proxy_config(cluster, gates))
    config.pop("clientConnection", None)
    return config


def _place_secrets(text: str, node: Node) -> Content:
    """``text`` with references for its marks; both lie in quotes or need none."""
    refs = {
        _CA_HASH: Ref(f"{spec.CLUSTER_CA}.crt", public=True, encoding="spki-sha256"),
        _TOKEN: Ref(inventory.bootstrap_token_name(node.name)),
    }
    parts: list[str | bytes | Ref] = [text]
    for mark, ref in refs.items():
        split: list[str | bytes | Ref] = []
        for part in parts:
            if not isinstance(part, str):
                split.append(part)
                continue
            first, *rest = part.split(mark)
            split.append(first)
            for one in rest:
                split += (ref, one)
        parts = split
    return tuple(parts)
