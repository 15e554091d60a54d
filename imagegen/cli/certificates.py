"""The certificates of a cluster as rows: what is wanted, what lies in the store, and how long it lasts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from imagegen.diagnostics import Report
from imagegen.model.cluster import Cluster
from imagegen.pki.authorities import read_certificate
from imagegen.pki.certificates import read_names, read_subject, read_usages
from imagegen.pki.issue import is_due
from imagegen.pki.spec import list_authorities, list_certificates
from imagegen.pki.store import SecretStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One certificate. ``state`` is ok, due, expired, early (not yet valid), missing or unreadable."""

    name: str
    state: str
    subject: str
    issuer: str
    why: str
    usages: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    starts: datetime | None = None
    ends: datetime | None = None
    serial: str = ""
    fingerprint: str = ""

    def as_dict(self) -> dict[str, object]:
        """The machine form; times are UTC in ISO 8601."""
        return {
            "name": self.name,
            "state": self.state,
            "subject": self.subject,
            "issuer": self.issuer,
            "why": self.why,
            "usages": list(self.usages),
            "names": list(self.names),
            "not_before": self.starts.isoformat() if self.starts else None,
            "not_after": self.ends.isoformat() if self.ends else None,
            "serial": self.serial or None,
            "sha256": self.fingerprint or None,
        }


def list_rows(cluster: Cluster, store: SecretStore, now: datetime) -> Iterator[Row]:
    """Authorities first, then every leaf in the order of the cluster file."""
    for authority in list_authorities(cluster):
        yield _make_row(store, now, authority.name, "itself", str(authority.subject), authority.why)
    for leaf in list_certificates(cluster):
        yield _make_row(store, now, leaf.name, leaf.issuer, str(leaf.subject), leaf.why)


def _make_row(store: SecretStore, now: datetime, name: str, issuer: str, subject: str, why: str) -> Row:
    if not store.exists(f"{name}.crt"):
        return Row(name=name, state="missing", subject=subject, issuer=issuer, why=why)
    certificate = read_certificate(store, name, Report())
    if certificate is None:
        return Row(name=name, state="unreadable", subject=subject, issuer=issuer, why=why)
    names = read_names(certificate)
    return Row(
        name=name,
        state=_find_state(certificate, now),
        subject=read_subject(certificate),
        issuer=issuer,
        why=why,
        usages=tuple(sorted(read_usages(certificate))),
        names=(*sorted(names.dns), *sorted(names.addresses)),
        starts=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
        serial=f"{certificate.serial_number:x}",
        fingerprint=certificate.fingerprint(SHA256()).hex(),
    )


def _find_state(certificate: x509.Certificate, now: datetime) -> str:
    if now > certificate.not_valid_after_utc:
        return "expired"
    if now < certificate.not_valid_before_utc:
        return "early"
    return "due" if is_due(certificate, now) else "ok"
