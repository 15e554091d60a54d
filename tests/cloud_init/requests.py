"""Makes certificate requests of every kind, well-formed and not, and the API objects around them.

DER is written by hand where a library would refuse to write what an attacker can.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import ip_address
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey

CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"

_O, _CN, OU_OID = "55040a", "550403", "55040b"
SAN_OID, BASIC_CONSTRAINTS_OID, KEY_USAGE_OID = "551d11", "551d13", "551d0f"
_EXTENSION_REQUEST, _CHALLENGE = "2a864886f70d01090e", "2a864886f70d010907"


def tlv(tag: int, *parts: bytes) -> bytes:
    """One DER value."""
    body = b"".join(parts)
    length = len(body)
    if length < 0x80:
        return bytes([tag, length]) + body
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + body


def sequence(*parts: bytes) -> bytes:
    return tlv(0x30, *parts)


def oid(hexadecimal: str) -> bytes:
    return tlv(0x06, bytes.fromhex(hexadecimal))


def rdn(*attributes: tuple[str, str | bytes], tag: int = 0x0C) -> bytes:
    """One RelativeDistinguishedName of ``(type, value)`` pairs."""
    encoded = (
        sequence(oid(kind), tlv(tag, value if isinstance(value, bytes) else value.encode()))
        for kind, value in attributes
    )
    return tlv(0x31, *encoded)


def subject(common_name: str, organizations: Sequence[str] = ("system:nodes",)) -> bytes:
    return sequence(*(rdn((_O, o)) for o in organizations), rdn((_CN, common_name)))


def dns(name: str | bytes) -> bytes:
    return tlv(0x82, name if isinstance(name, bytes) else name.encode())


def ip(text: str) -> bytes:
    return tlv(0x87, ip_address(text).packed)


def email(text: str) -> bytes:
    return tlv(0x81, text.encode())


def uri(text: str) -> bytes:
    return tlv(0x86, text.encode())


def directory_name(common_name: str) -> bytes:
    return tlv(0xA4, subject(common_name))


def extension(kind: str, value: bytes) -> bytes:
    return sequence(oid(kind), tlv(0x04, value))


def alternative_names(*names: bytes) -> bytes:
    return extension(SAN_OID, sequence(*names))


def extension_request(*extensions: bytes) -> bytes:
    return sequence(oid(_EXTENSION_REQUEST), tlv(0x31, sequence(*extensions)))


def challenge(text: str) -> bytes:
    return sequence(oid(_CHALLENGE), tlv(0x31, tlv(0x0C, text.encode())))


@cache
def key(kind: str) -> Key:
    """A key by name, made once: ``p256``, ``rsa2048``, ``ed25519`` …"""
    if kind.startswith("rsa"):
        bits, _, exponent = kind[3:].partition("e")
        return rsa.generate_private_key(int(exponent or 65537), int(bits))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "dsa":
        return dsa.generate_private_key(2048)
    curves = {
        "p192": ec.SECP192R1,
        "p224": ec.SECP224R1,
        "p256": ec.SECP256R1,
        "p384": ec.SECP384R1,
        "p521": ec.SECP521R1,
        "k256": ec.SECP256K1,
    }
    return ec.generate_private_key(curves[kind]())


#: digest → algorithm, OID of ECDSA with it, OID of RSA with it
_DIGESTS: dict[str, tuple[hashes.HashAlgorithm, str, str]] = {
    "sha1": (hashes.SHA1(), "2a8648ce3d0401", "2a864886f70d010105"),
    "sha256": (hashes.SHA256(), "2a8648ce3d040302", "2a864886f70d01010b"),
    "sha384": (hashes.SHA384(), "2a8648ce3d040303", "2a864886f70d01010c"),
    "sha512": (hashes.SHA512(), "2a8648ce3d040304", "2a864886f70d01010d"),
}


def sign(private: Key, data: bytes, digest: str) -> tuple[bytes, bytes]:
    """The AlgorithmIdentifier and the signature."""
    algorithm, ecdsa_oid, rsa_oid = _DIGESTS[digest]
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return sequence(oid(ecdsa_oid)), private.sign(data, ec.ECDSA(algorithm))
    if isinstance(private, rsa.RSAPrivateKey):
        signature = private.sign(data, padding.PKCS1v15(), algorithm)
        return sequence(oid(rsa_oid), b"\x05\x00"), signature
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return sequence(oid("2b6570")), private.sign(data)
    return sequence(oid("608648016503040302")), private.sign(data, algorithm)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request in parts; ``der``, ``pem`` and ``csr`` put it together."""

    subject: bytes
    attributes: tuple[bytes, ...] = ()
    key: str = "p256"
    digest: str = "sha256"
    version: int = 0
    break_signature: bool = False

    def but(self, **changes: Any) -> Request:
        return replace(self, **changes)

    @property
    def der(self) -> bytes:
        private = key(self.key)
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        info = sequence(tlv(0x02, bytes([self.version])), self.subject, public, tlv(0xA0, *self.attributes))
        algorithm, signature = sign(private, info, self.digest)
        if self.break_signature:
            _, signature = sign(private, info + b"x", self.digest)
        return sequence(info, algorithm, tlv(0x03, b"\x00", signature))

    @property
    def pem(self) -> bytes:
        return to_pem(self.der)


def to_pem(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()


def client_request(node: str, **changes: Any) -> Request:
    """What a kubelet sends for its client certificate."""
    return Request(subject=subject(f"system:node:{node}"), **changes)


def serving_request(node: str, *names: bytes, **changes: Any) -> Request:
    """What a kubelet sends for its serving certificate, with these alternative names."""
    attributes = (extension_request(alternative_names(*names)),) if names else ()
    return Request(subject=subject(f"system:node:{node}"), attributes=attributes, **changes)


def csr(pem: bytes | str, signer: str, requester: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A CertificateSigningRequest as the API server sends it; ``spec`` overrides fields, None removes one."""
    encoded = pem if isinstance(pem, str) else base64.b64encode(pem).decode()
    usage = "client auth" if signer == CLIENT else "server auth"
    body: dict[str, Any] = {
        "request": encoded,
        "signerName": signer,
        "usages": ["digital signature", usage],
        **requester,
        **spec,
    }
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {
            "name": "csr-abc12",
            "uid": "11111111-2222-3333-4444-555555555555",
            "resourceVersion": "7",
        },
        "spec": {k: v for k, v in body.items() if v is not None},
        "status": {},
    }


def bootstrapper(node: str, *more_groups: str) -> dict[str, Any]:
    """Who asks with the bootstrap token of ``node``."""
    groups = ["system:bootstrappers", f"system:bootstrappers:imagegen:{node}", *more_groups]
    return {"username": "system:bootstrap:abc123", "groups": [*groups, "system:authenticated"]}


def kubelet(node: str) -> dict[str, Any]:
    """Who asks with the client certificate of ``node``."""
    return {"username": f"system:node:{node}", "groups": ["system:nodes", "system:authenticated"]}
