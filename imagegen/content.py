"""File bodies that may hold secrets by name only: literal text and references into the secret store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Ref:
    """A named entry of the secret store, fetched at the writing edge.

    ``encoding`` says how the bytes are written; ``spki-sha256`` is the fingerprint of a certificate's public
    key (RFC 7469) in hexadecimal digits. ``public`` entries (certificates) may be shown. ``name`` is the path
    inside the store, such as ``pki/ca.crt`` or ``nodes/master-0/apiserver.key``.
    """

    name: str
    public: bool = False
    encoding: Literal["raw", "base64", "json-string", "spki-sha256"] = "raw"


#: A file body: literal text and references, in order. Plain text is a one-element tuple.
Content = tuple[str | bytes | Ref, ...]
