"""From a file body with references to bytes: the writing edge of every secret."""

from __future__ import annotations

import base64
import hashlib
import json

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagegen.content import Content, Ref
from imagegen.pki.store import SecretReader, StoreError


def resolve_content(content: Content, store: SecretReader) -> bytes:
    """The bytes of a file body, every reference replaced by its entry in the encoding it asks for.

    Raises StoreError when an entry is missing, or is not text where ``json-string`` asks for text.
    """
    parts = []
    for part in content:
        if isinstance(part, Ref):
            parts.append(encode_entry(part, store.read(part.name)))
        else:
            parts.append(part.encode("utf-8") if isinstance(part, str) else part)
    return b"".join(parts)


def encode_entry(ref: Ref, data: bytes) -> bytes:
    """``data`` as ``ref`` wants it: as it is, base64 on one line, a quoted JSON string, or a fingerprint."""
    if ref.encoding == "base64":
        return base64.b64encode(data)
    if ref.encoding == "json-string":
        try:
            return json.dumps(data.decode("utf-8")).encode("ascii")
        except UnicodeDecodeError as error:
            raise StoreError(f"{ref.name} is not text") from error
    if ref.encoding == "spki-sha256":
        try:
            key = x509.load_pem_x509_certificate(data).public_key()
        except ValueError as error:
            raise StoreError(f"{ref.name} is not a certificate") from error
        info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(info).hexdigest().encode("ascii")
    return data
