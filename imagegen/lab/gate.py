"""``python -m imagegen.lab.gate FOLDER``: the first process of the lab's namespaces, and their only door.

Makes the bridge and the taps, answers DHCP, names, time and metadata, and relays connections from this
machine inside. When it ends, the kernel ends everything that runs in the lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from imagegen.errors import ImagegenError
from imagegen.lab.metadataserver import answer_metadata
from imagegen.lab.networkplan import BRIDGE, METADATA_ADDRESS, Lease, Metadata
from imagegen.lab.timeserver import answer_time
from imagegen.run import Background, Runner

CONFIGURATION = "gate.json"
SOCKET = "gate.sock"
#: what is written to the leash before it is let go
RELEASE = b"go"

_CONNECT_SECONDS = 10.0
_REQUEST_BYTES = 16384
_REAP_SECONDS = 0.5
_log = logging.getLogger("gate")

Target = tuple[str, int]


def main(folder: Path) -> None:
    """Serve until SIGTERM, or until whoever started us is gone without having released us."""
    os.chdir(folder)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan: dict[str, Any] = json.loads(Path(CONFIGURATION).read_text(encoding="utf-8"))
    runner = Runner()
    try:
        runner.run(["ip", "-batch", "-"], stdin=emit_links(plan).encode())
    except ImagegenError as error:
        # our last words: whoever waits for us shows them
        _log.error("%s", error)
        return
    names = runner.start(build_dnsmasq_argv(plan), output=Path("dnsmasq.log"))
    asyncio.run(_serve(plan, names))


def emit_links(plan: Mapping[str, Any]) -> str:
    """What ip(8) has to do, one command a line."""
    lines = ["link set lo up", f"link add {BRIDGE} type bridge forward_delay 0 stp_state 0"]
    lines += [f"addr add {address} dev {BRIDGE}" for address in plan["addresses"]]
    lines.append(f"link set {BRIDGE} up")
    for tap in plan["taps"]:
        lines += [f"tuntap add dev {tap} mode tap", f"link set {tap} master {BRIDGE} up"]
    return "".join(f"{line}\n" for line in lines)


def build_dnsmasq_argv(plan: Mapping[str, Any]) -> list[str]:
    """DHCP for known cards only; DNS that knows its own names and denies all others at once."""
    gateway, _, length = plan["addresses"][0].partition("/")
    leases = [Lease(**lease) for lease in plan["leases"]]
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="]
    argv += [f"--interface={BRIDGE}", "--bind-interfaces", "--except-interface=lo", "--log-facility=-"]
    argv += ["--no-resolv", "--no-hosts", "--cache-size=0", "--local=/#/"]
    argv += [f"--address=/{name}/{address}" for name, address in plan["names"]]
    if leases:
        # without --no-ping it waits three seconds whether somebody else has the address
        mask = socket.inet_ntoa(((1 << 32) - (1 << (32 - int(length)))).to_bytes(4))
        argv += [f"--dhcp-range={leases[0].address},static,{mask},1h", "--dhcp-authoritative", "--no-ping"]
        argv += ["--dhcp-leasefile=dnsmasq.leases", f"--dhcp-option=option:router,{gateway}"]
        argv += [f"--dhcp-option=option:dns-server,{gateway}", f"--dhcp-option=option:ntp-server,{gateway}"]
        argv += [f"--dhcp-host={lease.mac},{lease.address},{lease.name}" for lease in leases]
    return argv


async def _serve(plan: dict[str, Any], names: Background) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    loop.add_reader(plan["leash"], _feel_leash, plan["leash"], over)
    for address in plan["addresses"]:
        own = address.partition("/")[0]
        await loop.create_datagram_endpoint(lambda: _TimeServer(plan["clock_offset"]), local_addr=(own, 123))
    machines = {one["address"]: Metadata(**one) for one in plan["metadata"]}
    if any(address.startswith(f"{METADATA_ADDRESS}/") for address in plan["addresses"]):
        await asyncio.start_server(_MetadataServer(machines).serve, METADATA_ADDRESS, 80)
    for relay in plan["relays"]:
        serve = _Relay([(host, port) for host, port in relay["targets"]]).serve
        if "fd" in relay:
            await asyncio.start_server(serve, sock=socket.socket(fileno=relay["fd"]))
        else:
            await asyncio.start_server(serve, relay["address"], relay["port"])
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET)
    # last: who waits for the socket finds everything else in place
    await asyncio.start_unix_server(_serve_door, SOCKET)
    _log.info("ready")
    while not over.is_set():
        _reap(names)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _REAP_SECONDS)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET)


def _feel_leash(leash: int, over: asyncio.Event) -> None:
    """The other end was closed by whoever holds it, or by the end of their process."""
    asyncio.get_running_loop().remove_reader(leash)
    if os.read(leash, len(RELEASE)) != RELEASE:
        over.set()


def _reap(names: Background) -> None:
    """The first process of a namespace inherits the dead."""
    with contextlib.suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            if pid == names.pid:
                _log.error("dnsmasq ended: %s", names.last_lines(3))


class _TimeServer(asyncio.DatagramProtocol):
    def __init__(self, offset: float) -> None:
        self._offset = offset
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Python 3.11's own is no subclass of DatagramTransport
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = answer_time(data, time.time() + self._offset)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


class _MetadataServer:
    def __init__(self, machines: Mapping[str, Metadata]) -> None:
        self._machines = machines

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ", 2)
            pairs = (line.partition(":") for line in head[1:] if line)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            machine = self._machines.get(writer.get_extra_info("peername")[0])
            status, own, body = answer_metadata(target, headers, machine)
            _log.info("metadata %s %s %s -> %d", machine and machine.hostname, method, target, status)
            own |= {"Content-Length": str(len(body)), "Connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in own.items())
            writer.write(f"HTTP/1.1 {status} -\r\n{lines}\r\n".encode("latin-1") + body)
            await writer.drain()
        writer.close()


class _Relay:
    def __init__(self, targets: list[Target]) -> None:
        self._targets = targets

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for target in self._targets:
            inner = await _connect(target)
            if inner is not None:
                await _join((reader, writer), inner)
                return
        writer.transport.abort()


async def _serve_door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """``CONNECT host:port``, then the connection itself; as HTTP proxies do it."""
    try:
        line = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[0]
        method, target, _ = line.split(" ", 2)
        host, _, port = target.rpartition(":")
        inner = await _connect((host, int(port))) if method == "CONNECT" else None
        writer.write(b"HTTP/1.1 %s\r\n\r\n" % (b"502 refused" if inner is None else b"200 connected"))
        if inner is not None:
            await _join((reader, writer), inner)
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    writer.close()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connect(target: Target) -> Ends | None:
    try:
        return await asyncio.wait_for(asyncio.open_connection(*target), _CONNECT_SECONDS)
    except (OSError, TimeoutError):
        return None


async def _join(one: Ends, other: Ends) -> None:
    """Carry bytes both ways until both sides have ended."""
    await asyncio.gather(_carry(one[0], other[1]), _carry(other[0], one[1]))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_REQUEST_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
