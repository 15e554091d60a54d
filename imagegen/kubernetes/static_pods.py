"""The control plane as static pods: one pod a daemon, started by the kubelet of its own master.

Shapes follow kubeadm (cmd/kubeadm/app/phases/controlplane), but no container runs as root, and none can
write anything but the audit log. Which field exists when is in the table of gates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagegen.kubernetes import apiserver, controller_manager, kubelet, scheduler
from imagegen.kubernetes.arguments import Arguments, FromEnvironment
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.manifests.objects import Manifest
from imagegen.model.cluster import Layout
from imagegen.pki import paths

MANIFESTS = kubelet.STATIC_PODS
NAMESPACE = "kube-system"
COMPONENTS = (apiserver.COMPONENT, controller_manager.COMPONENT, scheduler.COMPONENT)

#: The numbers by which containers know the owners of files on their machine. The middle of the range of
#: system users, which programs fill from both ends.
USER_IDS = {
    paths.USER_APISERVER: 640,
    paths.USER_CONTROLLER_MANAGER: 641,
    paths.USER_SCHEDULER: 642,
}
_CPU = {apiserver.COMPONENT: "250m", controller_manager.COMPONENT: "200m", scheduler.COMPONENT: "100m"}
_PROBE_SECONDS = 10
#: an API server waits for etcd, and a small machine needs minutes for its first start
_START_ATTEMPTS = 90
_SECURE_PORTS = {
    apiserver.COMPONENT: apiserver.SECURE_PORT,
    controller_manager.COMPONENT: controller_manager.SECURE_PORT,
    scheduler.COMPONENT: scheduler.SECURE_PORT,
}
_INSECURE_PORTS = {
    controller_manager.COMPONENT: controller_manager.INSECURE_PORT,
    scheduler.COMPONENT: scheduler.INSECURE_PORT,
}


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the machine, at the same path in the container."""

    name: str
    path: str
    is_writable: bool = False


CONFIGURATION = Mount("configuration", paths.KUBERNETES)
AUDIT_LOG = Mount("audit-log", apiserver.AUDIT_DIRECTORY, is_writable=True)


def user_id(layout: Layout, user: str) -> int | None:
    """The fixed number of a user that a container runs as; None where the system may choose."""
    return USER_IDS[user] if layout is Layout.STATIC_PODS else None


def manifest_path(component: str) -> str:
    """Where the kubelet finds the pod of a component."""
    return f"{MANIFESTS}/{component}.yaml"


def control_plane_pod(component: str, image: str, arguments: Arguments, gates: Gates) -> Manifest:
    """The static pod of one daemon of the control plane; raises KeyError for another component.

    ``arguments`` hold no variables any more (``fill_variables``).
    """
    mounts = [CONFIGURATION]
    if component == apiserver.COMPONENT:
        mounts.append(AUDIT_LOG)
    container: dict[str, Any] = {
        "name": component,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [component, *(f"--{name}={value}" for name, value in arguments.items())],
        **_probes(component, gates),
        "resources": {"requests": {"cpu": _CPU[component]}},
        "securityContext": _container_security(component, gates),
        # the end of the log is in the pod's status, also when the API server is what does not start
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [_volume_mount(mount) for mount in mounts],
    }
    metadata: dict[str, Any] = {
        "name": component,
        "namespace": NAMESPACE,
        "labels": {"component": component, "tier": "control-plane"},
    }
    spec: dict[str, Any] = {"hostNetwork": True}
    if gates.has("cluster", "Pod.priorityClassName"):
        # the kubelet knows the number only, and nobody resolves the name for it
        spec |= {"priority": 2000001000, "priorityClassName": "system-node-critical"}
    else:
        metadata["annotations"] = {"scheduler.alpha.kubernetes.io/critical-pod": ""}
    spec |= {
        "securityContext": _pod_security(component, gates),
        "containers": [container],
        "volumes": [_volume(mount, gates) for mount in mounts],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def fill_variables(arguments: Arguments, values: Mapping[str, str]) -> dict[str, str]:
    """``arguments`` with what a unit would take from its environment; raises KeyError for an unknown one."""
    return {
        name: values[value.variable] if isinstance(value, FromEnvironment) else value
        for name, value in arguments.items()
    }


def _probes(component: str, gates: Gates) -> dict[str, Any]:
    """Alive while it answers; given time to start where a version can tell starting from hanging."""
    liveness: dict[str, Any] = {
        **_question(component, gates, "livez"),
        "failureThreshold": 8,
        "periodSeconds": _PROBE_SECONDS,
        "timeoutSeconds": 15,
    }
    if not gates.has("cluster", "Pod.startupProbe"):
        return {"livenessProbe": {**liveness, "initialDelaySeconds": 120}}
    probes: dict[str, Any] = {"livenessProbe": liveness}
    if component == apiserver.COMPONENT:
        probes["readinessProbe"] = {
            **_question(component, gates, "readyz"),
            "failureThreshold": 3,
            "periodSeconds": 1,
            "timeoutSeconds": 15,
        }
    probes["startupProbe"] = {**liveness, "failureThreshold": _START_ATTEMPTS}
    return probes


def _question(component: str, gates: Gates, path: str) -> dict[str, Any]:
    """What the kubelet asks, which has no credential of its own for it."""
    port = _SECURE_PORTS[component]
    if component == apiserver.COMPONENT:
        if not apiserver.limits_anonymous(gates):
            # without a credential it says 401, and the kubelet takes that for a failure
            return {"tcpSocket": {"host": "127.0.0.1", "port": port}}
        return _http(path, port, "HTTPS")
    if gates.has(component, "--authentication-kubeconfig"):
        return _http("healthz", port, "HTTPS")
    return _http("healthz", _INSECURE_PORTS[component], "HTTP")


def _http(path: str, port: int, scheme: str) -> dict[str, Any]:
    return {"httpGet": {"host": "127.0.0.1", "path": f"/{path}", "port": port, "scheme": scheme}}


def _pod_security(component: str, gates: Gates) -> dict[str, Any]:
    number = USER_IDS[component]
    security: dict[str, Any] = {"runAsNonRoot": True, "runAsUser": number}
    if gates.has("cluster", "Pod.runAsGroup"):
        security["runAsGroup"] = number
    if gates.has("cluster", "Pod.seccompProfile"):
        security["seccompProfile"] = {"type": "RuntimeDefault"}
    return security


def _container_security(component: str, gates: Gates) -> dict[str, Any]:
    capabilities: dict[str, list[str]] = {"drop": ["ALL"]}
    if component == apiserver.COMPONENT:
        # the program in the official image has this as a file capability, and would not start without
        capabilities["add"] = ["NET_BIND_SERVICE"]
    security: dict[str, Any] = {"capabilities": capabilities, "readOnlyRootFilesystem": True}
    if gates.has("cluster", "Pod.allowPrivilegeEscalation"):
        security = {"allowPrivilegeEscalation": False, **security}
    return security


def _volume_mount(mount: Mount) -> dict[str, Any]:
    out: dict[str, Any] = {"name": mount.name, "mountPath": mount.path}
    return out if mount.is_writable else {**out, "readOnly": True}


def _volume(mount: Mount, gates: Gates) -> dict[str, Any]:
    host: dict[str, str] = {"path": mount.path}
    if gates.has("cluster", "Pod.hostPath.type"):
        host["type"] = "Directory"
    return {"name": mount.name, "hostPath": host}
