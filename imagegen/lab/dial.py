"""``python -m imagegen.lab.dial SOCKET HOST PORT``: a connection into the lab on stdin and stdout."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
from pathlib import Path

from imagegen.lab.qmp import connect_local

_PIECE = 65536


def dial(door: Path, host: str, port: int, timeout: float) -> socket.socket:
    """A connection to an address of the lab through its door. Raises OSError when nobody takes it."""
    link = connect_local(door, timeout)
    try:
        link.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            piece = link.recv(1)
            if not piece:
                raise ConnectionRefusedError(f"the lab closed the connection to {host}:{port}")
            answer += piece
        if b" 200 " not in answer:
            raise ConnectionRefusedError(f"nobody takes connections at {host}:{port} in the lab")
    except BaseException:
        link.close()
        raise
    return link


def carry(link: socket.socket, source: int, sink: int) -> None:
    """Copy ``source`` to the connection and the connection to ``sink`` until the other side ends."""
    link.settimeout(None)
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ)
        selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is link:
                    data = link.recv(_PIECE)
                    if not data:
                        return
                    while data:
                        data = data[os.write(sink, data) :]
                else:
                    data = os.read(source, _PIECE)
                    if data:
                        link.sendall(data)
                    else:
                        selector.unregister(source)
                        link.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        carry(dial(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), 20.0), 0, 1)
