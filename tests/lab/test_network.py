"""A private network of the lab, without machines: what it answers, what it keeps in, how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagegen.lab.errors import LabError
from imagegen.lab.network import LabNetwork
from imagegen.lab.networkplan import Lease, Metadata, NetworkPlan, Relay
from imagegen.lab.processes import Process, find_process, list_children

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun"),
]
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="taps belong to root here")

PLAN = NetworkPlan(
    addresses=("10.77.0.1/24", "169.254.169.254/32"),
    leases=(Lease(mac="52:54:00:00:00:09", address="10.77.0.109", name="nine"),),
    names=(("nine", "10.77.0.109"), ("pool.ntp.org", "10.77.0.1")),
    relays=(Relay(port=0, targets=(("10.77.0.1", 9999), ("10.77.0.1", 7777))),),
    metadata=(Metadata(address="10.77.0.1", hostname="gate.lab", instance_id="1"),),
    clock_offset=86400.0,
)
WITH_TAPS = NetworkPlan(addresses=PLAN.addresses, taps=("tap0", "tap1"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabNetwork]:
    if os.geteuid() != 0 and not Path("/proc/self/ns/user").exists():
        pytest.skip("this kernel has no user namespaces")
    with LabNetwork(PLAN, tmp_path_factory.mktemp("network")) as running:
        yield running


def _python(network: LabNetwork, program: str) -> str:
    return network.run([sys.executable, "-c", program]).stdout.strip()


def _ask_name(network: LabNetwork, name: str) -> str:
    """Status and last four bytes of the answer of the lab's name server."""
    return _python(
        network,
        f"""
import socket, struct
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.settimeout(5)
labels = b"".join(bytes([len(p)]) + p.encode() for p in {name!r}.split("."))
link.sendto(struct.pack(">HHHHHH", 1, 256, 1, 0, 0, 0) + labels + bytes([0, 0, 1, 0, 1]), ("10.77.0.1", 53))
answer = link.recv(512)
print(answer[3] & 15, socket.inet_ntoa(answer[-4:]) if answer[7] else "-")
""",
    )


def test_names_of_the_lab_are_known_and_others_denied_at_once(network: LabNetwork) -> None:
    assert _ask_name(network, "nine") == "0 10.77.0.109"
    assert _ask_name(network, "2.debian.pool.ntp.org") == "0 10.77.0.1"
    assert _ask_name(network, "example.com") == "3 -"


def test_the_time_server_is_as_far_ahead_as_asked(network: LabNetwork) -> None:
    stamp = _python(
        network,
        """
import socket
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.settimeout(5)
link.sendto(bytes([35]) + bytes(47), ("10.77.0.1", 123))
print(link.recv(64)[40:44].hex())
""",
    )
    seconds = struct.unpack(">I", bytes.fromhex(stamp))[0] - 2_208_988_800
    assert abs(seconds - time.time() - 86400) < 30


def test_metadata_is_told_to_the_machine_with_the_address(network: LabNetwork) -> None:
    program = """
import http.client, sys
link = http.client.HTTPConnection("169.254.169.254", timeout=5, source_address=(sys.argv[1], 0))
link.request("GET", "/computeMetadata/v1/instance/hostname", headers={"Metadata-Flavor": "Google"})
answer = link.getresponse()
print(answer.status, answer.read().decode())
"""

    def ask(source: str) -> str:
        return network.run([sys.executable, "-c", program, source]).stdout.strip()

    assert ask("10.77.0.1") == "200 gate.lab"
    assert ask("169.254.169.254").startswith("404 ")


def test_nothing_leaves_the_network(network: LabNetwork) -> None:
    refused = network.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 5)"], check=False
    )
    assert "Network is unreachable" in refused.stderr
    assert "default" not in network.run(["ip", "route"]).stdout


@pytest.fixture(scope="module")
def echo(network: LabNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server inside the network that sends back what it gets, in capitals."""
    program = (
        "import socketserver\n"
        "class Echo(socketserver.StreamRequestHandler):\n"
        "    def handle(self):\n"
        "        self.wfile.write(self.rfile.read().upper())\n"
        "socketserver.ThreadingTCPServer.allow_reuse_address = True\n"
        "socketserver.ThreadingTCPServer(('10.77.0.1', 7777), Echo).serve_forever()\n"
    )
    server = subprocess.Popen([*network.enter_argv(), sys.executable, "-c", program])
    deadline = time.monotonic() + 20
    while True:
        try:
            network.connect("10.77.0.1", 7777).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield
    for child in list_children(server.pid):
        child.end()
    server.wait(10)


def _talk(link: socket.socket, data: bytes) -> bytes:
    with link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        out = b""
        while piece := link.recv(65536):
            out += piece
        return out


@pytest.mark.usefixtures("echo")
def test_the_door_and_the_port_lead_inside(network: LabNetwork) -> None:
    data = b"hello" * 100_000
    assert _talk(network.connect("10.77.0.1", 7777), data) == data.upper()
    # the first target of the relay takes no connections
    assert _talk(socket.create_connection(("127.0.0.1", network.api_port), 10), data) == data.upper()


@pytest.mark.usefixtures("echo")
def test_ssh_comes_in_by_standard_input(network: LabNetwork) -> None:
    door = network.folder / "gate.sock"
    done = subprocess.run(
        [sys.executable, "-m", "imagegen.lab.dial", str(door), "10.77.0.1", "7777"],
        input=b"knock",
        capture_output=True,
        timeout=30,
    )
    assert done.stdout == b"KNOCK"


def test_the_door_says_when_nobody_is_there(network: LabNetwork) -> None:
    with pytest.raises(ConnectionRefusedError, match=r"nobody takes connections at 10\.77\.0\.1:1 "):
        network.connect("10.77.0.1", 1)


@NEEDS_ROOT
def test_everything_ends_with_the_block(tmp_path: Path) -> None:
    folder = tmp_path / ("a folder with a name that is longer than any path of a socket may be " + "x" * 80)
    with LabNetwork(WITH_TAPS, folder) as network:
        assert "tap1" in network.run(["ip", "-br", "link"]).stdout
        argv = [*network.enter_argv(), "sleep", "1000"]
        sleeper = subprocess.Popen(argv)
        while not (inside := list(list_children(sleeper.pid))):
            time.sleep(0.02)
        gate = network.process
    assert not gate.is_alive()
    assert inside[0].wait(5.0)
    assert sleeper.wait(5) != 0


@NEEDS_ROOT
def test_two_networks_with_the_same_addresses_do_not_meet(tmp_path: Path) -> None:
    with LabNetwork(WITH_TAPS, tmp_path / "a") as one, LabNetwork(WITH_TAPS, tmp_path / "b") as other:
        assert one.process != other.process
        assert one.namespace_path.readlink() != other.namespace_path.readlink()


def test_a_killed_user_takes_the_network_along(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from imagegen.lab.network import LabNetwork\n"
        "from imagegen.lab.networkplan import NetworkPlan\n"
        "with LabNetwork(NetworkPlan(addresses=('10.77.0.1/24',)), Path(sys.argv[1])) as network:\n"
        "    print(network.process.pid, flush=True); time.sleep(1000)\n"
    )
    user = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert user.stdout is not None
    gate = find_process(int(user.stdout.readline()))
    assert gate is not None
    assert gate.is_alive()
    user.send_signal(signal.SIGKILL)
    user.wait(10)
    assert gate.wait(10.0)


def test_a_network_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    twice = NetworkPlan(addresses=("10.77.0.1/24", "10.77.0.1/24"))
    with pytest.raises(LabError, match=r"network could not be made\n(.*\n)*.*ddress already"):
        LabNetwork(twice, tmp_path).start()


def test_a_port_that_is_taken_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        relay = Relay(port=port, targets=(("10.77.0.1", 1),))
        with LabNetwork(NetworkPlan(addresses=("10.77.0.1/24",), relays=(relay,)), tmp_path) as network:
            assert network.api_port not in (0, port)


@NEEDS_ROOT
def test_an_ordinary_user_has_a_network_too(tmp_path: Path) -> None:
    """Without taps: whether ordinary users may make them is up to the mode of /dev/net/tun."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    if subprocess.run([*nobody, "unshare", "--user", "--net", "true"], capture_output=True).returncode != 0:
        pytest.skip("ordinary users may make no namespaces here")
    python = Path("/usr/bin/python3")
    if not python.exists() or subprocess.run([str(python), "-c", "import tomllib"]).returncode != 0:
        pytest.skip("the python of this test is root's own, and there is no other")
    folder = tmp_path / "network"
    folder.mkdir()
    folder.chmod(0o777)
    for path in folder.parents:
        if path.is_relative_to(tempfile.gettempdir()) and path != Path(tempfile.gettempdir()):
            path.chmod(0o711)
    program = (
        "import sys; from pathlib import Path\n"
        "from imagegen.lab.network import LabNetwork\n"
        "from imagegen.lab.networkplan import NetworkPlan\n"
        "with LabNetwork(NetworkPlan(addresses=('10.77.0.1/24',)), Path(sys.argv[1])) as network:\n"
        "    print(network.run(['ip', '-br', 'addr', 'show', 'br0']).stdout)\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [*nobody, str(python), "-c", program, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert "10.77.0.1/24" in done.stdout, done.stderr


def test_a_process_is_never_mistaken_for_another_with_its_id() -> None:
    own = find_process(os.getpid())
    assert own is not None
    assert own.is_alive()
    assert not Process(own.pid, own.ticks + 1).is_alive()
