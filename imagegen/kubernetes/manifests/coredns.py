"""CoreDNS: cluster DNS on two pods behind the service address that every kubelet hands to its pods."""

from __future__ import annotations

from ipaddress import IPv4Address

from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.manifests.objects import (
    Manifest,
    cluster_role,
    cluster_role_binding,
    core,
    deployment,
    metadata,
    rule,
    service_account,
)

NAMESPACE = "kube-system"
_NAME = "coredns"
_SELECTOR = {"k8s-app": "kube-dns"}
_READY, _LOOP, _RELOAD = "    ready\n", "    loop\n", "    reload\n"
_LABELS = _SELECTOR | {"app.kubernetes.io/name": _NAME}


#: the program carries this capability as a file, and could not be started without it
SECURITY_CONTEXT: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def coredns(image: str, dns: IPv4Address, domain: str, gates: Gates) -> tuple[Manifest, ...]:
    """Every object of the add-on. ``image`` is a full reference, ``dns`` the service's ClusterIP.

    There are always two pods: on a cluster of one worker both run there, and an update never leaves DNS
    without an answer. Names and labels are those of kubeadm's CoreDNS, which other tools look for.
    """
    return (
        core("ServiceAccount", metadata(_NAME, namespace=NAMESPACE, labels=_LABELS)),
        cluster_role(
            "system:coredns",
            [
                rule([""], ["endpoints", "services", "pods", "namespaces"], ["list", "watch"]),
                rule(["discovery.k8s.io"], ["endpointslices"], ["list", "watch"]),
            ],
        ),
        cluster_role_binding("system:coredns", "system:coredns", service_account(_NAME, NAMESPACE)),
        core(
            "ConfigMap",
            metadata(_NAME, namespace=NAMESPACE, labels=_LABELS),
            data={"Corefile": corefile(domain, gates)},
        ),
        _deployment(image, gates),
        {
            "apiVersion": gates.choose("cluster", "policy/v1", "policy/v1beta1"),
            "kind": "PodDisruptionBudget",
            "metadata": metadata(_NAME, namespace=NAMESPACE, labels=_LABELS),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _SELECTOR}},
        },
        _service(dns),
    )


def corefile(domain: str, gates: Gates) -> str:
    """Answers for ``domain`` and reverse names; the rest goes to the resolvers of the node's own
    resolv.conf.
    """

    def optional(item: str, text: str) -> str:
        return text if gates.has(_NAME, item) else ""

    limit = optional("forward max_concurrent", " {\n        max_concurrent 1000\n    }")
    return (
        ".:53 {\n"
        "    errors\n"
        "    health {\n"
        "        lameduck 5s\n"
        "    }\n"
        f"{optional('plugin ready', _READY)}"
        f"    kubernetes {domain} in-addr.arpa ip6.arpa {{\n"
        "        pods insecure\n"
        "        fallthrough in-addr.arpa ip6.arpa\n"
        "        ttl 30\n"
        "    }\n"
        "    prometheus :9153\n"
        f"    forward . /etc/resolv.conf{limit}\n"
        "    cache 30\n"
        f"{optional('plugin loop', _LOOP)}"
        f"{optional('plugin reload', _RELOAD)}"
        "    loadbalance\n"
        "}\n"
    )


def _service(dns: IPv4Address) -> Manifest:
    return core(
        "Service",
        metadata(
            "kube-dns",
            namespace=NAMESPACE,
            labels=_LABELS | {"kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        ),
        spec={
            "clusterIP": str(dns),
            "selector": _SELECTOR,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": "dns-tcp"},
                {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": "metrics"},
            ],
        },
    )


def _deployment(image: str, gates: Gates) -> Manifest:
    spread = {
        "weight": 100,
        "podAffinityTerm": {
            "labelSelector": {"matchLabels": _SELECTOR},
            "topologyKey": "kubernetes.io/hostname",
        },
    }
    pod = {
        "serviceAccountName": _NAME,
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
        ],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [spread]}},
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "dnsPolicy": "Default",
        "containers": [_container(image, gates)],
        "volumes": [
            {
                "name": "config",
                "configMap": {"name": _NAME, "items": [{"key": "Corefile", "path": "Corefile"}]},
            }
        ],
    }
    head = metadata(_NAME, namespace=NAMESPACE, labels=_LABELS)
    return deployment(head, _SELECTOR, pod, replicas=2, update={"maxUnavailable": 1}, labels=_LABELS)


def _container(image: str, gates: Gates) -> Manifest:
    has_ready = gates.has(_NAME, "plugin ready")
    ready = {"path": "/ready", "port": 8181} if has_ready else {"path": "/health", "port": 8080}
    return {
        "name": _NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 9153, "protocol": "TCP"},
        ],
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": 8080},
            "initialDelaySeconds": 60,
            "timeoutSeconds": 5,
            "failureThreshold": 5,
        },
        "readinessProbe": {"httpGet": ready, "timeoutSeconds": 5},
        "securityContext": SECURITY_CONTEXT,
    }
