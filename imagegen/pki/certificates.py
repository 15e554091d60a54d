"""Builds certificates from their specification and reads them back. Clock and randomness are arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from imagegen.pki.keys import PrivateKey, Randomness, hash_for, name_algorithm
from imagegen.pki.spec import AuthoritySpec, CertificateSpec, Subject, Usage

#: How far certificates start in the past: a node's clock may lag when it first boots.
BACKDATE = timedelta(hours=1)
_LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_USAGE_IDS = {
    Usage.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Usage.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A usable authority: its certificate, its own key when the store has it, and its stem in the store."""

    name: str
    certificate: x509.Certificate
    key: PrivateKey | None


def build_authority(
    spec: AuthoritySpec, key: PrivateKey, *, now: datetime, randomness: Randomness
) -> x509.Certificate:
    """A self-signed authority that may sign leaves only (path length 0)."""
    name = make_name(spec.subject)
    start = _whole_second(now) - BACKDATE
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(_make_serial(randomness))
        .not_valid_before(start)
        .not_valid_after(_add_lifetime(now, spec.lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _sign(builder, key)


def build_leaf(
    spec: CertificateSpec,
    key: PrivateKey,
    authority: Authority,
    *,
    now: datetime,
    randomness: Randomness,
) -> x509.Certificate:
    """A leaf as ``spec`` says, signed by ``authority``, whose key must be there; never outlives it."""
    assert authority.key is not None
    issuer = authority.certificate
    start = max(_whole_second(now) - BACKDATE, issuer.not_valid_before_utc)
    end = min(_add_lifetime(now, spec.lifetime), issuer.not_valid_after_utc)
    usages = [_USAGE_IDS[usage] for usage in spec.usages]
    # RFC 5280 4.2.1.12: key encipherment goes with serverAuth only, and only RSA can do it
    encipher = isinstance(key, rsa.RSAPrivateKey) and Usage.SERVER in spec.usages
    builder = (
        x509.CertificateBuilder()
        .subject_name(make_name(spec.subject))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(_make_serial(randomness))
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(encipher=encipher), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_identifier(issuer), critical=False)
    )
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in spec.dns_names]
    names += [x509.IPAddress(address) for address in spec.addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _sign(builder, authority.key)


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    # RFC 6979 signatures: nothing is lost when the generator is weak, and tests can fix the bytes.
    deterministic = True if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, hash_for(key), ecdsa_deterministic=deterministic)


def make_name(subject: Subject) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)]
    if subject.organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.organization))
    return x509.Name(attributes)


def _make_serial(randomness: Randomness) -> int:
    """159 random bits, so that the DER stays within the 20 octets of RFC 5280, and never zero."""
    return (int.from_bytes(randomness.make_bytes(20)) >> 1) or 1


def _whole_second(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(microsecond=0)


def _add_lifetime(now: datetime, lifetime: timedelta) -> datetime:
    try:
        return min(_whole_second(now) + lifetime, _LAST_MOMENT)
    except OverflowError:
        return _LAST_MOMENT


def expected_end(spec: CertificateSpec, now: datetime) -> datetime:
    """When a leaf issued at ``now`` would end if its authority lived long enough."""
    return _add_lifetime(now, spec.lifetime)


def _key_usage(*, sign_certificates: bool = False, encipher: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=encipher,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def encode_certificate(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class CertificateFault(ValueError):
    """A certificate file cannot be used; the message says why, without the file's name."""


def decode_certificate(pem: bytes) -> x509.Certificate:
    """The one certificate in a PEM file; raises CertificateFault when there is none, or several."""
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateFault("not a certificate in PEM") from error
    if len(found) != 1:
        raise CertificateFault(
            f"holds {len(found)} certificates, wanted one: the controller manager refuses a bundle"
        )
    try:
        _ = found[0].extensions, found[0].public_key(), found[0].subject
    except Exception as error:  # the library has several classes for what it cannot read
        raise CertificateFault(f"cannot be read: {error}") from error
    return found[0]


@dataclass(frozen=True, slots=True)
class Names:
    """The alternative names of a certificate."""

    dns: frozenset[str]
    addresses: frozenset[str]


def read_names(certificate: x509.Certificate) -> Names:
    try:
        value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Names(frozenset(), frozenset())
    return Names(
        frozenset(value.get_values_for_type(x509.DNSName)),
        frozenset(str(address) for address in value.get_values_for_type(x509.IPAddress)),
    )


def read_usages(certificate: x509.Certificate) -> frozenset[str]:
    """The extended key usages by their OpenSSL short names; an unknown one by its dotted number."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return frozenset()
    known = {identifier: usage.value for usage, identifier in _USAGE_IDS.items()}
    return frozenset(known.get(identifier, identifier.dotted_string) for identifier in value)


def read_subject(certificate: x509.Certificate) -> str:
    """``CN=…, O=…`` and further parts, in the order of ``Subject``'s text."""
    return format_name(certificate.subject)


def format_name(name: x509.Name) -> str:
    return ", ".join(part.rfc4514_string() for part in reversed(name.rdns)) if name.rdns else "(empty)"


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer``'s key made the signature and its name is the issuer's name."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def find_differences(
    certificate: x509.Certificate, spec: CertificateSpec, authority: x509.Certificate
) -> list[str]:
    """In which points ``certificate`` is not what ``spec`` asks for; lifetimes do not count."""
    out = []
    if not is_issued_by(certificate, authority):
        out.append(f"not signed by {spec.issuer}")
    if certificate.subject != make_name(spec.subject):
        out.append(f"subject is {read_subject(certificate)}, wanted {spec.subject}")
    usages, wanted = read_usages(certificate), frozenset(usage.value for usage in spec.usages)
    if usages != wanted:
        out.append(f"usages are {_join(usages)}, wanted {_join(wanted)}")
    out += _compare_names(read_names(certificate), spec.dns_names, spec.addresses)
    algorithm = name_algorithm(certificate.public_key())
    if algorithm != spec.key.value:
        out.append(f"key is {algorithm}, wanted {spec.key.value}")
    return out


def _compare_names(names: Names, dns: Sequence[str], addresses: Sequence[IPv4Address]) -> list[str]:
    wanted = frozenset(dns) | {str(address) for address in addresses}
    present = names.dns | names.addresses
    out = []
    if wanted - present:
        out.append(f"names lack {_join(wanted - present)}")
    if present - wanted:
        out.append(f"names have {_join(present - wanted)} too much")
    return out


def _join(words: frozenset[str]) -> str:
    return ", ".join(sorted(words)) or "none"


def find_foreign_source(certificate: x509.Certificate, source: str) -> bool:
    """Whether etcd would refuse a client with this certificate that dials from ``source``.

    etcd compares the peer's address with the addresses in a client certificate that has any names
    (client/pkg/transport/listener_tls.go); names that DNS must resolve are not looked at here.
    """
    names = read_names(certificate)
    return bool(names.addresses) and source not in names.addresses


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether the certificate may sign others, by basicConstraints or keyUsage."""
    out = False
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            out |= extension.value.ca
        elif isinstance(extension.value, x509.KeyUsage):
            out |= extension.value.key_cert_sign
    return out
