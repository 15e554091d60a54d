"""When each certificate of the cluster ends, and issuing anew those that are due."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from imagegen.diagnostics import Report
from imagegen.model.cluster import Cluster
from imagegen.pki import spec
from imagegen.pki.certificates import (
    CertificateFault,
    decode_certificate,
    format_name,
    read_names,
    read_subject,
    read_usages,
)
from imagegen.pki.issue import IssueResult, is_due, issue_material
from imagegen.pki.keys import Randomness, name_algorithm
from imagegen.pki.store import SecretStore


class CertificateState(enum.StrEnum):
    VALID = "valid"
    #: valid, and inside its renewal window
    DUE = "due"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    #: not issued yet
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateStatus:
    """One certificate of the cluster's list as it lies in the store; texts are empty, dates None without it.

    ``days_left`` is rounded down and negative after the end. ``node`` is None for authorities and people.
    """

    name: str
    why: str
    node: str | None
    state: CertificateState
    is_authority: bool
    subject: str
    issuer: str = ""
    serial: str = ""
    key: str = ""
    usages: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None
    days_left: int | None = None

    def as_dict(self) -> dict[str, object]:
        """The machine form that ``pki show --format json`` prints; holds nothing secret."""
        return {
            "name": self.name,
            "why": self.why,
            "node": self.node,
            "state": self.state.value,
            "authority": self.is_authority,
            "subject": self.subject,
            "issuer": self.issuer,
            "serial": self.serial,
            "key": self.key,
            "usages": list(self.usages),
            "names": list(self.names),
            "not_before": self.not_before.isoformat() if self.not_before else None,
            "not_after": self.not_after.isoformat() if self.not_after else None,
            "days_left": self.days_left,
        }


def list_expiry(cluster: Cluster, store: SecretStore, now: datetime) -> Iterator[CertificateStatus]:
    """Every authority and certificate of ``cluster`` in the order of issue. Reads certificates only, no key.

    Raises StoreError when the store cannot be read.
    """
    for authority in spec.list_authorities(cluster):
        yield _read_status(store, now, authority.name, authority.why, None, authority.subject, True)
    for leaf in spec.list_certificates(cluster):
        yield _read_status(store, now, leaf.name, leaf.why, leaf.node, leaf.subject, False)


def _read_status(
    store: SecretStore,
    now: datetime,
    name: str,
    why: str,
    node: str | None,
    subject: spec.Subject,
    is_authority: bool,
) -> CertificateStatus:
    state = CertificateState.MISSING
    if store.exists(f"{name}.crt"):
        try:
            certificate = decode_certificate(store.read(f"{name}.crt"))
        except CertificateFault:
            state = CertificateState.UNREADABLE
        else:
            return _describe(certificate, now, name, why, node, is_authority)
    return CertificateStatus(
        name=name, why=why, node=node, state=state, is_authority=is_authority, subject=str(subject)
    )


def _describe(
    certificate: x509.Certificate, now: datetime, name: str, why: str, node: str | None, is_authority: bool
) -> CertificateStatus:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    names = read_names(certificate)
    state = CertificateState.VALID
    if now > end:
        state = CertificateState.EXPIRED
    elif now < start:
        state = CertificateState.NOT_YET_VALID
    elif is_due(certificate, now):
        state = CertificateState.DUE
    return CertificateStatus(
        name=name,
        why=why,
        node=node,
        state=state,
        is_authority=is_authority,
        subject=read_subject(certificate),
        issuer=format_name(certificate.issuer),
        serial=f"{certificate.serial_number:x}",
        key=name_algorithm(certificate.public_key()),
        usages=tuple(sorted(read_usages(certificate))),
        names=(*sorted(names.dns), *sorted(names.addresses)),
        not_before=start,
        not_after=end,
        days_left=(end - now) // timedelta(days=1),
    )


def renew_material(
    cluster: Cluster,
    store: SecretStore,
    report: Report,
    *,
    now: datetime,
    everything: bool = False,
    within: timedelta | None = None,
    randomness: Randomness | None = None,
) -> IssueResult:
    """Give every leaf that is due a new key and certificate; authorities, tokens and other keys stay.

    Due is what has expired, is inside its renewal window, or ends ``within`` that time; with ``everything``
    each leaf is. What is missing or no longer fits is issued as well. Raises what ``issue_material`` raises.
    """

    def rule(_spec: spec.CertificateSpec, certificate: x509.Certificate) -> str | None:
        if everything:
            return "renewed"
        end = certificate.not_valid_after_utc
        if is_due(certificate, now) or (within is not None and now + within > end):
            return f"renewed: ended on {end:%Y-%m-%d}"
        return None

    return issue_material(cluster, store, report, now=now, randomness=randomness, renewal=rule)
