"""A sample application to look at: two pods behind a node port, which say over HTTP that they are well and
over DNS who has asked.

It is made of CoreDNS, whose image is on every node already, so it needs no registry.
"""

from __future__ import annotations

from imagegen.kubernetes.manifests import coredns
from imagegen.kubernetes.manifests.objects import (
    Manifest,
    core,
    deployment,
    metadata,
)

NAMESPACE = "sample"
_NAME = "sample"
_SELECTOR = {"app.kubernetes.io/name": _NAME}
_DNS_PORT, _HTTP_PORT = 5353, 8080
_COREFILE = f".:{_DNS_PORT} {{\n    errors\n    health\n    log\n    whoami\n}}\n"


def sample(image: str) -> tuple[Manifest, ...]:
    """Every object. ``image`` is CoreDNS."""
    return (
        core("Namespace", metadata(NAMESPACE)),
        core(
            "ConfigMap",
            metadata(_NAME, namespace=NAMESPACE, labels=_SELECTOR),
            data={"Corefile": _COREFILE},
        ),
        _deployment(image),
        core(
            "Service",
            metadata(_NAME, namespace=NAMESPACE, labels=_SELECTOR),
            spec={
                "type": "NodePort",
                "selector": _SELECTOR,
                "ports": [
                    {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"},
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
                ],
            },
        ),
    )


def _deployment(image: str) -> Manifest:
    pod = {
        "automountServiceAccountToken": False,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(image)],
        "volumes": [{"name": "config", "configMap": {"name": _NAME}}],
    }
    return deployment(metadata(_NAME, namespace=NAMESPACE, labels=_SELECTOR), _SELECTOR, pod, replicas=2)


def _container(image: str) -> Manifest:
    return {
        "name": _NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "96Mi"}},
        "ports": [
            {"name": "dns", "containerPort": _DNS_PORT, "protocol": "UDP"},
            {"name": "http", "containerPort": _HTTP_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}},
        "securityContext": coredns.SECURITY_CONTEXT,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
