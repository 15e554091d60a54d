"""Reads the authorities of the store, the user's own included, and says what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from imagegen.diagnostics import Report, register_code
from imagegen.pki.certificates import Authority, CertificateFault, decode_certificate
from imagegen.pki.keys import EncryptedKeyFault, KeyFault, PrivateKey, decode_key, find_key_weakness
from imagegen.pki.store import SecretStore

CA_NOT_VALID_NOW = register_code(
    "IMG301",
    "a certificate authority is expired or not yet valid",
    "Nothing that such an authority signs is accepted. If the dates look wrong, check this machine's "
    "clock first. Otherwise put a valid ca.crt and ca.key into the secret store; every certificate below it "
    "is then issued again, and the nodes must be replaced.",
)
CA_ENDS_FIRST = register_code(
    "IMG302",
    "a certificate authority ends before a new certificate would",
    "No certificate outlives its authority, so new certificates end with it, earlier than pki.lifetime says. "
    "Plan for a new authority before that day.",
)
CA_KEY_MISMATCH = register_code(
    "IMG303",
    "a key does not belong to its certificate",
    "The public key in the certificate is another one than that of the key file beside it. Put the pair that "
    "belongs together into the secret store.",
)
KEY_ENCRYPTED = register_code(
    "IMG304",
    "a private key is encrypted with a password",
    "imagegen asks for no passwords. Write the key without one (openssl pkey -in ca.key -out ca.key) and let "
    "the store protect it: mode 0600, or age encryption with .age-recipients.",
)
KEY_WEAK = register_code(
    "IMG305",
    "a key is too weak, or of a kind that Kubernetes does not understand",
    "Accepted are ECDSA on P-256, P-384 or P-521, RSA from 2048 bits, and Ed25519.",
)
HASH_WEAK = register_code(
    "IMG306",
    "a certificate authority is signed with a broken hash",
    "SHA-1 and MD5 signatures are refused by Go and by OpenSSL's default security level.",
)
NOT_AN_AUTHORITY = register_code(
    "IMG307",
    "a certificate may not be used as an authority",
    "An authority needs basicConstraints CA:TRUE (critical), keyUsage with keyCertSign, and a subject key "
    "identifier; strict clients, Python from 3.13 on among them, refuse one without.",
)
CA_KEY_MISSING = register_code(
    "IMG308",
    "a certificate must be issued, but the key of its authority is not in the store",
    "A certificate authority without its key is enough as long as nothing has to be signed. Add the key, or "
    "issue the certificate elsewhere and put it and its key into the store.",
)
UNREADABLE = register_code(
    "IMG309",
    "a file of the secret store is not what its name says",
    "Wanted is PEM: exactly one certificate in a .crt file, one private key in a .key file. An intermediate "
    "authority goes into ca.crt alone, without its chain: it is the anchor of trust then.",
)

_WEAK_HASHES = frozenset({"md5", "sha1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What lies in the store under one stem; a part that cannot be used is None and was reported."""

    certificate: x509.Certificate | None
    key: PrivateKey | None
    has_certificate: bool
    has_key: bool


def read_stored(store: SecretStore, name: str, report: Report) -> Stored:
    """The certificate and key under the stem ``name``; reports files that cannot be used."""
    has_certificate, has_key = store.exists(f"{name}.crt"), store.exists(f"{name}.key")
    certificate = read_certificate(store, name, report) if has_certificate else None
    key = read_key(store, name, report) if has_key else None
    return Stored(certificate=certificate, key=key, has_certificate=has_certificate, has_key=has_key)


def read_certificate(store: SecretStore, name: str, report: Report) -> x509.Certificate | None:
    """``name.crt``, which must exist; None and a finding when it is not one certificate."""
    file = f"{store.root}/{name}.crt"
    try:
        return decode_certificate(store.read(f"{name}.crt"))
    except CertificateFault as fault:
        report.error(UNREADABLE, f"{file}: {fault}", path=f"{name}.crt")
        return None


def read_key(store: SecretStore, name: str, report: Report) -> PrivateKey | None:
    """``name.key``, which must exist; None and a finding when it cannot be used."""
    file = f"{store.root}/{name}.key"
    try:
        return decode_key(store.read(f"{name}.key"))
    except EncryptedKeyFault as fault:
        report.error(
            KEY_ENCRYPTED, f"{file}: {fault}", hint="store the key without a password", path=f"{name}.key"
        )
    except KeyFault as fault:
        code = UNREADABLE if "PEM" in str(fault) else KEY_WEAK
        report.error(code, f"{file}: {fault}", path=f"{name}.key")
    return None


def load_authority(store: SecretStore, name: str, report: Report, *, now: datetime) -> Authority | None:
    """The authority under the stem ``name``, whose certificate must exist; None when it cannot be used.

    Every fault is reported, not only the first. A missing key is no fault here.
    """
    before = len(report.findings)
    stored = read_stored(store, name, report)
    if stored.certificate is not None:
        check_authority(stored.certificate, f"{store.root}/{name}.crt", report, now=now)
        if stored.key is not None and stored.certificate.public_key() != stored.key.public_key():
            report.error(
                CA_KEY_MISMATCH,
                f"{store.root}/{name}.key does not belong to {name}.crt",
                hint="put the key that made this certificate beside it",
                path=f"{name}.key",
            )
    if stored.certificate is None or len(report.findings) > before:
        return None
    return Authority(name=name, certificate=stored.certificate, key=stored.key)


def check_authority(certificate: x509.Certificate, file: str, report: Report, *, now: datetime) -> None:
    """Report what keeps ``certificate`` from being an authority at ``now``."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        report.error(
            CA_NOT_VALID_NOW,
            f"{file} expired on {format_time(end)}, now is {format_time(now)}",
            hint="replace the authority; every certificate below it is issued again",
        )
    if now < start:
        report.error(
            CA_NOT_VALID_NOW,
            f"{file} is valid from {format_time(start)} on, now is {format_time(now)}",
            hint="is the clock of this machine right?",
        )
    weakness = find_key_weakness(certificate.public_key())
    if weakness:
        report.error(
            KEY_WEAK, f"{file}: {weakness}", hint="make a new authority, for example with ECDSA P-256"
        )
    algorithm = certificate.signature_hash_algorithm
    if algorithm is not None and algorithm.name in _WEAK_HASHES:
        report.error(HASH_WEAK, f"{file} is signed with {algorithm.name}, wanted sha256 or better")
    for lack in _list_lacks(certificate):
        report.error(NOT_AN_AUTHORITY, f"{file} is not usable as an authority: {lack}")


def _list_lacks(certificate: x509.Certificate) -> list[str]:
    """What an authority must have and this one has not."""
    found = {extension.oid: extension for extension in certificate.extensions}
    out = []
    constraints = found.get(x509.BasicConstraints.oid)
    if (
        constraints is None
        or not isinstance(constraints.value, x509.BasicConstraints)
        or not constraints.value.ca
    ):
        out.append("basicConstraints CA:TRUE is missing")
    elif not constraints.critical:
        out.append("basicConstraints is not critical")
    usage = found.get(x509.KeyUsage.oid)
    if usage is None or not isinstance(usage.value, x509.KeyUsage) or not usage.value.key_cert_sign:
        out.append("keyUsage keyCertSign is missing")
    if x509.SubjectKeyIdentifier.oid not in found:
        out.append("the subject key identifier is missing")
    return out


def format_time(moment: datetime) -> str:
    """``2026-11-21 06:30:00 UTC``"""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
