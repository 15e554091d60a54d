"""flannel with the VXLAN backend: one daemon a node that carries pod traffic between the pod ranges
of the nodes.
"""

from __future__ import annotations

from ipaddress import IPv4Network

from imagegen.emit import emit_json
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.manifests.objects import (
    Manifest,
    cluster_role,
    cluster_role_binding,
    core,
    daemon_set,
    metadata,
    rule,
    service_account,
)

_NAMESPACE = "kube-flannel"
VXLAN_PORT = 8472
#: Where the daemon tells the CNI plug-in which range the node has.
SUBNET_FILE = "/run/flannel/subnet.env"
_NAME = "flannel"
_SELECTOR = {"app.kubernetes.io/name": _NAME}


def find_namespace(gates: Gates) -> str:
    """A namespace of its own, where that may hold pods that the cluster cannot do without."""
    has_own = gates.has("cluster", "critical priority outside of kube-system")
    return _NAMESPACE if has_own else "kube-system"


def flannel(
    image: str, pods: IPv4Network, api: tuple[str, int], gates: Gates, *, nftables: bool
) -> tuple[Manifest, ...]:
    """Every object of the add-on. ``image`` is a full reference; ``api`` is host and port of the endpoint:
    the daemon need not wait until kube-proxy has made the service's address work.

    The plug-in and its configuration lie on the machine already, so that the image needs no shell to copy
    them. ``nftables`` says which of the two the daemon programs; it should be what kube-proxy uses.
    """
    namespace = find_namespace(gates)
    own: Manifest = core(
        "Namespace",
        # The daemon uses the host's network and host paths, which only "privileged" admits.
        metadata(namespace, labels={"pod-security.kubernetes.io/enforce": "privileged", "k8s-app": _NAME}),
    )
    return (
        *([own] if namespace == _NAMESPACE else []),
        core("ServiceAccount", metadata(_NAME, namespace=namespace, labels=_SELECTOR)),
        cluster_role(
            _NAME,
            [
                rule([""], ["pods"], ["get"]),
                rule([""], ["nodes"], ["get", "list", "watch"]),
                rule([""], ["nodes/status"], ["patch"]),
            ],
        ),
        cluster_role_binding(_NAME, _NAME, service_account(_NAME, namespace)),
        core(
            "ConfigMap",
            metadata(_NAME, namespace=namespace, labels=_SELECTOR),
            data={"net-conf.json": net_conf(pods, nftables=nftables)},
        ),
        _daemon_set(image, namespace, api),
    )


def net_conf(pods: IPv4Network, *, nftables: bool) -> str:
    """flannel's own configuration; the port is the kernel's default and stands in the firewall's
    port table.
    """
    return emit_json(
        {
            "Network": str(pods),
            "EnableNFTables": nftables,
            "Backend": {"Type": "vxlan", "Port": VXLAN_PORT},
        }
    )


def _daemon_set(image: str, namespace: str, api: tuple[str, int]) -> Manifest:
    pod = {
        "serviceAccountName": _NAME,
        "priorityClassName": "system-node-critical",
        "hostNetwork": True,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(image, api)],
        "volumes": [
            {"name": "run", "hostPath": {"path": "/run/flannel", "type": "DirectoryOrCreate"}},
            {
                "name": "xtables-lock",
                "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"},
            },
            {"name": "config", "configMap": {"name": _NAME}},
        ],
    }
    return daemon_set(metadata(_NAME, namespace=namespace, labels=_SELECTOR), _SELECTOR, pod)


def _container(image: str, api: tuple[str, int]) -> Manifest:
    host, port = api

    def from_field(path: str) -> Manifest:
        return {"fieldRef": {"fieldPath": path}}

    return {
        "name": _NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/opt/bin/flanneld"],
        # An address is a valid --iface: the interface that carries the node's own address, whatever has the
        # default route.
        "args": ["--ip-masq", "--kube-subnet-mgr", "--iface=$(NODE_ADDRESS)"],
        "env": [
            {"name": "POD_NAME", "valueFrom": from_field("metadata.name")},
            {"name": "POD_NAMESPACE", "valueFrom": from_field("metadata.namespace")},
            {"name": "NODE_ADDRESS", "valueFrom": from_field("status.hostIP")},
            {"name": "EVENT_QUEUE_DEPTH", "value": "5000"},
            {"name": "KUBERNETES_SERVICE_HOST", "value": host},
            {"name": "KUBERNETES_SERVICE_PORT", "value": str(port)},
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "50Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
        },
        "volumeMounts": [
            {"name": "run", "mountPath": "/run/flannel"},
            {"name": "xtables-lock", "mountPath": "/run/xtables.lock"},
            {"name": "config", "mountPath": "/etc/kube-flannel", "readOnly": True},
        ],
    }
