"""Finds private keys in DER inside any bytes: PKCS#1, PKCS#8, SEC 1, encrypted PKCS#8, PKCS#12.

A short signature that real keys share leads to a candidate; the cryptography library has the last word, so
that object identifiers inside programs raise no alarm.
"""

from __future__ import annotations

from collections.abc import Iterator

_MAX_KEY = 32 * 1024

# RFC 5958 (PKCS#8): version 0 or 1 and an algorithm; RFC 8017 (PKCS#1): version 0 and a modulus; RFC 5915
# (SEC 1): version 1 and an octet string of a curve's size; RFC 8018 (PBES2, PBES1) and RFC 7292 (PKCS#12).
_SIGNATURES: tuple[tuple[str, bytes, int], ...] = (
    ("PKCS#8 private key", bytes.fromhex("06092a864886f70d010101"), 16),
    ("PKCS#8 private key", bytes.fromhex("06072a8648ce3d0201"), 16),
    ("PKCS#8 private key", bytes.fromhex("302e020100300506032b65"), 0),
    ("PKCS#8 private key", bytes.fromhex("3047020100300506032b6571"), 0),
    ("PKCS#1 private key", bytes.fromhex("0201000282"), 4),
    ("PKCS#1 private key", bytes.fromhex("0201000281"), 4),
    ("SEC 1 private key", bytes.fromhex("30770201010420"), 0),
    ("SEC 1 private key", bytes.fromhex("3081a40201010430"), 0),
    ("SEC 1 private key", bytes.fromhex("3081dc0201010442"), 0),
    ("encrypted PKCS#8 private key", bytes.fromhex("06092a864886f70d01050d"), 12),
    ("PKCS#12 key store", bytes.fromhex("06092a864886f70d010701"), 16),
)


def find_der_keys(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Offset, end and kind of every private key; in the order of ``_SIGNATURES``."""
    for kind, signature, before in _SIGNATURES:
        at = data.find(signature)
        while at >= 0:
            found = _read_key(data, at, before, kind)
            if found is not None:
                yield (*found, kind)
            at = data.find(signature, found[1] if found else at + 1)


def _read_key(data: bytes, at: int, before: int, kind: str) -> tuple[int, int] | None:
    """The key whose signature lies at ``at``: its outer SEQUENCE starts up to ``before`` bytes earlier."""
    for start in range(at, max(-1, at - before - 1), -1):
        end = _sequence_end(data, start)
        if end is not None and end > at and _is_key(data[start:end], kind):
            return start, end
    return None


def _sequence_end(data: bytes, start: int) -> int | None:
    """Where the DER SEQUENCE at ``start`` ends, if there is one of a plausible size."""
    head = data[start : start + 4]
    if len(head) < 4 or head[0] != 0x30:
        return None
    if head[1] < 0x80:
        end = start + 2 + head[1]
    elif head[1] == 0x81:
        end = start + 3 + head[2]
    elif head[1] == 0x82:
        end = start + 4 + int.from_bytes(head[2:4], "big")
    else:
        return None
    return end if 32 <= end - start <= _MAX_KEY and end <= len(data) else None


def _is_key(der: bytes, kind: str) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key, pkcs12

    if kind == "PKCS#12 key store":
        if der[4:7] != b"\x02\x01\x03" and der[3:6] != b"\x02\x01\x03":
            return False
        try:
            return pkcs12.load_pkcs12(der, b"").key is not None
        except ValueError:
            # a password that we do not know, which is what a key store is for
            return True
    try:
        load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        return kind == "encrypted PKCS#8 private key"
    except UnsupportedAlgorithm:
        # an algorithm that only an encrypted key or a key on a rare curve can have; it parsed as a key
        return True
    except ValueError:
        return False
    return True
