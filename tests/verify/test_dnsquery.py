"""Questions and answers of DNS over TCP, as a server on this machine sends them."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

import pytest

from imagegen.verify.dnsquery import DnsError, ask_dns, build_query, parse_answer

NAME = b"\x01a\x04test\x00"
QUESTION = NAME + struct.pack("!2H", 16, 1)


def _answer(records: bytes, count: int, number: int = 7, code: int = 0) -> bytes:
    return struct.pack("!6H", number, 0x8180 | code, 1, count, 0, 0) + QUESTION + records


def _record(kind: int, body: bytes) -> bytes:
    return b"\xc0\x0c" + struct.pack("!2HIH", kind, 1, 1, len(body)) + body


def test_a_query_is_what_the_standard_says() -> None:
    query = build_query("a.test.", "TXT", 7)
    assert query == struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + QUESTION


def test_texts_and_addresses() -> None:
    texts = _record(16, b"\x05hello\x06 world") + _record(1, bytes([10, 0, 0, 9]))
    assert parse_answer(_answer(texts, 2), "TXT", 7) == ["hello world"]
    assert parse_answer(_answer(texts, 2), "A", 7) == ["10.0.0.9"]


@pytest.mark.parametrize(("code", "word"), [(2, "SERVFAIL"), (3, "NXDOMAIN"), (5, "REFUSED"), (9, "9")])
def test_a_refusal_is_an_error(code: int, word: str) -> None:
    with pytest.raises(DnsError, match=word):
        parse_answer(_answer(b"", 0, code=code), "TXT", 7)


def test_an_answer_to_another_question_is_an_error() -> None:
    with pytest.raises(DnsError, match="another question"):
        parse_answer(_answer(b"", 0, number=8), "TXT", 7)


def _serve(reply: Callable[[bytes], bytes]) -> int:
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener, listener.accept()[0] as link:
            query = link.recv(512)
            link.sendall(reply(query[2:]))

    threading.Thread(target=run, daemon=True).start()
    return int(listener.getsockname()[1])


def test_it_works_over_tcp() -> None:
    def reply(query: bytes) -> bytes:
        body = _answer(_record(16, b"\x02ok"), 1, number=struct.unpack("!H", query[:2])[0])
        return struct.pack("!H", len(body)) + body

    assert ask_dns("127.0.0.1", _serve(reply), "a.test", "TXT") == ["ok"]


@pytest.mark.parametrize("reply", [b"", b"\x00", b"\x00\x05abc", b"\x00\x03abc"])
def test_half_an_answer_is_an_error(reply: bytes) -> None:
    with pytest.raises(DnsError):
        ask_dns("127.0.0.1", _serve(lambda query: reply), "a.test", "TXT")


def test_nobody_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DnsError):
        ask_dns("127.0.0.1", port, "a.test", "TXT", timeout=2.0)
