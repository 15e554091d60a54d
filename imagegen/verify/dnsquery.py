"""One DNS question over TCP, and what was answered (RFC 1035, RFC 7766)."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct

from imagegen.errors import ImagegenError

_TYPES = {"A": 1, "TXT": 16}
_CLASS_IN = 1
_CODES = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}


class DnsError(ImagegenError):
    """No answer, or one that says no."""


def ask_dns(host: str, port: int, name: str, kind: str, timeout: float = 5.0) -> list[str]:
    """The data of the answers: dotted addresses for A, texts for TXT. ``timeout`` in seconds. Raises
    DnsError.
    """
    query = build_query(name, kind, number := secrets.randbelow(1 << 16))
    try:
        with socket.create_connection((host, port), timeout) as link:
            link.settimeout(timeout)
            link.sendall(struct.pack("!H", len(query)) + query)
            (length,) = struct.unpack("!H", _read(link, 2))
            return parse_answer(_read(link, length), kind, number)
    except OSError as error:
        raise DnsError(f"{name}: {error.strerror or error}") from error
    except (struct.error, IndexError, ValueError) as error:
        raise DnsError(f"{name}: the answer cannot be read") from error


def build_query(name: str, kind: str, number: int) -> bytes:
    """A query with recursion desired."""
    labels = [label.encode("ascii") for label in name.strip(".").split(".")]
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    head = struct.pack("!6H", number, 0x0100, 1, 0, 0, 0)
    return head + question + struct.pack("!2H", _TYPES[kind], _CLASS_IN)


def parse_answer(data: bytes, kind: str, number: int) -> list[str]:
    """The records of type ``kind`` in the answer section. Raises DnsError when the server says no."""
    got, flags, questions, answers = struct.unpack("!4H", data[:8])
    if got != number:
        raise DnsError("the answer belongs to another question")
    code = flags & 15
    if code:
        raise DnsError(f"the server answers {_CODES.get(code, code)}")
    place, found = 12, []
    for _ in range(questions):
        place = _skip_name(data, place) + 4
    for _ in range(answers):
        place = _skip_name(data, place)
        record, _, _, length = struct.unpack("!2HIH", data[place : place + 10])
        body, place = data[place + 10 : place + 10 + length], place + 10 + length
        if record == _TYPES[kind]:
            found.append(_read_text(body) if kind == "TXT" else str(ipaddress.IPv4Address(body)))
    return found


def _read_text(body: bytes) -> str:
    parts, place = [], 0
    while place < len(body):
        parts.append(body[place + 1 : place + 1 + body[place]])
        place += 1 + body[place]
    return b"".join(parts).decode(errors="replace")


def _skip_name(data: bytes, place: int) -> int:
    while data[place]:
        if data[place] >= 0xC0:
            return place + 2
        place += 1 + data[place]
    return place + 1


def _read(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = link.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("the connection was closed")
        data += piece
    return data
