"""TLS handshakes inside this process: no socket, and no private key on disk."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from functools import lru_cache

#: X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h): the clock is an argument here, so dates are checked apart
_NO_CHECK_TIME = 0x200000
#: as strict as the strictest client we know (Python from 3.13 on), anchored like Go at what the CA file holds
_VERIFY_FLAGS = ssl.VerifyFlags.VERIFY_X509_STRICT | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
_MAX_ROUNDS = 16


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no connection. ``side`` is who refused: ``client`` or ``server``."""

    side: str
    reason: str


class PairError(Exception):
    """A pair cannot be used for TLS at all; ``mismatch`` when its halves do not belong together."""

    def __init__(self, reason: str, *, mismatch: bool) -> None:
        super().__init__(reason)
        self.mismatch = mismatch


def try_handshake(
    *,
    server: KeyPair,
    server_trust: bytes,
    client: KeyPair | None,
    client_trust: bytes | None,
    host: str,
) -> Refusal | None:
    """Connect ``client`` to ``server``, dialled as ``host`` (name or address); None when both accept.

    ``server_trust`` is the CA file by which the client judges the server, ``client_trust`` the one by which
    the server judges a client, which then must show a certificate. Dates do not count. Raises PairError.
    """
    left = _client_context(client, server_trust)
    right = _server_context(server, client_trust)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialer = left.wrap_bio(to_client, to_server, server_hostname=host)
    listener = right.wrap_bio(to_server, to_client, server_side=True)
    waiting = {"client": dialer, "server": listener}
    for _ in range(_MAX_ROUNDS):
        for side, connection in list(waiting.items()):
            try:
                connection.do_handshake()
                del waiting[side]
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return Refusal(side, _explain(error))
        if not waiting:
            return None
    return Refusal("server", "the handshake does not come to an end")


def _explain(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).lower().replace("_", " ")


@lru_cache(maxsize=256)
def _client_context(pair: KeyPair | None, trust: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    _set_trust(context, trust)
    if pair is not None:
        _load_pair(context, pair)
    return context


@lru_cache(maxsize=256)
def _server_context(pair: KeyPair, trust: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    if trust is not None:
        _set_trust(context, trust)
        context.verify_mode = ssl.CERT_REQUIRED
    _load_pair(context, pair)
    return context


def forget_contexts() -> None:
    """Drop the contexts that are kept between handshakes, and with them the private keys in memory."""
    _client_context.cache_clear()
    _server_context.cache_clear()


def _set_trust(context: ssl.SSLContext, trust: bytes) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags = ssl.VerifyFlags(_VERIFY_FLAGS | _NO_CHECK_TIME)
    try:
        context.load_verify_locations(cadata=trust.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise PairError("the CA file holds no certificate", mismatch=False) from error


def _load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    """``load_cert_chain`` wants a path; an anonymous file in memory has one and leaves no trace on a disk."""
    handle = os.memfd_create("pair", os.MFD_CLOEXEC)
    try:
        for part in (pair.key, b"\n", pair.certificate):
            os.write(handle, part)
        context.load_cert_chain(f"/proc/self/fd/{handle}", password=lambda: b"")
    except ssl.SSLError as error:
        mismatch = error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}
        raise PairError(_explain(error), mismatch=mismatch) from error
    finally:
        os.close(handle)
