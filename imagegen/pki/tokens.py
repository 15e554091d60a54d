"""Secrets that are no certificates: bootstrap tokens and the key that encrypts Secrets in etcd."""

from __future__ import annotations

import base64
import re

from imagegen.pki.keys import Randomness

#: Kubernetes' own pattern (staging/src/k8s.io/cluster-bootstrap/token/api/types.go)
TOKEN_PATTERN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_SECRETBOX_BYTES = 32


class TokenSource:
    """Draws characters without bias: bytes from 252 up are thrown away, since 252 is a multiple of 36."""

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness
        self._stock = ""

    def make_token(self, taken_ids: set[str]) -> str:
        """A bootstrap token whose public half is not in ``taken_ids``, where it is added."""
        while True:
            token_id = self._draw(6)
            if token_id not in taken_ids:
                taken_ids.add(token_id)
                return f"{token_id}.{self._draw(16)}"

    def _draw(self, count: int) -> str:
        while len(self._stock) < count:
            drawn = self._randomness.make_bytes(4096)
            self._stock += "".join(_ALPHABET[byte % 36] for byte in drawn if byte < 252)
        out, self._stock = self._stock[:count], self._stock[count:]
        return out


def parse_token_id(data: bytes) -> str | None:
    """The public half of a bootstrap token, or None when ``data`` is not one."""
    match = TOKEN_PATTERN.fullmatch(data.decode("ascii", "replace"))
    return match[1] if match else None


def make_secretbox_key(randomness: Randomness) -> bytes:
    """A key for EncryptionConfiguration's secretbox provider: 32 bytes as base64 text."""
    return base64.b64encode(randomness.make_bytes(_SECRETBOX_BYTES))


def is_secretbox_key(data: bytes) -> bool:
    try:
        return len(base64.b64decode(data, validate=True)) == _SECRETBOX_BYTES
    except ValueError:
        return False
