"""Key pairs: making, naming, reading and writing them. The source of randomness is an argument."""

from __future__ import annotations

import secrets
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from imagegen.model.cluster import KeyAlgorithm

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_CURVES: dict[KeyAlgorithm, ec.EllipticCurve] = {
    KeyAlgorithm.ECDSA_P256: ec.SECP256R1(),
    KeyAlgorithm.ECDSA_P384: ec.SECP384R1(),
    KeyAlgorithm.ECDSA_P521: ec.SECP521R1(),
}
_RSA_BITS = {KeyAlgorithm.RSA_2048: 2048, KeyAlgorithm.RSA_3072: 3072, KeyAlgorithm.RSA_4096: 4096}
_CURVE_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_MINIMUM_RSA_BITS = 2048


class Randomness(Protocol):
    """Where keys, serial numbers and tokens come from."""

    def make_key(self, algorithm: KeyAlgorithm) -> PrivateKey: ...

    def make_bytes(self, count: int) -> bytes: ...


class SystemRandomness:
    """The operating system's generator, and OpenSSL's for keys."""

    def make_key(self, algorithm: KeyAlgorithm) -> PrivateKey:
        if algorithm in _CURVES:
            return ec.generate_private_key(_CURVES[algorithm])
        if algorithm in _RSA_BITS:
            return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[algorithm])
        return ed25519.Ed25519PrivateKey.generate()

    def make_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)


class KeyFault(ValueError):
    """A key file cannot be used; the message says why, without the file's name."""


class EncryptedKeyFault(KeyFault):
    """The key needs a password."""


def hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    """The hash that fits the strength of ``key``; None for Ed25519, which brings its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, rsa.RSAPrivateKey):
        return hashes.SHA256()
    found = _CURVE_HASHES[key.curve.name]
    assert isinstance(found, hashes.SHA256 | hashes.SHA384 | hashes.SHA512)
    return found


def can_sign_tokens(key: PrivateKey) -> bool:
    """Whether Kubernetes signs service-account tokens with such a key (pkg/serviceaccount/jwt.go)."""
    return not isinstance(key, ed25519.Ed25519PrivateKey)


def name_algorithm(public: object) -> str:
    """``ecdsa-p256``, ``rsa-2048``, ``ed25519``, else what it is in the library's words."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        for algorithm, curve in _CURVES.items():
            if curve.name == public.curve.name:
                return algorithm.value
        return f"ecdsa-{public.curve.name}"
    if isinstance(public, rsa.RSAPublicKey):
        return f"rsa-{public.key_size}"
    if isinstance(public, ed25519.Ed25519PublicKey):
        return KeyAlgorithm.ED25519.value
    return type(public).__name__.removesuffix("PublicKey").lower()


def find_key_weakness(public: object) -> str | None:
    """Why Kubernetes, etcd or today's rules refuse this public key; None when it is good."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        if public.curve.name not in _CURVE_HASHES:
            return f"curve {public.curve.name} is not one of P-256, P-384 and P-521, the ones Go knows"
        return None
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < _MINIMUM_RSA_BITS:
            return f"RSA with {public.key_size} bits, wanted {_MINIMUM_RSA_BITS} or more"
        return None
    if isinstance(public, ed25519.Ed25519PublicKey):
        return None
    return f"{name_algorithm(public)} keys are not understood by Kubernetes"


def encode_key(key: PrivateKey) -> bytes:
    """PKCS #8 PEM without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def encode_public_key(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def decode_key(pem: bytes) -> PrivateKey:
    """A private key from PEM (PKCS #8, PKCS #1 or SEC 1); raises KeyFault when it cannot be used."""
    try:
        # without the slow primality check of RSA keys: the public half is compared with the certificate
        key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError as error:
        raise EncryptedKeyFault("the private key is encrypted with a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if b"ENCRYPTED" in pem:
            raise EncryptedKeyFault("the private key is encrypted with a password") from error
        raise KeyFault("not a private key in PEM") from error
    weakness = find_key_weakness(key.public_key())
    if weakness:
        raise KeyFault(weakness)
    assert isinstance(key, PrivateKey)
    return key


def decode_public_key(pem: bytes) -> object:
    """A public key from PEM; raises KeyFault."""
    try:
        return serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFault("not a public key in PEM") from error
