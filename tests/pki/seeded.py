"""Randomness that repeats itself, so that a test can compare bytes. RSA keys cannot be fixed."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from imagegen.model.cluster import KeyAlgorithm
from imagegen.pki.keys import PrivateKey, SystemRandomness

_CURVES: dict[KeyAlgorithm, tuple[ec.EllipticCurve, int]] = {
    KeyAlgorithm.ECDSA_P256: (ec.SECP256R1(), 31),
    KeyAlgorithm.ECDSA_P384: (ec.SECP384R1(), 47),
    KeyAlgorithm.ECDSA_P521: (ec.SECP521R1(), 65),
}


class SeededRandomness:
    """SHAKE-256 over a seed and a counter."""

    def __init__(self, seed: str = "test") -> None:
        self._seed = seed
        self._counter = 0

    def make_bytes(self, count: int) -> bytes:
        self._counter += 1
        return hashlib.shake_256(f"{self._seed}/{self._counter}".encode()).digest(count)

    def make_key(self, algorithm: KeyAlgorithm) -> PrivateKey:
        if algorithm in _CURVES:
            curve, size = _CURVES[algorithm]
            return ec.derive_private_key(int.from_bytes(self.make_bytes(size)) + 1, curve)
        if algorithm is KeyAlgorithm.ED25519:
            return ed25519.Ed25519PrivateKey.from_private_bytes(self.make_bytes(32))
        return SystemRandomness().make_key(algorithm)
