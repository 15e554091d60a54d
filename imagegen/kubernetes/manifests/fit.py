"""Lowers API objects, which are written for the newest versions, to the forms that older API servers know.

From 1.19 on, objects pass unchanged but for what components ask the table about themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, cast

from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.manifests.objects import Manifest

_RBAC = "rbac.authorization.k8s.io"
#: apiVersion and kind as written → component of the rows, and the versions, best first
_APIS: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("apps/v1", "Deployment"): ("cluster", ("apps/v1", "apps/v1beta2", "apps/v1beta1")),
    ("apps/v1", "DaemonSet"): ("cluster", ("apps/v1", "apps/v1beta2", "extensions/v1beta1")),
    ("apiregistration.k8s.io/v1", "APIService"): (
        "cluster",
        ("apiregistration.k8s.io/v1", "apiregistration.k8s.io/v1beta1"),
    ),
    **{
        (f"{_RBAC}/v1", kind): ("kube-apiserver", (f"{_RBAC}/v1", f"{_RBAC}/v1beta1"))
        for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    },
}
_OS = "kubernetes.io/os"


def fit_objects(objects: Iterable[Manifest], gates: Gates) -> tuple[Manifest, ...]:
    """The objects as the API server of this version takes them; raises KeyError when it has no such API."""
    return tuple(_fit_object(cast("dict[str, Any]", body), gates) for body in objects)


def _fit_object(body: dict[str, Any], gates: Gates) -> Manifest:
    component, versions = _APIS.get((body["apiVersion"], body["kind"]), ("", ()))
    version = gates.choose(component, *versions) if versions else body["apiVersion"]
    template = body.get("spec", {}).get("template")
    changes = [change for item, change in _POD_CHANGES if not gates.has("cluster", item)]
    has_old_budget = body["kind"] == "PodDisruptionBudget" and not gates.has("cluster", _BUDGET)
    if version == body["apiVersion"] and not has_old_budget and not (template and changes):
        return body
    body = copy.deepcopy(body)
    body["apiVersion"] = version
    if has_old_budget:
        body["spec"]["minAvailable"] = body["spec"].pop("maxUnavailable")
    if template:
        for change in changes:
            change(body["spec"]["template"], gates)
    return body


def _annotate(template: dict[str, Any], key: str, value: str) -> None:
    template["metadata"].setdefault("annotations", {})[key] = value


def _without_priority(template: dict[str, Any], gates: Gates) -> None:
    if template["spec"].pop("priorityClassName", None) is not None:
        _annotate(template, "scheduler.alpha.kubernetes.io/critical-pod", "")


def _without_profile(template: dict[str, Any], gates: Gates) -> None:
    """The profile of the whole pod as an annotation, under the name that the version has for it."""
    security = template["spec"].get("securityContext", {})
    if security.pop("seccompProfile", None) is None:
        return
    if not security:
        del template["spec"]["securityContext"]
    is_named = gates.has("cluster", "seccomp profile runtime/default")
    value = "runtime/default" if is_named else "docker/default"
    _annotate(template, "seccomp.security.alpha.kubernetes.io/pod", value)


def _without_escalation(template: dict[str, Any], gates: Gates) -> None:
    for container in template["spec"]["containers"]:
        container.get("securityContext", {}).pop("allowPrivilegeEscalation", None)


def _without_path_types(template: dict[str, Any], gates: Gates) -> None:
    """A path of the host without a type is made as a folder, so what has to be a file is left out."""
    spec = template["spec"]
    paths = {volume["name"]: volume["hostPath"] for volume in spec.get("volumes", ()) if "hostPath" in volume}
    files = {name for name, path in paths.items() if path.pop("type", "") == "FileOrCreate"}
    spec["volumes"] = [volume for volume in spec.get("volumes", ()) if volume["name"] not in files]
    for container in spec["containers"]:
        mounts = container.get("volumeMounts", [])
        container["volumeMounts"] = [mount for mount in mounts if mount["name"] not in files]


def _with_old_label(template: dict[str, Any], gates: Gates) -> None:
    selector = template["spec"].get("nodeSelector", {})
    if _OS in selector:
        selector[f"beta.{_OS}"] = selector.pop(_OS)


_BUDGET = "PodDisruptionBudget.maxUnavailable"
#: what a version must have, else what happens to pods
_POD_CHANGES: tuple[tuple[str, Callable[[dict[str, Any], Gates], None]], ...] = (
    ("Pod.priorityClassName", _without_priority),
    ("Pod.seccompProfile", _without_profile),
    ("Pod.allowPrivilegeEscalation", _without_escalation),
    ("Pod.hostPath.type", _without_path_types),
    (_OS, _with_old_label),
)
