"""Minimum TLS version and cipher suites of every server in the cluster.

TLS 1.3 wherever both ends have it: Go has it since 1.13, OpenSSL since 1.1.1; else 1.2. Suites only matter
with that minimum; then only forward-secret AEAD suites are offered.
"""

from __future__ import annotations

from collections.abc import Mapping

from imagegen.kubernetes.gates import Gates, State
from imagegen.model.cluster import Cluster
from imagegen.model.systems import SYSTEMS
from imagegen.pki import paths

NEWEST = "VersionTLS13"
OLDER = "VersionTLS12"
#: the same in etcd's spelling
ETCD_MINIMUM = "TLS1.3"

#: RFC 5289 and RFC 7905; in the order of preference of Go
CIPHER_SUITES = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)


def minimum(cluster: Cluster, gates: Gates) -> str:
    """The oldest version of TLS that servers of Kubernetes speak, in the words of Go."""
    has_both = gates.has("all", "TLS 1.3") and SYSTEMS[cluster.image.os].has_tls_1_3
    return NEWEST if has_both else OLDER


def cipher_suites(gates: Gates) -> tuple[str, ...]:
    """The suites to choose from: those whose names this version knows."""
    return (
        CIPHER_SUITES if gates.has("all", "TLS_ECDHE_*_WITH_CHACHA20_POLY1305_SHA256") else CIPHER_SUITES[:4]
    )


def serving_arguments(cluster: Cluster, gates: Gates, component: str, certificate: str) -> dict[str, str]:
    """The TLS flags of a server whose key pair has the stem ``certificate``."""
    flags = {
        "tls-cert-file": f"{certificate}.crt",
        "tls-private-key-file": f"{certificate}.key",
        "tls-min-version": minimum(cluster, gates),
    }
    if needs_cipher_suites(cluster, gates, component):
        flags["tls-cipher-suites"] = ",".join(cipher_suites(gates))
    return gates.keep_known(component, flags)


def insecure_port_arguments(gates: Gates, component: str, flag: str) -> dict[str, str]:
    """Closes the port for plain HTTP that old versions open on every address unless told not to."""
    row = gates.find(component, f"--{flag}")
    opens = row is not None and row.state_in(gates.version) is not State.REMOVED
    return {flag: "0"} if opens and not gates.is_changed(component, f"--{flag}") else {}


def delegated_serving_arguments(
    gates: Gates, component: str, kubeconfig: str, serving: Mapping[str, str]
) -> dict[str, str]:
    """How the controller manager and the scheduler serve metrics and health: on loopback, to those whom the
    API server knows. ``serving`` are the flags of ``serving_arguments``.

    Versions that cannot ask the API server serve in plain HTTP, on loopback all the same.
    """
    if not gates.has(component, "--authentication-kubeconfig"):
        return {"address": "127.0.0.1"}
    return {
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "client-ca-file": paths.CA,
        "requestheader-client-ca-file": paths.FRONT_PROXY_CA,
        **insecure_port_arguments(gates, component, "port"),
        **serving,
    }


def needs_cipher_suites(cluster: Cluster, gates: Gates, component: str) -> bool:
    """Whether the component speaks a version in which suites can be chosen."""
    extra = cluster.kubernetes.extra_args_of(component)
    return extra.get("tls-min-version", minimum(cluster, gates)) != NEWEST
