"""Pairs that exist only during a proof: what the CA will sign for a kubelet, and a foreign API server."""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import IPv4Address

from imagegen.diagnostics import Report
from imagegen.model.cluster import Cluster, KeyAlgorithm
from imagegen.pki import inventory, spec
from imagegen.pki.authorities import load_authority
from imagegen.pki.certificates import Authority, build_authority, build_leaf, encode_certificate
from imagegen.pki.edges import (
    EXTENSION_HOST,
    EXTENSION_SERVER,
    KUBELET_CLIENT,
    KUBELET_SERVER,
    list_virtual_names,
)
from imagegen.pki.handshake import KeyPair
from imagegen.pki.keys import SystemRandomness, encode_key
from imagegen.pki.spec import CertificateSpec, Subject, Usage
from imagegen.pki.store import SecretStore

_KEY = KeyAlgorithm.ECDSA_P256
_LIFETIME = timedelta(days=1)


def make_virtual_pairs(cluster: Cluster, store: SecretStore, now: datetime) -> dict[str, KeyPair]:
    """The virtual pairs by stem. The kubelet's are left out when the cluster CA cannot sign."""
    out = {EXTENSION_SERVER: _make_extension(now)}
    if not cluster.kubelet_nodes or not store.exists(f"{spec.CLUSTER_CA}.crt"):
        return out
    authority = load_authority(store, spec.CLUSTER_CA, Report(), now=now)
    if authority is None or authority.key is None:
        return out
    name, address = list_virtual_names(cluster)
    subject = Subject(f"system:node:{name}", "system:nodes")
    ip = inventory.parse_address(address)
    names, addresses = ((name,), (ip,) if ip else ())
    out[KUBELET_SERVER] = _make_pair(authority, subject, Usage.SERVER, names, addresses, now)
    out[KUBELET_CLIENT] = _make_pair(authority, subject, Usage.CLIENT, (), (), now)
    return out


def _make_extension(now: datetime) -> KeyPair:
    """An aggregated API server with a certificate of its own authority; the pair's file holds both."""
    randomness = SystemRandomness()
    ca_spec = spec.AuthoritySpec(
        name=EXTENSION_SERVER, subject=Subject("extension-ca"), key=_KEY, lifetime=_LIFETIME, why=""
    )
    key = randomness.make_key(_KEY)
    certificate = build_authority(ca_spec, key, now=now, randomness=randomness)
    authority = Authority(name=EXTENSION_SERVER, certificate=certificate, key=key)
    pair = _make_pair(authority, Subject("extension"), Usage.SERVER, (EXTENSION_HOST,), (), now)
    return KeyPair(pair.certificate + encode_certificate(certificate), pair.key)


def _make_pair(
    authority: Authority,
    subject: Subject,
    usage: Usage,
    names: tuple[str, ...],
    addresses: tuple[IPv4Address, ...],
    now: datetime,
) -> KeyPair:
    randomness = SystemRandomness()
    leaf_spec = CertificateSpec(
        name="virtual",
        issuer=authority.name,
        subject=subject,
        usages=(usage,),
        dns_names=names,
        addresses=addresses,
        node=None,
        key=_KEY,
        lifetime=_LIFETIME,
        placement=None,
        why="",
    )
    key = randomness.make_key(_KEY)
    leaf = build_leaf(leaf_spec, key, authority, now=now, randomness=randomness)
    return KeyPair(encode_certificate(leaf), encode_key(key))
