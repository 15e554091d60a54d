"""Proves every TLS edge of a cluster from what lies in the store, before anything boots.

Each edge is a real handshake inside this process, plus what TLS does not check and Kubernetes or etcd do: who
the client is, dates at a given moment, key pairs, authorities. Every finding names its edge.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import yaml

from imagegen.diagnostics import Report, register_code
from imagegen.model.cluster import Cluster
from imagegen.pki import inventory, spec
from imagegen.pki.authorities import format_time, load_authority
from imagegen.pki.certificates import (
    CertificateFault,
    decode_certificate,
    find_differences,
    find_foreign_source,
    is_authority,
    make_name,
    read_subject,
)
from imagegen.pki.edges import Edge, list_edges
from imagegen.pki.handshake import KeyPair, PairError, Refusal, forget_contexts, try_handshake
from imagegen.pki.keys import KeyFault, can_sign_tokens, decode_key, decode_public_key
from imagegen.pki.resolve import resolve_content
from imagegen.pki.store import SecretStore, StoreError
from imagegen.pki.virtual import make_virtual_pairs

REFUSED = register_code(
    "IMG320",
    "a TLS connection of the cluster would be refused",
    "The handshake was made with the certificates in the store, and one side refused the other. The "
    "message names the two ends, who refused, and why. If the certificates are imagegen's own, render "
    "again; if they are yours, compare names, usages and authority with imagegen pki show.",
)
WRONG_IDENTITY = register_code(
    "IMG321",
    "a client would connect as somebody else",
    "Kubernetes takes the user from CN and the groups from O of a client certificate. With another "
    "subject the connection works and every request is denied, or worse, allowed.",
)
WRONG_TIME = register_code(
    "IMG322",
    "a certificate is not valid now, or longer than its authority",
    "Every peer refuses an expired or not yet valid certificate. Renew it: imagegen pki renew CLUSTER. If "
    "the dates look wrong, check the clock of this machine.",
)
WRONG_FORM = register_code(
    "IMG323",
    "a certificate is not what the cluster file asks for",
    "Names, usages, subject or key algorithm differ from the specification (imagegen pki show). The next "
    "render issues it again.",
)
PAIR_BROKEN = register_code(
    "IMG324",
    "a certificate or key is missing, unreadable, or one does not belong to the other",
    "The process that should use the pair would not start. Remove what is broken and render again: only "
    "that is issued anew.",
)
ACCOUNT_BROKEN = register_code(
    "IMG325",
    "the service-account key pair is broken",
    "API servers check tokens with sa.pub that they and the controller manager sign with sa.key. When the "
    "two do not belong together, no pod can talk to the API.",
)


_MAX_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was shown: how many edges, how many handshakes, how many of the edges are broken."""

    edges: int
    handshakes: int
    broken: int


def verify_edges(cluster: Cluster, store: SecretStore, now: datetime, report: Report) -> Proof:
    """Check every edge of ``cluster`` with the store's material at ``now``; findings go to ``report``.

    Writes nothing. Work and memory grow with the control plane only. Raises StoreError when the store itself
    cannot be used, as when a key may be read by others.
    """
    verifier = _Verifier(
        cluster=cluster,
        store=store,
        now=now,
        specs={each.name: each for each in inventory.list_certificates(cluster)},
        pairs=make_virtual_pairs(cluster, store, now),
    )
    try:
        results = [verifier.verify_edge(edge) for edge in list_edges(cluster)]
    finally:
        forget_contexts()
    verifier.report_findings(report)
    _verify_service_account(store, report)
    return Proof(edges=len(results), handshakes=verifier.handshakes, broken=results.count(False))


def _list_stems(edge: Edge) -> tuple[str, ...]:
    """Everything that takes part in an edge, authorities first."""
    return tuple(dict.fromkeys(filter(None, (edge.trust, edge.client_trust, edge.pair, edge.client_pair))))


def _name_others(edges: Sequence[Edge]) -> str:
    """The further edges that one fault breaks; the first few by name."""
    if not edges:
        return ""
    named = ", ".join(f"{edge.client} → {edge.server}" for edge in edges[:_MAX_NAMED])
    more = f" and {len(edges) - _MAX_NAMED} more" if len(edges) > _MAX_NAMED else ""
    return f" (also {named}{more})"


@dataclass(frozen=True, slots=True)
class _End:
    """The client's half of an edge: what it shows, what it trusts, and which hosts it dials."""

    pair: KeyPair | None
    trust: bytes
    hosts: tuple[str, ...]


class _KubeconfigFault(Exception):
    """A kubeconfig cannot be read; the message says why."""


#: a code and a message without its edge
_Fault = tuple[str, str]


@dataclass(slots=True, kw_only=True)
class _Verifier:
    cluster: Cluster
    store: SecretStore
    now: datetime
    specs: dict[str, spec.CertificateSpec]
    pairs: dict[str, KeyPair]
    handshakes: int = 0
    #: what is wrong with each stem by itself
    faults: dict[str, list[_Fault]] = field(default_factory=dict)
    #: where certificates differ from their specification; what that breaks, the handshakes show
    differences: dict[str, list[str]] = field(default_factory=dict)
    #: the first edge that uses a stem, and the first of them that is broken
    first_users: dict[str, Edge] = field(default_factory=dict)
    first_broken: dict[str, Edge] = field(default_factory=dict)
    #: every fault with the edges that it breaks, in order of discovery
    found: dict[_Fault, list[Edge]] = field(default_factory=dict)

    def verify_edge(self, edge: Edge) -> bool:
        """Try one edge; whether it holds."""
        faults: list[_Fault] = []
        stems = _list_stems(edge)
        for stem in stems:
            if stem not in self.faults:
                self.faults[stem] = list(self._check_stem(stem))
                self.first_users[stem] = edge
            faults += self.faults[stem]
        if not faults and edge.client_pair in self.specs:
            faults += self._check_identity(edge, edge.client_pair)
        if not faults:
            faults += self._shake(edge)
        for fault in faults:
            self.found.setdefault(fault, []).append(edge)
        for stem in stems if faults else ():
            self.first_broken.setdefault(stem, edge)
        return not faults and not any(self.differences.get(stem) for stem in stems)

    def report_findings(self, report: Report) -> None:
        """Each fault once with the edges that it breaks; each difference at one that it breaks, if any."""
        for (code, message), edges in self.found.items():
            report.error(code, f"{edges[0]}: {message}{_name_others(edges[1:])}", path=edges[0].pair)
        for stem, differences in self.differences.items():
            edge = self.first_broken.get(stem) or self.first_users[stem]
            for difference in differences:
                report.error(WRONG_FORM, f"{edge}: {stem}.crt: {difference}", path=stem)

    def _check_stem(self, stem: str) -> Iterator[_Fault]:
        """What is wrong with a certificate by itself."""
        if stem in self.specs:
            yield from self._check_leaf(self.specs[stem])
        elif stem in self.pairs:
            return
        elif stem.startswith("virtual/"):
            yield PAIR_BROKEN, f"{spec.CLUSTER_CA}.key is not there to sign what a kubelet asks for"
        elif not self.store.exists(f"{stem}.crt"):
            yield PAIR_BROKEN, f"{stem}.crt is missing"
        else:
            scratch = Report()
            load_authority(self.store, stem, scratch, now=self.now)
            yield from ((finding.code, finding.message) for finding in scratch.findings)

    def _check_leaf(self, wanted: spec.CertificateSpec) -> Iterator[_Fault]:
        name = wanted.name
        for entry in (f"{name}.crt", f"{name}.key"):
            if not self.store.exists(entry):
                yield PAIR_BROKEN, f"{entry} is missing"
                return
        try:
            certificate = decode_certificate(self.store.read(f"{name}.crt"))
            key = decode_key(self.store.read(f"{name}.key"))
        except (CertificateFault, KeyFault) as fault:
            yield PAIR_BROKEN, f"{name}: {fault}"
            return
        if key.public_key() != certificate.public_key():
            yield PAIR_BROKEN, f"{name}.key does not belong to {name}.crt"
            return
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if self.now > end:
            yield WRONG_TIME, f"{name}.crt expired on {format_time(end)}"
        if self.now < start:
            yield WRONG_TIME, f"{name}.crt is valid only from {format_time(start)} on"
        try:
            authority = decode_certificate(self.store.read(f"{wanted.issuer}.crt"))
        except (CertificateFault, StoreError):
            return  # told where the authority is checked
        if end > authority.not_valid_after_utc:
            last = format_time(authority.not_valid_after_utc)
            yield WRONG_TIME, f"{name}.crt ends on {format_time(end)}, after its authority ({last})"
        self.differences[name] = find_differences(certificate, wanted, authority)
        if is_authority(certificate):
            self.differences[name].append("it could sign certificates itself")

    def _check_identity(self, edge: Edge, stem: str) -> Iterator[_Fault]:
        """Who the client is to the server, and for etcd whether its names fit the address it dials from."""
        certificate = decode_certificate(self.store.read(f"{stem}.crt"))
        if edge.subject is not None and certificate.subject != make_name(edge.subject):
            got = read_subject(certificate)
            yield WRONG_IDENTITY, f"the client is {got}, wanted {edge.subject}"
        if edge.source and find_foreign_source(certificate, edge.source):
            yield WRONG_IDENTITY, f"etcd refuses {stem}.crt from {edge.source}, not one of its addresses"

    def _shake(self, edge: Edge) -> Iterator[_Fault]:
        server = self._load_pair(edge.pair)
        trust = self.store.read(f"{edge.client_trust}.crt") if edge.client_trust else None
        try:
            client = self._read_end(edge)
            for host in dict.fromkeys(client.hosts):
                self.handshakes += 1
                refusal = try_handshake(
                    server=server,
                    server_trust=client.trust,
                    client=client.pair,
                    client_trust=trust,
                    host=host,
                )
                if refusal is not None:
                    yield REFUSED, _explain_refusal(edge, refusal, host)
        except (PairError, _KubeconfigFault) as error:
            yield PAIR_BROKEN, str(error)

    def _read_end(self, edge: Edge) -> _End:
        """The client's half, out of its kubeconfig when it has one."""
        if edge.kubeconfig is not None:
            return _read_kubeconfig(edge, resolve_content(edge.kubeconfig, self.store))
        if edge.trust in self.pairs:
            trust = self.pairs[edge.trust].certificate
        else:
            trust = self.store.read(f"{edge.trust}.crt")
        pair = self._load_pair(edge.client_pair) if edge.client_pair else None
        return _End(pair, trust, edge.hosts)

    def _load_pair(self, stem: str) -> KeyPair:
        if stem not in self.pairs:
            self.pairs[stem] = KeyPair(self.store.read(f"{stem}.crt"), self.store.read(f"{stem}.key"))
        return self.pairs[stem]


def _read_kubeconfig(edge: Edge, text: bytes) -> _End:
    try:
        config: Any = yaml.load(text, Loader=_LOADER)  # noqa: S506
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        trust = base64.b64decode(cluster["certificate-authority-data"], validate=True)
        certificate = base64.b64decode(user["client-certificate-data"], validate=True)
        key = base64.b64decode(user["client-key-data"], validate=True)
        host = urlsplit(cluster["server"]).hostname or ""
    except (yaml.YAMLError, KeyError, IndexError, TypeError, binascii.Error) as error:
        raise _KubeconfigFault(f"its kubeconfig cannot be read: {error}") from error
    return _End(KeyPair(certificate, key), trust, (host, *edge.hosts))


def _verify_service_account(store: SecretStore, report: Report) -> None:
    """Tokens: the signer's private key and the API servers' public key."""
    edge, name = "edge pods → kube-apiserver (service-account tokens)", spec.SERVICE_ACCOUNT
    missing = [entry for entry in (f"{name}.key", f"{name}.pub") if not store.exists(entry)]
    if missing:
        report.error(ACCOUNT_BROKEN, f"{edge}: {missing[0]} is missing", path=missing[0])
        return
    try:
        key = decode_key(store.read(f"{name}.key"))
        public = decode_public_key(store.read(f"{name}.pub"))
    except KeyFault as fault:
        report.error(ACCOUNT_BROKEN, f"{edge}: {name}: {fault}", path=f"{name}.key")
        return
    if public != key.public_key():
        message = f"{edge}: {name}.pub does not belong to {name}.key"
        report.error(ACCOUNT_BROKEN, message, path=f"{name}.pub")
    if not can_sign_tokens(key):
        message = f"{edge}: {name}.key: Kubernetes signs tokens with RSA or ECDSA keys only"
        report.error(ACCOUNT_BROKEN, message, path=f"{name}.key")


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_UNTRUSTED = (
    "self-signed certificate in certificate chain",
    "unable to get local issuer certificate",
    "unable to get issuer certificate",
    "unable to verify the first certificate",
)


def _explain_refusal(edge: Edge, refusal: Refusal, host: str) -> str:
    """The refusal in words: who refused whose certificate, and why."""
    other, trust = (
        (edge.pair, edge.trust) if refusal.side == "client" else (edge.client_pair, edge.client_trust)
    )
    reason = f"not signed by {trust}" if refusal.reason in _UNTRUSTED else refusal.reason
    who = other or "a client without a certificate"
    return f"the {refusal.side} refuses {who}: {reason} (dialled as {host})"
