"""Calico with the Kubernetes API as its store: addresses out of each node's pod range, routes by BGP, IPIP.

Unlike that of the other add-ons its CNI plug-in comes out of an image. Reference: charts/calico of
projectcalico/calico, with ``ipam: host-local``.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from imagegen.emit import emit_json
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.manifests.objects import (
    MANAGED_BY,
    Manifest,
    cluster_role,
    cluster_role_binding,
    core,
    daemon_set,
    metadata,
    rule,
    service_account,
)

NAMESPACE = "kube-system"
#: between nodes
BGP_PORT = 179
COMPONENT = "calico"
#: of the catalogue: what every node with pods needs
IMAGES = ("calico-node", "calico-cni")
_NAME = "calico-node"
_CONFIG = "calico-config"
_SELECTOR = {"k8s-app": _NAME}
_GROUP = "crd.projectcalico.org"
_POLICY_GROUP = "policy.networking.k8s.io"
#: an interface with 1460 (Compute Engine) carries IPIP, which takes 20
_MTU = "1440"
_HEALTH_PORT = 9099

#: plural → kind of Calico's own objects (libcalico-go/config/crd)
_CLUSTER_KINDS = {
    "bgpconfigurations": "BGPConfiguration",
    "bgpfilters": "BGPFilter",
    "bgppeers": "BGPPeer",
    "blockaffinities": "BlockAffinity",
    "caliconodestatuses": "CalicoNodeStatus",
    "clusterinformations": "ClusterInformation",
    "felixconfigurations": "FelixConfiguration",
    "globalnetworkpolicies": "GlobalNetworkPolicy",
    "globalnetworksets": "GlobalNetworkSet",
    "hostendpoints": "HostEndpoint",
    "ipamblocks": "IPAMBlock",
    "ipamconfigs": "IPAMConfig",
    "ipamhandles": "IPAMHandle",
    "ippools": "IPPool",
    "ipreservations": "IPReservation",
    "kubecontrollersconfigurations": "KubeControllersConfiguration",
    "stagedglobalnetworkpolicies": "StagedGlobalNetworkPolicy",
    "tiers": "Tier",
}
_NAMESPACED_KINDS = {
    "networkpolicies": "NetworkPolicy",
    "networksets": "NetworkSet",
    "stagedkubernetesnetworkpolicies": "StagedKubernetesNetworkPolicy",
    "stagednetworkpolicies": "StagedNetworkPolicy",
}
_POLICY_KINDS = {
    "adminnetworkpolicies": "AdminNetworkPolicy",
    "baselineadminnetworkpolicies": "BaselineAdminNetworkPolicy",
}


def calico(
    node_image: str, cni_image: str, pods: IPv4Network, gates: Gates, *, nftables: bool
) -> tuple[Manifest, ...]:
    """Every object of the add-on. ``nftables`` says that kube-proxy programs nftables, and so does Calico."""
    return (
        *_definitions(gates),
        core("ServiceAccount", metadata(_NAME, namespace=NAMESPACE, labels=_SELECTOR)),
        cluster_role(_NAME, _rules()),
        cluster_role_binding(_NAME, _NAME, service_account(_NAME, NAMESPACE)),
        core(
            "ConfigMap",
            metadata(_CONFIG, namespace=NAMESPACE, labels=_SELECTOR),
            data={"cni_network_config": cni_template()},
        ),
        _daemon_set(node_image, cni_image, pods, gates, nftables=nftables),
    )


def cni_template() -> str:
    """What the image's installer writes, with its own words in the places of the node's values."""
    plugin = {
        "type": "calico",
        "log_level": "info",
        "datastore_type": "kubernetes",
        "nodename": "__KUBERNETES_NODE_NAME__",
        "mtu": int(_MTU),
        "ipam": {"type": "host-local", "subnet": "usePodCidr"},
        "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": "__KUBECONFIG_FILEPATH__"},
    }
    portmap = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    return emit_json({"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [plugin, portmap]})


def _definitions(gates: Gates) -> Iterator[Manifest]:
    for plural, kind in _CLUSTER_KINDS.items():
        yield _definition(gates, _GROUP, "v1", plural, kind, "Cluster")
    for plural, kind in _NAMESPACED_KINDS.items():
        yield _definition(gates, _GROUP, "v1", plural, kind, "Namespaced")
    if gates.has(COMPONENT, "AdminNetworkPolicy"):
        for plural, kind in _POLICY_KINDS.items():
            yield _definition(gates, _POLICY_GROUP, "v1alpha1", plural, kind, "Cluster")


def _definition(gates: Gates, group: str, version: str, plural: str, kind: str, scope: str) -> Manifest:
    """A kind without a schema of its own: Calico is the only writer of most, and checks what people write."""
    api = gates.choose("cluster", "apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1")
    head: dict[str, object] = dict(metadata(f"{plural}.{group}"))
    if group.endswith(".k8s.io"):
        # the API server wants to know who has approved a kind in a group of Kubernetes
        head["annotations"] = {
            "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api/pull/30"
        }
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    spec: dict[str, object] = {"group": group, "scope": scope, "names": names}
    if api.endswith("/v1beta1"):
        spec["version"] = version
    else:
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        spec["versions"] = [
            {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        ]
    return {"apiVersion": api, "kind": "CustomResourceDefinition", "metadata": head, "spec": spec}


def _rules() -> list[Manifest]:
    own = sorted([*_CLUSTER_KINDS, *_NAMESPACED_KINDS])
    made = ["bgpconfigurations", "bgppeers", "clusterinformations", "felixconfigurations", "ippools", "tiers"]
    return [
        rule([""], ["configmaps"], ["get"]),
        rule([""], ["endpoints", "services"], ["get", "list", "watch"]),
        rule([""], ["namespaces", "nodes", "pods", "serviceaccounts"], ["get", "list", "watch"]),
        rule([""], ["nodes/status"], ["patch", "update"]),
        rule([""], ["pods/status"], ["patch"]),
        rule([""], ["serviceaccounts/token"], ["create"], names=[_NAME]),
        rule(["discovery.k8s.io"], ["endpointslices"], ["list", "watch"]),
        rule(["networking.k8s.io"], ["networkpolicies"], ["list", "watch"]),
        rule([_POLICY_GROUP], sorted(_POLICY_KINDS), ["list", "watch"]),
        rule([_GROUP], own, ["get", "list", "watch"]),
        rule([_GROUP], made, ["create", "update"]),
        rule([_GROUP], ["caliconodestatuses"], ["update"]),
    ]


def _daemon_set(
    node_image: str, cni_image: str, pods: IPv4Network, gates: Gates, *, nftables: bool
) -> Manifest:
    pod = {
        "serviceAccountName": _NAME,
        "priorityClassName": "system-node-critical",
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "initContainers": [_installer(cni_image, gates)],
        "containers": [_container(node_image, pods, nftables=nftables)],
        "volumes": [
            {"name": name, "hostPath": {"path": path, "type": kind}} for name, path, kind in _VOLUMES
        ],
    }
    head = metadata(_NAME, namespace=NAMESPACE, labels=_SELECTOR)
    return daemon_set(head, _SELECTOR, pod, labels=MANAGED_BY | _SELECTOR)


_VOLUMES = (
    ("cni-bin", "/opt/cni/bin", "DirectoryOrCreate"),
    ("cni-conf", "/etc/cni/net.d", "DirectoryOrCreate"),
    ("lib-modules", "/lib/modules", "Directory"),
    ("run-calico", "/var/run/calico", "DirectoryOrCreate"),
    ("lib-calico", "/var/lib/calico", "DirectoryOrCreate"),
    ("xtables-lock", "/run/xtables.lock", "FileOrCreate"),
)


def _installer(image: str, gates: Gates) -> Manifest:
    has_program = gates.has(COMPONENT, "installer /opt/cni/bin/install")
    return {
        "name": "install-cni",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/opt/cni/bin/install" if has_program else "/install-cni.sh"],
        "env": [
            {"name": "CNI_CONF_NAME", "value": "10-calico.conflist"},
            {
                "name": "CNI_NETWORK_CONFIG",
                "valueFrom": {"configMapKeyRef": {"name": _CONFIG, "key": "cni_network_config"}},
            },
            {"name": "KUBERNETES_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "CNI_MTU", "value": _MTU},
            {"name": "SLEEP", "value": "false"},
        ],
        "securityContext": {"privileged": True},
        "volumeMounts": [
            {"name": "cni-bin", "mountPath": "/host/opt/cni/bin"},
            {"name": "cni-conf", "mountPath": "/host/etc/cni/net.d"},
        ],
    }


def _container(image: str, pods: IPv4Network, *, nftables: bool) -> Manifest:
    settings = {
        "DATASTORE_TYPE": "kubernetes",
        "WAIT_FOR_DATASTORE": "true",
        # the ranges that the controller manager gives to nodes, instead of blocks of Calico's own
        "USE_POD_CIDR": "true",
        "CALICO_NETWORKING_BACKEND": "bird",
        "CLUSTER_TYPE": "k8s,bgp",
        "IP": "autodetect",
        "IP_AUTODETECTION_METHOD": "can-reach=$(NODE_ADDRESS)",
        "CALICO_IPV4POOL_CIDR": str(pods),
        "CALICO_IPV4POOL_IPIP": "Always",
        "CALICO_DISABLE_FILE_LOGGING": "true",
        "FELIX_DEFAULTENDPOINTTOHOSTACTION": "ACCEPT",
        "FELIX_HEALTHENABLED": "true",
        "FELIX_IPINIPMTU": _MTU,
        "FELIX_IPV6SUPPORT": "false",
        "FELIX_LOGSEVERITYSCREEN": "info",
        **({"FELIX_NFTABLESMODE": "Enabled"} if nftables else {}),
    }

    def probe(path: str) -> Manifest:
        get = {"host": "127.0.0.1", "path": path, "port": _HEALTH_PORT}
        return {"httpGet": get, "periodSeconds": 10, "failureThreshold": 6, "timeoutSeconds": 10}

    return {
        "name": _NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "NODENAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "NODE_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            *({"name": name, "value": value} for name, value in settings.items()),
        ],
        "securityContext": {"privileged": True},
        "resources": {"requests": {"cpu": "250m"}},
        "livenessProbe": {**probe("/liveness"), "initialDelaySeconds": 10},
        "readinessProbe": probe("/readiness"),
        "volumeMounts": [
            {"name": "cni-conf", "mountPath": "/host/etc/cni/net.d"},
            {"name": "lib-modules", "mountPath": "/lib/modules", "readOnly": True},
            {"name": "run-calico", "mountPath": "/var/run/calico"},
            {"name": "lib-calico", "mountPath": "/var/lib/calico"},
            {"name": "xtables-lock", "mountPath": "/run/xtables.lock"},
        ],
    }
