"""Small constructors of API objects that several manifests need. Knows shapes, not what they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

#: One API object, ready for ``imagegen.emit.emit_yaml``.
Manifest = Mapping[str, object]

#: On every object that imagegen applies, so that ``kubectl get -l`` finds them all.
MANAGED_BY = {"app.kubernetes.io/managed-by": "imagegen"}

_RBAC = "rbac.authorization.k8s.io"


def metadata(name: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Manifest:
    """Object metadata with the ``managed-by`` label."""
    out: dict[str, object] = {"name": name}
    if namespace is not None:
        out["namespace"] = namespace
    return out | {"labels": MANAGED_BY | dict(labels or {})}


def core(kind: str, head: Manifest, **body: object) -> Manifest:
    """An object of the API ``v1``; ``head`` is its metadata."""
    return {"apiVersion": "v1", "kind": kind, "metadata": head, **body}


def deployment(
    head: Manifest,
    selector: Mapping[str, str],
    pod: Manifest,
    *,
    replicas: int,
    update: Mapping[str, int] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Manifest:
    """Pods like ``pod``, a spec. ``update`` says how many may be missing or too many; ``labels`` are those of
    the pods where they have more than the selector wants.
    """
    strategy = {} if update is None else {"strategy": {"type": "RollingUpdate", "rollingUpdate": update}}
    spec = {"replicas": replicas, **strategy, "selector": {"matchLabels": dict(selector)}}
    return _workload("Deployment", head, spec, pod, labels or selector)


def daemon_set(
    head: Manifest, selector: Mapping[str, str], pod: Manifest, *, labels: Mapping[str, str] | None = None
) -> Manifest:
    """One pod like ``pod``, a spec, on every node, updated one after the other."""
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    spec = {"selector": {"matchLabels": dict(selector)}, "updateStrategy": update}
    return _workload("DaemonSet", head, spec, pod, labels or selector)


def _workload(
    kind: str, head: Manifest, spec: Manifest, pod: Manifest, labels: Mapping[str, str]
) -> Manifest:
    template = {"metadata": {"labels": dict(labels)}, "spec": pod}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": head, "spec": {**spec, "template": template}}


def group(name: str) -> Manifest:
    """A Group as a subject of a binding."""
    return {"kind": "Group", "name": name, "apiGroup": _RBAC}


def user(name: str) -> Manifest:
    """A User as a subject of a binding."""
    return {"kind": "User", "name": name, "apiGroup": _RBAC}


def service_account(name: str, namespace: str) -> Manifest:
    """A ServiceAccount as a subject of a binding."""
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def rule(
    groups: Sequence[str], resources: Sequence[str], verbs: Sequence[str], *, names: Sequence[str] = ()
) -> Manifest:
    """One RBAC rule; ``names`` limits it to objects of these names."""
    out: dict[str, object] = {"apiGroups": list(groups), "resources": list(resources)}
    if names:
        out["resourceNames"] = list(names)
    return out | {"verbs": list(verbs)}


def cluster_role(name: str, rules: Iterable[Manifest]) -> Manifest:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": metadata(name),
        "rules": list(rules),
    }


def cluster_role_binding(name: str, cluster_role_name: str, subject: Manifest) -> Manifest:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": metadata(name),
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": cluster_role_name},
        "subjects": [subject],
    }


def role(name: str, namespace: str, rules: Iterable[Manifest]) -> Manifest:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "Role",
        "metadata": metadata(name, namespace=namespace),
        "rules": list(rules),
    }


def role_binding(name: str, namespace: str, role_name: str, subject: Manifest) -> Manifest:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": metadata(name, namespace=namespace),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": role_name},
        "subjects": [subject],
    }
