"""When each certificate of the cluster ends, and issuing anew those that are due."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from imagegen.diagnostics import Report
from imagegen.model.cluster import BootstrapMethod, Cluster
from imagegen.pki import inventory, spec
from imagegen.pki.certificates import (
    CertificateFault,
    decode_certificate,
    read_names,
    read_subject,
    read_usages,
)
from imagegen.pki.issue import IssueResult, is_due, issue_material
from imagegen.pki.keys import Randomness, name_algorithm
from imagegen.pki.store import SecretStore


class CertificateState(enum.StrEnum):
    OK = "ok"
    #: valid, and inside its renewal window
    DUE = "due"
    EXPIRED = "expired"
    #: not valid yet
    EARLY = "early"
    #: not issued yet
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateStatus:
    """One certificate of the cluster's list as it lies in the store; texts are empty, dates None without it.

    ``issuer`` is the authority's stem, or ``itself``. ``days_left`` is rounded down, negative after the end.
    ``node`` is None for authorities and people.
    """

    name: str
    state: CertificateState
    subject: str
    issuer: str
    why: str
    node: str | None
    key: str = ""
    usages: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    starts: datetime | None = None
    ends: datetime | None = None
    days_left: int | None = None
    serial: str = ""
    fingerprint: str = ""

    def as_dict(self) -> dict[str, object]:
        """The machine form that ``pki show --format json`` prints; nothing secret, times in ISO 8601."""
        return {
            "name": self.name,
            "state": self.state.value,
            "subject": self.subject,
            "issuer": self.issuer,
            "why": self.why,
            "node": self.node,
            "key": self.key or None,
            "usages": list(self.usages),
            "names": list(self.names),
            "not_before": self.starts.isoformat() if self.starts else None,
            "not_after": self.ends.isoformat() if self.ends else None,
            "days_left": self.days_left,
            "serial": self.serial or None,
            "sha256": self.fingerprint or None,
        }


def list_expiry(cluster: Cluster, store: SecretStore, now: datetime) -> Iterator[CertificateStatus]:
    """Every authority and certificate of ``cluster`` in the order of issue. Reads certificates only, no key.

    Raises StoreError when the store cannot be read.
    """
    for authority in inventory.list_authorities(cluster):
        wanted = CertificateStatus(
            name=authority.name,
            state=CertificateState.MISSING,
            subject=str(authority.subject),
            issuer="itself",
            why=authority.why,
            node=None,
        )
        yield _read_status(store, now, wanted)
    for leaf in inventory.list_certificates(cluster):
        wanted = CertificateStatus(
            name=leaf.name,
            state=CertificateState.MISSING,
            subject=str(leaf.subject),
            issuer=leaf.issuer,
            why=leaf.why,
            node=leaf.node,
        )
        yield _read_status(store, now, wanted)


def _read_status(store: SecretStore, now: datetime, wanted: CertificateStatus) -> CertificateStatus:
    """``wanted`` with what the store has."""
    if not store.exists(f"{wanted.name}.crt"):
        return wanted
    try:
        certificate = decode_certificate(store.read(f"{wanted.name}.crt"))
    except CertificateFault:
        return replace(wanted, state=CertificateState.UNREADABLE)
    names = read_names(certificate)
    return replace(
        wanted,
        state=_find_state(certificate, now),
        subject=read_subject(certificate),
        key=name_algorithm(certificate.public_key()),
        usages=tuple(sorted(read_usages(certificate))),
        names=(*sorted(names.dns), *sorted(names.addresses)),
        starts=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
        days_left=(certificate.not_valid_after_utc - now) // timedelta(days=1),
        serial=f"{certificate.serial_number:x}",
        fingerprint=certificate.fingerprint(SHA256()).hex(),
    )


def _find_state(certificate: x509.Certificate, now: datetime) -> CertificateState:
    if now > certificate.not_valid_after_utc:
        return CertificateState.EXPIRED
    if now < certificate.not_valid_before_utc:
        return CertificateState.EARLY
    return CertificateState.DUE if is_due(certificate, now) else CertificateState.OK


def renew_material(
    cluster: Cluster,
    store: SecretStore,
    report: Report,
    *,
    now: datetime,
    everything: bool = False,
    nodes: Collection[str] = (),
    randomness: Randomness | None = None,
) -> IssueResult:
    """Give every leaf that is due a new key and certificate; authorities, tokens and other keys stay.

    Due is what has expired or is inside its renewal window; with ``everything`` each leaf is. ``nodes``
    limits that to leaves of these nodes. What is missing or no longer fits is issued as well, wherever it
    belongs. Raises what ``issue_material`` raises.
    """

    def decide(leaf: spec.CertificateSpec, certificate: x509.Certificate) -> str | None:
        if nodes and leaf.node not in nodes:
            return None
        if everything:
            return "renewed because you asked for it"
        end = certificate.not_valid_after_utc
        return f"renewed: its end was {end:%Y-%m-%d}" if is_due(certificate, now) else None

    return issue_material(cluster, store, report, now=now, randomness=randomness, renewal=decide)


def replace_identity(
    cluster: Cluster, store: SecretStore, report: Report, node: str, *, now: datetime
) -> IssueResult:
    """Give one node new keys, certificates and a new bootstrap token; everybody else keeps theirs.

    A token in a token file stays: API servers read that file when they start. Raises what ``issue_material``
    raises.
    """

    def decide(leaf: spec.CertificateSpec, certificate: x509.Certificate) -> str | None:
        return "renewed because its node is replaced" if leaf.node == node else None

    in_secrets = cluster.bootstrap.method is BootstrapMethod.TOKEN
    return issue_material(
        cluster, store, report, now=now, renewal=decide, new_tokens=(node,) if in_secrets else ()
    )
