"""The lab's private network, held by one process; nothing leaves it and everything in it ends with that
process.

Root needs no more; an ordinary user gets a user namespace of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType

from imagegen.lab import gate
from imagegen.lab.dial import dial
from imagegen.lab.errors import LabError
from imagegen.lab.networkplan import NetworkPlan
from imagegen.lab.processes import Process, list_children
from imagegen.run import Completed, Runner, Tool, require_tools

DNSMASQ = Tool(name="dnsmasq", package="dnsmasq-base", purpose="answer DHCP and names in the lab's network")
TOOLS = (
    DNSMASQ,
    Tool(
        name="ip",
        package="iproute2",
        purpose="make the lab's bridge and taps",
        version_arguments=("-Version",),
    ),
    Tool(name="unshare", package="util-linux", purpose="give the lab a network of its own"),
    Tool(name="nsenter", package="util-linux", purpose="start machines in the lab's network"),
)

_START_SECONDS = 30.0
_LOG = "gate.log"


class LabNetwork:
    """A private network with its bridge, taps, DHCP, DNS, time and metadata.

    As a context manager it ends with the block, and with our process even when that is killed. After
    ``start`` and ``release`` it goes on for later commands, which ``attach`` to it.
    """

    def __init__(self, plan: NetworkPlan, folder: Path, runner: Runner | None = None) -> None:
        self.plan = plan
        self.folder = folder
        self.api_port = 0
        self._runner = runner or Runner()
        self._process: Process | None = None
        self._leash = -1

    # --- its life ---

    def __enter__(self) -> LabNetwork:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def process(self) -> Process:
        """The process that holds the network. Raises LabError when it was not started."""
        if self._process is None:
            raise LabError("the lab's network is not running")
        return self._process

    def start(self) -> None:
        """Make the network and wait until it answers. It ends with our process until it is released.

        Raises MissingToolError when a program is missing, LabError with the network's own words when it
        cannot be made.
        """
        require_tools(TOOLS)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _LOG).unlink(missing_ok=True)
        (self.folder / gate.SOCKET).unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            configuration = self.plan.as_dict()
            handles = self._open_ports(configuration, stack)
            end, self._leash = os.pipe()
            stack.callback(os.close, end)
            configuration["leash"] = end
            handles.append(end)
            self._write_configuration(configuration)
            who = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
            argv = ["unshare", *who, "--net", "--pid", "--fork", "--kill-child", "--"]
            argv += [sys.executable, "-m", "imagegen.lab.gate", str(self.folder.absolute())]
            # the gate must find imagegen where we found it
            found = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            background = self._runner.start(argv, output=self.folder / _LOG, env=found, pass_fds=handles)
            deadline = time.monotonic() + _START_SECONDS
            while not (self.folder / gate.SOCKET).exists():
                if background.poll() is not None or time.monotonic() >= deadline:
                    background.end()
                    raise LabError(
                        f"the lab's network could not be made\n{background.last_lines()}", hint=_hint()
                    )
                time.sleep(0.02)
            self._process = next(list_children(background.pid))

    def _open_ports(self, configuration: dict[str, object], stack: contextlib.ExitStack) -> list[int]:
        """Listen on this machine's 127.0.0.1; the sockets stay here when their holder moves into the lab."""
        handles = []
        relays: list[dict[str, object]] = configuration["relays"]  # type: ignore[assignment]
        for relay in relays:
            if not relay["address"]:
                listener = stack.enter_context(_listen(int(str(relay["port"]))))
                relay["fd"] = listener.fileno()
                handles.append(listener.fileno())
                self.api_port = self.api_port or listener.getsockname()[1]
        return handles

    def _write_configuration(self, configuration: dict[str, object]) -> None:
        path = self.folder / gate.CONFIGURATION
        path.write_text(json.dumps(configuration, indent=1), encoding="utf-8")
        path.chmod(0o600)

    def release(self) -> None:
        """Let the network go on without us; to be called when it is written down where to find it."""
        os.write(self._leash, gate.RELEASE)
        os.close(self._leash)
        self._leash = -1

    def attach(self, process: Process, api_port: int) -> None:
        """Use a network that another process of ours started."""
        self._process, self.api_port = process, api_port

    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def stop(self) -> None:
        """End the network and everything in it."""
        if self._process is not None:
            self._process.end()
            self._process = None
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
        (self.folder / gate.SOCKET).unlink(missing_ok=True)

    # --- using it ---

    @property
    def namespace_path(self) -> Path:
        """The network namespace, for programs that take one by path."""
        return Path(f"/proc/{self.process.pid}/ns/net")

    def enter_argv(self) -> list[str]:
        """Words that go before a command line to run it in the lab: it ends when the network does."""
        who = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self.process.pid}", "--net", "--pid", *who, "--"]

    def run(self, argv: list[str], *, timeout: float | None = 60.0, check: bool = True) -> Completed:
        """Run a program of this machine inside the network; see ``Runner.run``."""
        return self._runner.run([*self.enter_argv(), *argv], timeout=timeout, check=check)

    def connect(self, host: str, port: int, timeout: float = 10.0) -> socket.socket:
        """A connection to an address of the lab from outside. Raises OSError when nobody takes it."""
        return dial(self.folder / gate.SOCKET, host, port, timeout)


def _listen(port: int) -> socket.socket:
    """A listener on 127.0.0.1; another port when that one is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    return listener


def _hint() -> str:
    if os.geteuid() == 0:
        return "containers often may not make network namespaces; run it on the machine itself"
    return "an ordinary user needs user namespaces and /dev/net/tun; root needs neither"
