"""The control plane of a cluster as its Plan describes it, run for real in a network namespace of its own.

Files of the nodes lie below a folder instead of ``/``; the addresses of all nodes lie on loopback.
Executables come from the mirror (``IMAGEGEN_MIRROR``, else the cache), laid out like the official release
sites.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from imagegen.diagnostics import Report
from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import Part, known_minors, load_releases
from imagegen.model.cluster import Cluster, Node
from imagegen.model.version import Version, parse_version
from imagegen.pki.issue import issue_material
from imagegen.pki.resolve import resolve_content
from imagegen.pki.store import SecretStore
from imagegen.plan.build import COMPONENTS
from imagegen.plan.component import Component, Context
from imagegen.plan.items import File, Item, Unit

#: Absolute paths of a machine that are moved below a node's folder, wherever they are mentioned.
_MOVED = re.compile(
    r"(?<![\w./-])/(?:etc/(?:kubernetes|etcd|imagegen|haproxy)|var/l(?:og|ib)/(?:kubernetes|etcd|haproxy))\b"
)
_WANTED = ("kube-apiserver", "kube-controller-manager", "kubectl")


class Unavailable(Exception):
    """The executables are not here; the text says which."""


def mirror() -> Path:
    place = os.environ.get("IMAGEGEN_MIRROR", "")
    return Path(place) if place.startswith("/") else Path.home() / ".cache" / "imagegen" / "mirror"


def _mirrored(part: Part) -> Path:
    url = urlsplit(part.url)
    return mirror() / url.netloc / url.path.lstrip("/")


def list_versions() -> list[Version]:
    """The newest version of each minor whose control plane, with its etcd, is in the mirror."""
    found: dict[str, Version] = {}
    for folder in (mirror() / "dl.k8s.io" / "release").glob("v*"):
        try:
            version = parse_version(folder.name)
        except ValueError:
            continue
        if version.minor_text in known_minors():
            releases = load_releases(version)
            if all(_mirrored(releases.part(name)).exists() for name in (*_WANTED, "etcd")):
                minor = version.minor_text
                found[minor] = max(version, found.get(minor, version))
    return sorted(found.values())


def find_version() -> Version:
    """The newest of ``list_versions``; raises Unavailable."""
    versions = list_versions()
    if not versions:
        raise Unavailable(f"no complete control plane in the mirror {mirror()}: run `make mirror`")
    return versions[-1]


def unpack_executables(version: Version, folder: Path, more: Sequence[str] = ()) -> None:
    """Put the control plane's executables, and ``more`` of the same release, into ``folder``."""
    releases = load_releases(version)
    folder.mkdir(parents=True)
    for name in (*_WANTED, *more):
        shutil.copy(_mirrored(releases.part(name)), folder / name)
        (folder / name).chmod(0o755)
    part = releases.part("etcd")
    with tarfile.open(_mirrored(part)) as archive:
        member = archive.extractfile(part.member("etcd"))
        assert member is not None
        (folder / "etcd").write_bytes(member.read())
    (folder / "etcd").chmod(0o755)


@dataclass
class Machine:
    """One node's files below ``root`` and its units by name."""

    node: Node
    root: Path
    units: dict[str, str] = field(default_factory=dict)

    def path(self, absolute: str) -> Path:
        """Where a path of the machine really lies."""
        return self.root / absolute.lstrip("/")

    def move(self, text: str) -> str:
        """``text`` with the machine's paths as they really are."""
        return _MOVED.sub(lambda match: str(self.root) + match.group(), text)

    def command(self, unit: str, executables: Path) -> list[str]:
        """The argv of a unit's ExecStart=, with its environment files read, programs and paths moved."""
        lines = self.units[unit].replace("\\\n", " ").splitlines()
        environment: dict[str, str] = {}
        for line in lines:
            if line.startswith("EnvironmentFile="):
                for row in self.path(line.partition("=")[2]).read_text().splitlines():
                    name, _, value = row.partition("=")
                    environment[name] = value
        (start,) = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]
        words = [
            re.sub(r"\$\{(\w+)\}", lambda match: environment[match.group(1)], word)
            for word in shlex.split(self.move(start))
        ]
        program = Path(words[0])
        if (executables / program.name).exists():
            return [str(executables / program.name), *words[1:]]
        return [sys.executable, "-EsB", str(self.path(words[0])), *words[1:]]


def make_machine(ctx: Context, node: Node, store: SecretStore, root: Path) -> Machine:
    """Write every file that the Plan has for a node, without owners."""
    machine = Machine(node, root)
    items: list[Item] = []
    for component in cast(Sequence[Component], COMPONENTS):
        items += component.plan_role(ctx, node.roles).items
        items += component.plan_node(ctx, node).items
    for item in items:
        if isinstance(item, Unit) and item.content is not None:
            machine.units[item.name] = item.content
        if isinstance(item, File):
            path = machine.path(item.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            body = resolve_content(item.content, store)
            # programs stay as they are; configuration learns where its files are
            if not item.path.startswith("/usr/"):
                body = machine.move(body.decode()).encode()
            path.write_bytes(body)
            path.chmod(int(item.mode, 8) | 0o600)
    return machine


@dataclass
class RealCluster:
    """Running daemons. Everything that talks to them starts through ``run`` or ``start``."""

    cluster: Cluster
    folder: Path
    executables: Path
    store: SecretStore
    machines: dict[str, Machine]
    namespace: int
    #: nodes that have a namespace of their own, on a bridge in ``namespace``
    own_namespaces: dict[str, int] = field(default_factory=dict)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def enter(self, command: Sequence[str], node: str | None = None) -> list[str]:
        """``command`` inside the namespace, or inside that of a node where it has one."""
        return enter_namespace(self.own_namespaces.get(node or "", self.namespace), command)

    def run(
        self, command: Sequence[str], *, stdin: str = "", node: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.enter(command, node), input=stdin, capture_output=True, text=True, timeout=180, check=False
        )

    def start(
        self, name: str, command: Sequence[str], node: str | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a daemon; its log is ``NAME.log`` in the folder."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                self.enter(command, node),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        self.running.append(process)
        return process

    def start_unit(self, node: str, unit: str) -> subprocess.Popen[bytes]:
        """Start a unit's ExecStart=. A second node's daemon of one name logs to ``UNIT@NODE.log``."""
        name = unit if not (self.folder / f"{unit}.log").exists() else f"{unit}@{node}"
        return self.start(name, self.machines[node].command(unit, self.executables), node)

    def read_log(self, name: str) -> str:
        """The end of a daemon's log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def run_first_boot(self, node: str = "master-0") -> subprocess.CompletedProcess[str]:
        """The first-boot service of a master once, as its unit says, with the paths of this place."""
        machine = self.machines[node]
        return self.run(
            [
                *machine.command("imagegen-first-boot.service", self.executables),
                f"--kubeconfig={machine.path('/etc/kubernetes/first-boot.kubeconfig')}",
                f"--manifests={machine.path('/etc/kubernetes/first-boot')}",
                f"--addons={machine.path('/etc/kubernetes/addons')}",
                f"--tokens={machine.path('/etc/imagegen/bootstrap-tokens')}",
                "--deadline=120",
            ],
            node=node,
        )

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, stdin: str = "") -> str:
        """The output of kubectl as the super-admin, or as the owner of ``kubeconfig``; raises when
        it fails.
        """
        done = self.try_kubectl(*arguments, kubeconfig=kubeconfig, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_kubectl(
        self, *arguments: str, kubeconfig: Path | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        config = kubeconfig or self.machines["master-0"].path("/etc/kubernetes/first-boot.kubeconfig")
        cache = self.folder / "kubectl-cache"
        return self.run(
            [str(self.executables / "kubectl"), f"--kubeconfig={config}", f"--cache-dir={cache}", *arguments],
            stdin=stdin,
            node="master-0",
        )

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def wait_for(self, what: str, condition: Callable[[], Any], seconds: float = 60) -> Any:
        """The first true value of ``condition``; fails with the logs when it does not come."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if value := condition():
                return value
            time.sleep(0.2)
        tails = [f"== {path.name}\n{self.read_log(path.stem)}" for path in self.folder.glob("*.log")]
        raise AssertionError(f"{what} did not happen in {seconds} s\n" + "\n".join(tails))


@contextmanager
def run_control_plane(
    cluster: Cluster,
    folder: Path,
    *,
    version: Version | None = None,
    more: Sequence[str] = (),
    issued: datetime | None = None,
    separate: bool = False,
) -> Iterator[RealCluster]:
    """etcd, API server and controller manager of ``cluster``, started; raises Unavailable. All ends with
    the block.

    ``version`` is the newest unless given; ``more`` are further daemons, started on every node that has their
    unit; ``issued`` is when the certificates were made, now unless given; with ``separate`` every node has a
    network namespace of its own.
    """
    version = version or find_version()
    cluster = replace(cluster, kubernetes=replace(cluster.kubernetes, version=version))
    executables = folder / "bin"
    unpack_executables(version, executables, more)
    store = SecretStore(folder / "secrets")
    issue_material(cluster, store, Report(), now=issued or datetime.now(UTC))
    ctx = Context(cluster=cluster, gates=load_gates(version), releases=load_releases(version))
    machines = {
        node.name: make_machine(ctx, node, store, folder / "nodes" / node.name) for node in cluster.nodes
    }
    with ExitStack() as stack:
        namespace, own = stack.enter_context(
            _node_namespaces(cluster) if separate else _shared_namespace(cluster)
        )
        real = RealCluster(cluster, folder, executables, store, machines, namespace, own)
        stack.callback(_stop_all, real.running)
        for name, machine in machines.items():
            if "etcd.service" in machine.units:
                machine.path("/var/lib/etcd").mkdir(parents=True, mode=0o700)
                real.start_unit(name, "etcd.service")
        for name, machine in machines.items():
            if "kube-apiserver.service" in machine.units:
                machine.path("/var/log/kubernetes").mkdir(parents=True)
                real.start_unit(name, "kube-apiserver.service")
                real.start_unit(name, "kube-controller-manager.service")
            for program in more:
                if f"{program}.service" in machine.units:
                    real.start_unit(name, f"{program}.service")
        yield real


def enter_namespace(pid: int, command: Sequence[str]) -> list[str]:
    """``command`` in the network of a process, as the owner of it."""
    return ["nsenter", "-t", str(pid), "-U", "--preserve-credentials", "-n", "--", *command]


@contextmanager
def _shared_namespace(cluster: Cluster) -> Iterator[tuple[int, dict[str, int]]]:
    """A process in a namespace where loopback has every node's address; gives its id."""
    addresses = [f"ip address add {n.address}/32 dev lo" for n in cluster.nodes if n.address is not None]
    with _hold(["unshare", "--map-root-user", "--net"], ["ip link set lo up", *addresses]) as pid:
        yield pid, {}


@contextmanager
def _node_namespaces(cluster: Cluster) -> Iterator[tuple[int, dict[str, int]]]:
    """A namespace with a bridge that has the gateway's address, and one of its own on it for every node."""
    length = cluster.network.nodes.prefixlen
    bridge = [
        "ip link set lo up",
        "ip link add br0 type bridge",
        f"ip address add {cluster.network.gateway}/{length} dev br0",
        "ip link set br0 up",
    ]
    with ExitStack() as stack:
        outer = stack.enter_context(_hold(["unshare", "--map-root-user", "--net"], bridge))
        own: dict[str, int] = {}
        for number, node in enumerate(cluster.nodes):
            if node.address is None:
                continue
            inner = stack.enter_context(_hold(enter_namespace(outer, ["unshare", "--net"]), ["true"]))
            cable = f"ip link add v{number} type veth peer name eth0 netns {inner}"
            cable += f" && ip link set v{number} master br0 up"
            subprocess.run(enter_namespace(outer, ["sh", "-c", cable]), check=True)
            up = (
                f"ip link set lo up && ip address add {node.address}/{length} dev eth0 && ip link set eth0 up"
            )
            subprocess.run(enter_namespace(inner, ["sh", "-c", up]), check=True)
            own[node.name] = inner
        yield outer, own


@contextmanager
def _hold(enter: Sequence[str], commands: Sequence[str]) -> Iterator[int]:
    """A process that stays in a new namespace once ``commands`` are done there; gives its id."""
    script = " && ".join([*commands, "echo ready", "exec cat"])
    holder = subprocess.Popen(
        [*enter, "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            holder.wait(10)
            reason = holder.stderr.read().decode(errors="replace").strip() if holder.stderr else ""
            raise Unavailable(f"no network namespace here: {reason}")
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


def _stop_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def read_condition(csr: Mapping[str, Any]) -> str:
    """The type of a request's condition, or nothing."""
    conditions = csr.get("status", {}).get("conditions", [])
    return str(conditions[0]["type"]) if conditions else ""
