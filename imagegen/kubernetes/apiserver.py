"""Flags and configuration files of kube-apiserver as functions of the cluster and the version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen.content import Content, Ref
from imagegen.emit import emit_yaml
from imagegen.kubernetes.arguments import Arguments, FromEnvironment, merge_arguments
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.tls import insecure_port_arguments, serving_arguments
from imagegen.model.cluster import Addon, BootstrapMethod, Cluster, Role
from imagegen.pki import paths

COMPONENT = "kube-apiserver"
SECURE_PORT = 6443
ETCD_CLIENT_PORT = 2379

AUDIT_POLICY = f"{paths.KUBERNETES}/audit-policy.yaml"
AUDIT_DIRECTORY = "/var/log/kubernetes"
AUTHENTICATION_CONFIG = f"{paths.KUBERNETES}/authentication.yaml"
#: the tokens of ``bootstrap.method: token-file``
TOKEN_FILE = f"{paths.KUBERNETES}/token.csv"
ENCRYPTION_CONFIG = f"{paths.KUBERNETES}/encryption.yaml"
#: ETCD_SERVERS and GOAWAY_CHANCE: what depends on the list of nodes
ENVIRONMENT = f"{paths.KUBERNETES}/kube-apiserver.env"

#: what was recommended while --admission-control named every plug-in
_OLD_ADMISSION = (
    *("NamespaceLifecycle", "LimitRanger", "ServiceAccount", "DefaultStorageClass"),
    "DefaultTolerationSeconds",
)
_WEBHOOKS = ("MutatingAdmissionWebhook", "ValidatingAdmissionWebhook")

#: what anyone may ask without a credential: a load balancer's health check and nothing else
ANONYMOUS_PATHS = ("/livez", "/readyz", "/healthz")


def limits_anonymous(gates: Gates) -> bool:
    """Whether anonymous requests can be limited to the health endpoints; else they are off altogether.

    Where they are off, a health check without a credential gets 401 from a server that is up.
    """
    return gates.has(COMPONENT, "AuthenticationConfiguration.anonymous.conditions")


def apiserver_arguments(cluster: Cluster, gates: Gates) -> Arguments:
    """Every flag, the user's over ours. Variables are those of ``ENVIRONMENT`` and of the node's own file."""
    extra = cluster.kubernetes.extra_args_of(COMPONENT)
    network = cluster.network
    ours: dict[str, str | FromEnvironment] = {
        "advertise-address": FromEnvironment("NODE_ADDRESS"),
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC" if gates.has(COMPONENT, "--authorization-mode=Node") else "RBAC",
        "bind-address": "0.0.0.0",  # noqa: S104 - the API is what this machine serves
        "client-ca-file": paths.CA,
        "profiling": "false",
        "secure-port": str(SECURE_PORT),
        "service-cluster-ip-range": str(network.services),
        "v": "2",
        **insecure_port_arguments(gates, COMPONENT, "insecure-port"),
        **serving_arguments(cluster, gates, COMPONENT, paths.APISERVER),
        **_authentication_arguments(cluster, gates),
        **_admission_arguments(gates),
        **_audit_arguments(gates),
        **_etcd_arguments(),
        **_kubelet_arguments(),
        **gates.keep_known(COMPONENT, _aggregation_arguments(cluster)),
        **_service_account_arguments(network.domain, gates),
        **_encryption_arguments(gates),
        **_reconciler_arguments(gates),
    }
    if gates.has(COMPONENT, "--goaway-chance"):
        ours["goaway-chance"] = FromEnvironment("GOAWAY_CHANCE")
    return merge_arguments(_without_conflicts(ours, extra), extra)


def _without_conflicts(
    ours: dict[str, str | FromEnvironment], extra: Mapping[str, str]
) -> dict[str, str | FromEnvironment]:
    """Our flags without those that the API server refuses beside one that the user wrote."""
    if "authorization-config" in extra:
        ours.pop("authorization-mode", None)
    if "anonymous-auth" in extra or any(flag.startswith("oidc-") for flag in extra):
        ours.pop("authentication-config", None)
        ours.setdefault("anonymous-auth", "false")
    if "admission-control" in extra:
        ours.pop("enable-admission-plugins", None)
    return ours


def _authentication_arguments(cluster: Cluster, gates: Gates) -> dict[str, str]:
    if cluster.bootstrap.method is BootstrapMethod.TOKEN_FILE:
        flags = {"token-auth-file": TOKEN_FILE}
    else:
        name = gates.choose(COMPONENT, "--enable-bootstrap-token-auth", "--experimental-bootstrap-token-auth")
        flags = {name.removeprefix("--"): "true"}
    if limits_anonymous(gates):
        return flags | {"authentication-config": AUTHENTICATION_CONFIG}
    return flags | {"anonymous-auth": "false"}


def _admission_arguments(gates: Gates) -> dict[str, str]:
    """NodeRestriction beside the defaults; the whole list where naming one replaces them."""
    ours = ["NodeRestriction"] if gates.has(COMPONENT, "--authorization-mode=Node") else []
    if gates.has(COMPONENT, "--enable-admission-plugins"):
        return {"enable-admission-plugins": ",".join(ours)}
    webhooks = [name for name in _WEBHOOKS if gates.has(COMPONENT, name)]
    # ResourceQuota last: it counts what the others have let through
    return {"admission-control": ",".join([*_OLD_ADMISSION, *ours, *webhooks, "ResourceQuota"])}


def _reconciler_arguments(gates: Gates) -> dict[str, str | FromEnvironment]:
    """What keeps several API servers from removing each other's endpoint; leases do by default later."""
    if gates.is_changed(COMPONENT, "--apiserver-count"):
        return {}
    if gates.has(COMPONENT, "--endpoint-reconciler-type"):
        return {"endpoint-reconciler-type": "lease"}
    return {"apiserver-count": FromEnvironment("APISERVER_COUNT")}


def has_audit_policy(gates: Gates) -> bool:
    """Whether the API server reads an audit policy; before, its log has a line for every request."""
    return any(gates.has(COMPONENT, f"audit.k8s.io/{version} Policy") for version in ("v1", "v1beta1"))


def _audit_arguments(gates: Gates) -> dict[str, str]:
    if not has_audit_policy(gates):
        rotation = {"audit-log-maxage": "30", "audit-log-maxbackup": "10", "audit-log-maxsize": "100"}
        return {**rotation, "audit-log-path": f"{AUDIT_DIRECTORY}/audit.log"}
    return {
        "audit-log-format": "json",
        "audit-log-maxage": "30",
        "audit-log-maxbackup": "10",
        "audit-log-maxsize": "100",
        "audit-log-path": f"{AUDIT_DIRECTORY}/audit.log",
        "audit-policy-file": AUDIT_POLICY,
    }


def _etcd_arguments() -> dict[str, str | FromEnvironment]:
    return {
        "etcd-cafile": paths.APISERVER_ETCD_CA,
        "etcd-certfile": f"{paths.APISERVER_ETCD_CLIENT}.crt",
        "etcd-keyfile": f"{paths.APISERVER_ETCD_CLIENT}.key",
        "etcd-servers": FromEnvironment("ETCD_SERVERS"),
    }


def _kubelet_arguments() -> dict[str, str]:
    return {
        "kubelet-certificate-authority": paths.CA,
        "kubelet-client-certificate": f"{paths.APISERVER_KUBELET_CLIENT}.crt",
        "kubelet-client-key": f"{paths.APISERVER_KUBELET_CLIENT}.key",
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
    }


def _aggregation_arguments(cluster: Cluster) -> dict[str, str]:
    """How aggregated API servers know us, and how we reach them.

    Service addresses work on no master without kube-proxy: then requests go to the endpoints themselves.
    """
    routing = {"enable-aggregator-routing": "true"} if Addon.METRICS_SERVER in cluster.addons else {}
    return {
        **routing,
        "proxy-client-cert-file": f"{paths.FRONT_PROXY_CLIENT}.crt",
        "proxy-client-key-file": f"{paths.FRONT_PROXY_CLIENT}.key",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": paths.FRONT_PROXY_CA,
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
    }


def _service_account_arguments(domain: str, gates: Gates) -> dict[str, str]:
    flags = {"service-account-key-file": paths.SERVICE_ACCOUNT_PUBLIC}
    if gates.has(COMPONENT, "bound service account tokens"):
        flags["service-account-issuer"] = f"https://kubernetes.default.svc.{domain}"
        flags["service-account-signing-key-file"] = paths.SERVICE_ACCOUNT_KEY
    return flags | gates.keep_known(COMPONENT, {"service-account-extend-token-expiration": "false"})


def has_encryption(gates: Gates) -> bool:
    """Whether Secrets can be encrypted in etcd."""
    return gates.has(COMPONENT, "EncryptionConfiguration.resources.providers.secretbox")


def _encryption_arguments(gates: Gates) -> dict[str, str]:
    if not has_encryption(gates):
        return {}
    name = gates.choose(
        COMPONENT, "--encryption-provider-config", "--experimental-encryption-provider-config"
    )
    flags = {name.removeprefix("--"): ENCRYPTION_CONFIG}
    if gates.has(COMPONENT, "--encryption-provider-config-automatic-reload"):
        flags["encryption-provider-config-automatic-reload"] = "true"
    return flags


def etcd_servers(cluster: Cluster) -> str:
    """The value of ``--etcd-servers``: every member, in the order of the cluster file."""
    return ",".join(f"https://{n.address}:{ETCD_CLIENT_PORT}" for n in cluster.nodes_with(Role.ETCD))


def apiserver_environment(cluster: Cluster, gates: Gates) -> dict[str, str]:
    """The variables of ``ENVIRONMENT``.

    With several servers behind one address, one request in a thousand asks its client to reconnect, so that
    connections spread again after a server was away (KEP 1972, ``--goaway-chance``).
    """
    spread = len(cluster.nodes_with(Role.MASTER)) > 1
    count = {name: str(len(cluster.nodes_with(Role.MASTER))) for name in _named(_reconciler_arguments(gates))}
    return {"ETCD_SERVERS": etcd_servers(cluster), "GOAWAY_CHANCE": "0.001" if spread else "0", **count}


def _named(flags: Mapping[str, str | FromEnvironment]) -> list[str]:
    return [value.variable for value in flags.values() if isinstance(value, FromEnvironment)]


def authentication_config(gates: Gates, more: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """AuthenticationConfiguration that limits anonymous requests; only for ``limits_anonymous`` versions.

    ``more``: paths beside those of health.
    """
    api = gates.choose(
        COMPONENT,
        "apiserver.config.k8s.io/v1 AuthenticationConfiguration",
        "apiserver.config.k8s.io/v1beta1 AuthenticationConfiguration",
    )
    version, kind = api.split(" ")
    return {
        "apiVersion": version,
        "kind": kind,
        "anonymous": {"enabled": True, "conditions": [{"path": path} for path in (*ANONYMOUS_PATHS, *more)]},
    }


def encryption_config(gates: Gates) -> Content:
    """EncryptionConfiguration: Secrets are written with secretbox; what is there unencrypted stays readable.

    The key is a reference into the secret store, which holds it in base64 as the file wants it.
    """
    api = gates.choose(COMPONENT, "apiserver.config.k8s.io/v1 EncryptionConfiguration", "v1 EncryptionConfig")
    version, kind = api.split(" ")
    mark = "@SECRETBOX-KEY@"
    text = emit_yaml(
        {
            "apiVersion": version,
            "kind": kind,
            "resources": [
                {
                    "resources": ["secrets"],
                    "providers": [
                        {"secretbox": {"keys": [{"name": "key1", "secret": mark}]}},
                        {"identity": {}},
                    ],
                }
            ],
        }
    )
    before, after = text.replace(f"'{mark}'", mark).split(mark)
    return (before, Ref("encryption/secretbox-key"), after)
