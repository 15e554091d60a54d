"""The objects of the smoke test: servers that say who they are, and probes that ask on behalf of the test.

Both are CoreDNS, the one image with a network client and server that is on every worker without a registry: a
server answers every TXT question with its own name, a probe forwards each zone to one target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imagegen.kubernetes.manifests.coredns import SECURITY_CONTEXT

PORT = 5353
_READY_PORT = 8181
SERVER, PROBE = "smoke-server", "smoke-probe"

SERVER_COREFILE = f"""\
.:{PORT} {{
    errors
    log
    ready :{_READY_PORT}
    template IN TXT . {{
        answer "{{{{ .Name }}}} 1 IN TXT \\"{{$POD_NAME}} {{$NODE_NAME}} {{$RELEASE}}\\""
    }}
}}
"""


def emit_probe_corefile(targets: Mapping[str, tuple[str, str]], domain: str) -> str:
    """``targets`` maps a zone to an address with its port and ``prefer_udp`` or ``force_tcp``; ``domain`` is
    asked of whoever answers the pods of the cluster.
    """
    blocks = [
        # a connection that is kept leads to the same pod again and again
        f"{zone}.:{PORT} {{\n    errors\n"
        f"    forward . {address} {{\n        {how}\n        expire 1ms\n    }}\n}}\n"
        for zone, (address, how) in targets.items()
    ]
    blocks.append(f"{domain}.:{PORT} {{\n    errors\n    forward . /etc/resolv.conf\n}}\n")
    blocks.append(f".:{PORT} {{\n    ready :{_READY_PORT}\n}}\n")
    return "".join(blocks)


def make_namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def make_config(name: str, corefile: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"Corefile": corefile},
    }


def make_service(name: str) -> dict[str, Any]:
    """A service with an address of its own and a node port, by UDP and TCP."""
    ports = [
        {"name": f"dns-{protocol.lower()}", "protocol": protocol, "port": 53, "targetPort": PORT}
        for protocol in ("UDP", "TCP")
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"type": "NodePort", "selector": {"app": name}, "ports": ports},
    }


def make_deployment(name: str, image: str, replicas: int, *, tolerate_seconds: int) -> dict[str, Any]:
    """Pods of one kind on different nodes; they leave a dead node after ``tolerate_seconds``."""
    labels = {"app": name}
    away = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    dead = [
        {
            "key": f"node.kubernetes.io/{what}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": tolerate_seconds,
        }
        for what in ("not-ready", "unreachable")
    ]
    spec = {
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [away]}},
        "automountServiceAccountToken": False,
        "containers": [_make_container(image)],
        "terminationGracePeriodSeconds": 1,
        "tolerations": dead,
        "volumes": [{"name": "config", "configMap": {"name": name}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            # two pods of one kind never share a node, so a new one needs the old one's place
            "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _make_container(image: str) -> dict[str, Any]:
    fields = (("POD_NAME", "metadata.name"), ("NODE_NAME", "spec.nodeName"))
    environment: Sequence[dict[str, Any]] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields
    ]
    return {
        "name": "coredns",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "env": [*environment, {"name": "RELEASE", "value": "1"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": _READY_PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "20Mi"}},
        "securityContext": dict(SECURITY_CONTEXT),
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
