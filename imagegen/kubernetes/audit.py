"""The audit policy: what the API server writes to its audit log, and at which level of detail.

The eleven rules of the upstream sample policy, brought up to date: leases and endpoint slices have taken the
place of the resources that they were written for, the kubelets' and load balancers' own traffic stays out
of the log, and no request body that carries a secret or a token is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen.kubernetes.gates import Gates

#: resources whose bodies hold credentials: never above Metadata
_CREDENTIALS = (
    {"group": "", "resources": ["secrets", "configmaps", "serviceaccounts/token"]},
    {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
)
#: API groups that are part of Kubernetes itself
_KNOWN_GROUPS = (
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
)


def audit_policy(gates: Gates) -> Mapping[str, Any]:
    """The policy object in the newest API version that this release reads."""
    api = gates.choose("kube-apiserver", "audit.k8s.io/v1 Policy", "audit.k8s.io/v1beta1 Policy")
    version, kind = api.split(" ")
    return {
        "apiVersion": version,
        "kind": kind,
        **({"omitStages": ["RequestReceived"]} if gates.has("kube-apiserver", "Policy.omitStages") else {}),
        "rules": [
            # probes and discovery say nothing about who did what
            {
                "level": "None",
                "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*"],
            },
            {"level": "None", "userGroups": ["system:authenticated"], "nonResourceURLs": ["/api*"]},
            # leader election and node heartbeats: several writes a second
            {
                "level": "None",
                "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"],
                "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
            },
            {
                "level": "None",
                "users": ["system:kube-controller-manager", "system:kube-scheduler"],
                "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
            },
            {
                "level": "None",
                "userGroups": ["system:nodes", "system:node-proxier"],
                "verbs": ["watch"],
                "resources": [
                    {"group": "", "resources": ["endpoints", "services", "services/status", "nodes"]},
                    {"group": "discovery.k8s.io", "resources": ["endpointslices"]},
                ],
            },
            {
                "level": "None",
                "userGroups": ["system:nodes"],
                "verbs": ["update", "patch"],
                "resources": [{"group": "", "resources": ["nodes/status", "pods/status"]}],
            },
            {"level": "None", "resources": [{"group": "", "resources": ["events"]}]},
            {"level": "Metadata", "resources": list(_CREDENTIALS)},
            {
                "level": "Metadata",
                "resources": [{"group": "", "resources": ["pods/log", "pods/status"]}],
            },
            {
                "level": "RequestResponse",
                "verbs": ["create", "update", "patch", "delete", "deletecollection"],
                "resources": [{"group": "", "resources": ["pods"]}],
            },
            {
                "level": "Request",
                "verbs": ["create", "update", "patch", "delete", "deletecollection"],
                "resources": [{"group": group} for group in _KNOWN_GROUPS],
            },
            {"level": "Metadata"},
        ],
    }
