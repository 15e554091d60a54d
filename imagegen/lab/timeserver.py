"""Answers of a time server (RFC 5905), as far as a client of a closed network asks."""

from __future__ import annotations

import struct

#: seconds from 1900, where NTP starts to count, to 1970
_EPOCH = 2_208_988_800
_SIZE = 48
_CLIENT, _SERVER = 3, 4


def answer_time(request: bytes, now: float) -> bytes | None:
    """The answer to a client's packet at ``now`` (seconds since 1970), or None when it asks for no time."""
    if len(request) < _SIZE or request[0] & 7 != _CLIENT:
        return None
    version = request[0] >> 3 & 7
    stamp = _to_stamp(now)
    # no leap second, stratum 1, the client's own interval, a precision of a microsecond
    head = struct.pack(">BBbb", version << 3 | _SERVER, 1, request[2], -20)
    return head + struct.pack(">II4s", 0, 66, b"LOCL") + stamp + request[40:48] + stamp + stamp


def _to_stamp(now: float) -> bytes:
    seconds = int(now)
    # the count began anew in 2036
    return struct.pack(">II", (seconds + _EPOCH) & 0xFFFFFFFF, int((now - seconds) * (1 << 32)))
