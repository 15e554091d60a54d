"""metrics-server: what ``kubectl top`` and autoscalers ask, behind the API server's aggregation layer.

It runs in the network of its node, so that API servers reach it from masters that are no part of the pod
network, and verifies the serving certificate of every kubelet. Reference: manifests/base of metrics-server.
"""

from __future__ import annotations

from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.manifests.objects import (
    Manifest,
    cluster_role,
    cluster_role_binding,
    core,
    deployment,
    metadata,
    role_binding,
    rule,
    service_account,
)

#: with the name of the service, what its certificate is for
NAMESPACE = "kube-system"
#: of the node, beside the kubelet's own
PORT = 4443
#: stand for base64 until the bytes are known: the cluster CA, the certificate of the server and its key
CA_MARK, CERTIFICATE_MARK, KEY_MARK = "@ca@", "@certificate@", "@key@"
_NAME = "metrics-server"
_SECRET = "metrics-server-tls"  # noqa: S105 - a name
_SELECTOR = {"k8s-app": _NAME}
_GROUP = "metrics.k8s.io"
#: of every pod: the CA that signs the kubelets' serving certificates, among others
_CLUSTER_CA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"


def metrics_server(image: str, gates: Gates) -> tuple[Manifest, ...]:
    """Every object but those of ``metrics_server_trust``. ``image`` is a full reference."""
    account = service_account(_NAME, NAMESPACE)
    stats = "nodes/metrics" if gates.has(_NAME, "kubelet endpoint /metrics/resource") else "nodes/stats"
    return (
        core("ServiceAccount", metadata(_NAME, namespace=NAMESPACE, labels=_SELECTOR)),
        cluster_role(
            "system:metrics-server",
            [rule([""], [stats], ["get"]), rule([""], ["nodes", "pods"], ["get", "list", "watch"])],
        ),
        cluster_role_binding("system:metrics-server", "system:metrics-server", account),
        cluster_role_binding("metrics-server:system:auth-delegator", "system:auth-delegator", account),
        role_binding(
            "metrics-server-auth-reader", NAMESPACE, "extension-apiserver-authentication-reader", account
        ),
        {
            **cluster_role(
                "system:aggregated-metrics-reader",
                [rule([_GROUP], ["nodes", "pods"], ["get", "list", "watch"])],
            ),
            "metadata": metadata(
                "system:aggregated-metrics-reader",
                labels={
                    f"rbac.authorization.k8s.io/aggregate-to-{name}": "true"
                    for name in ("admin", "edit", "view")
                },
            ),
        },
        core(
            "Service",
            metadata(_NAME, namespace=NAMESPACE, labels=_SELECTOR),
            spec={
                "selector": _SELECTOR,
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": "https"}],
            },
        ),
        _deployment(image, gates),
    )


def metrics_server_trust() -> tuple[Manifest, ...]:
    """The server's key pair as a Secret, and the API that it serves, judged by the cluster CA."""
    return (
        core(
            "Secret",
            metadata(_SECRET, namespace=NAMESPACE, labels=_SELECTOR),
            type="kubernetes.io/tls",
            data={"tls.crt": CERTIFICATE_MARK, "tls.key": KEY_MARK},
        ),
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": metadata(f"v1beta1.{_GROUP}", labels=_SELECTOR),
            "spec": {
                "service": {"name": _NAME, "namespace": NAMESPACE},
                "group": _GROUP,
                "version": "v1beta1",
                "caBundle": CA_MARK,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        },
    )


def metrics_server_arguments(gates: Gates) -> list[str]:
    """The command line."""
    arguments = [
        f"--kubelet-certificate-authority={_CLUSTER_CA}",
        "--kubelet-preferred-address-types=InternalIP",
        "--kubelet-use-node-status-port",
        "--metric-resolution=15s",
        f"--secure-port={PORT}",
        "--tls-cert-file=/etc/metrics-server/tls.crt",
        "--tls-private-key-file=/etc/metrics-server/tls.key",
    ]
    if not gates.has("cluster", "health paths without authorization"):
        arguments.append("--authorization-always-allow-paths=/livez,/readyz")
    return arguments


def _deployment(image: str, gates: Gates) -> Manifest:
    pod = {
        "serviceAccountName": _NAME,
        "priorityClassName": "system-cluster-critical",
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "fsGroup": 65532},
        "containers": [_container(image, gates)],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "tls", "secret": {"secretName": _SECRET, "defaultMode": 0o440}},
        ],
    }
    # the port belongs to the node: the old pod goes first
    update = {"maxSurge": 0, "maxUnavailable": 1}
    head = metadata(_NAME, namespace=NAMESPACE, labels=_SELECTOR)
    return deployment(head, _SELECTOR, pod, replicas=1, update=update)


def _container(image: str, gates: Gates) -> Manifest:
    def probe(path: str, **timing: int) -> Manifest:
        return {"httpGet": {"path": path, "port": "https", "scheme": "HTTPS"}, "periodSeconds": 10, **timing}

    return {
        "name": _NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": metrics_server_arguments(gates),
        "resources": {"requests": {"cpu": "100m", "memory": "70Mi"}, "limits": {"memory": "200Mi"}},
        "ports": [{"name": "https", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": probe("/readyz", initialDelaySeconds=10),
        "livenessProbe": probe("/livez", initialDelaySeconds=20, failureThreshold=6),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the container
            {"name": "tls", "mountPath": "/etc/metrics-server", "readOnly": True},
        ],
    }
