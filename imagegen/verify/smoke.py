"""A smoke test of a running cluster through its API: what a conformance test looks at first, in a minute.

Its pods are CoreDNS, which is on every worker, so no registry is needed; everything is in a namespace of its
own that is removed at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from imagegen.errors import ImagegenError
from imagegen.verify import smokeobjects
from imagegen.verify.dnsquery import DnsError, ask_dns
from imagegen.verify.kubectl import Kubectl
from imagegen.verify.outcomes import Outcome
from imagegen.verify.smokeobjects import PORT, PROBE, SERVER

_PLACE = "smoke"
_TOLERATE_SECONDS = 10
_POLL_SECONDS = 0.5


METRICS = "/apis/metrics.k8s.io/v1beta1/nodes"
#: returns why it does not apply, or None; raises what is wrong
_Check = Callable[[], str | None]


class SmokeError(ImagegenError):
    """What a check found wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    name: str
    node: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeOptions:
    """``image``: CoreDNS as the workers have it; ``service_address``: that of the API inside the cluster;
    ``patience``: seconds for one thing to happen. ``kill_node`` and ``revive_node``: given, the eviction of a
    dead node's pods is checked, too.
    """

    image: str
    domain: str
    service_address: str
    patience: float = 180.0
    metrics_server: bool = False
    kill_node: Callable[[str], None] | None = None
    revive_node: Callable[[str], None] | None = None


@dataclass(slots=True, kw_only=True)
class _State:
    """What earlier checks found out and later ones need."""

    servers: list[Pod] = field(default_factory=list)
    probes: list[Pod] = field(default_factory=list)
    workers: dict[str, str] = field(default_factory=dict)
    cluster_ip: str = ""
    node_port: int = 0


class Smoke:
    """One run. ``outcomes`` makes every check in order; a check that needs a failed one is skipped."""

    def __init__(self, kubectl: Kubectl, options: SmokeOptions) -> None:
        self._namespace = f"imagegen-smoke-{secrets.token_hex(3)}"
        self._admin = kubectl
        self._kubectl = dataclasses.replace(kubectl, namespace=self._namespace)
        self._options = options
        self._state = _State()

    def outcomes(self) -> Iterator[Outcome]:
        """Make the checks. The namespace is removed when the iterator ends or is closed."""
        foundation: tuple[tuple[str, _Check], ...] = (
            ("nodes are ready", self._check_nodes),
            ("deployment: pods run on different nodes", self._check_deployment),
            ("service: it has an address and a node port", self._check_service),
            ("probes: pods with a configuration run", self._check_probes),
        )
        checks: tuple[tuple[str, _Check], ...] = (
            ("service address from every node, by UDP", lambda: self._ask_service("udp")),
            ("service address from every node, by TCP", lambda: self._ask_service("tcp")),
            ("service address leads to every pod", self._check_balance),
            ("cluster DNS from every node", self._check_dns),
            ("pod to pod", self._check_pods),
            ("node port of every worker", self._check_node_ports),
            ("logs, through verified serving certificates", self._check_logs),
            ("exec, through verified serving certificates", self._check_exec),
            ("kubelet metrics, through verified serving certificates", self._check_metrics),
            ("metrics of all nodes, by metrics-server", self._check_metrics_server),
            ("rollout: a new release replaces the old one", self._check_rollout),
            ("eviction: a dead node's pods move", self._check_eviction),
        )
        try:
            broken = ""
            for name, check in foundation:
                yield (outcome := self._make(name, check, broken))
                broken = broken or (name if outcome.problem else "")
            for name, check in checks:
                yield self._make(name, check, broken)
        finally:
            self._clean_up()

    def _make(self, name: str, check: _Check, broken: str) -> Outcome:
        if broken:
            return Outcome(place=_PLACE, name=name, skipped=f'needs what failed: "{broken}"')
        start, problem, skipped = time.monotonic(), "", None
        try:
            skipped = check()
        except (ImagegenError, KeyError, ValueError) as error:
            problem = str(error) or type(error).__name__
        seconds = time.monotonic() - start
        return Outcome(place=_PLACE, name=name, problem=problem, skipped=skipped or "", seconds=seconds)

    def _clean_up(self) -> None:
        with contextlib.suppress(ImagegenError):
            self._admin.run("delete", "namespace", self._namespace, "--ignore-not-found", "--wait=false")

    # --- the ground ---

    def _check_nodes(self) -> None:
        nodes = self._admin.get("nodes")["items"]
        if not nodes:
            raise SmokeError("the API knows no node")
        waiting = [item["metadata"]["name"] for item in nodes if not _is_ready(item)]
        if waiting:
            raise SmokeError(f"not ready: {', '.join(waiting)}")
        self._state.workers = {
            item["metadata"]["name"]: _internal_address(item) for item in nodes if not _is_tainted(item)
        }
        if not self._state.workers:
            raise SmokeError("every node keeps pods away")

    def _check_deployment(self) -> None:
        self._admin.apply([smokeobjects.make_namespace(self._namespace)])
        self._deploy(SERVER, smokeobjects.SERVER_COREFILE)
        self._state.servers = self._list_pods(SERVER)

    def _deploy(self, name: str, corefile: str) -> None:
        replicas = min(2, len(self._state.workers))
        deployment = smokeobjects.make_deployment(
            name, self._options.image, replicas, tolerate_seconds=_TOLERATE_SECONDS
        )
        self._kubectl.apply([smokeobjects.make_config(name, corefile), deployment])
        self._wait_for_rollout(name)

    def _wait_for_rollout(self, name: str) -> None:
        patience = self._options.patience
        self._kubectl.run(
            "rollout", "status", f"deployment/{name}", f"--timeout={patience:.0f}s", timeout=patience + 30
        )

    def _list_pods(self, name: str) -> list[Pod]:
        items = self._kubectl.get("pods", "--selector", f"app={name}")["items"]
        return [
            Pod(
                name=item["metadata"]["name"],
                node=item["spec"]["nodeName"],
                address=item["status"]["podIP"],
            )
            for item in items
            if _is_ready(item) and "deletionTimestamp" not in item["metadata"]
        ]

    def _check_service(self) -> None:
        self._kubectl.apply([smokeobjects.make_service(SERVER)])
        spec = self._kubectl.get("service", SERVER)["spec"]
        self._state.cluster_ip = spec["clusterIP"]
        self._state.node_port = next(p["nodePort"] for p in spec["ports"] if p["protocol"] == "TCP")

    def _check_probes(self) -> None:
        state = self._state
        targets = {
            "udp.service.probe": (f"{state.cluster_ip}:53", "prefer_udp"),
            "tcp.service.probe": (f"{state.cluster_ip}:53", "force_tcp"),
        }
        for number, pod in enumerate(state.servers):
            targets[f"pod{number}.probe"] = (f"{pod.address}:{PORT}", "prefer_udp")
        for number, address in enumerate(state.workers.values()):
            targets[f"node{number}.probe"] = (f"{address}:{state.node_port}", "force_tcp")
        self._deploy(PROBE, smokeobjects.emit_probe_corefile(targets, self._options.domain))
        state.probes = self._list_pods(PROBE)

    # --- asking ---

    def _ask(self, probe: Pod, names: Sequence[str], kind: str) -> list[list[str]]:
        """Answers of one probe to several questions, through a forwarded port."""
        with self._kubectl.forward(f"pod/{probe.name}", PORT) as port:
            return [self._ask_patiently(port, name, kind) for name in names]

    def _ask_patiently(self, port: int, name: str, kind: str) -> list[str]:
        """Rules of a service need a moment to reach every node: ask again for 20 seconds."""
        deadline = time.monotonic() + min(20.0, self._options.patience)
        while True:
            try:
                answers = ask_dns("127.0.0.1", port, name, kind)
                if answers:
                    return answers
                problem = f"{name}: an empty answer"
            except DnsError as error:
                problem = str(error)
            if time.monotonic() >= deadline:
                raise SmokeError(problem)
            time.sleep(_POLL_SECONDS)

    def _expect_server(self, answers: list[str], where: str, wanted: str | None = None) -> str:
        """The pod that answered, which must be one of ours, or the one that is wanted."""
        name = answers[0].split(" ")[0]
        known = [wanted] if wanted is not None else [pod.name for pod in self._state.servers]
        if name not in known:
            raise SmokeError(f"{where}: wanted an answer of {' or '.join(known)}, got {answers[0]!r}")
        return name

    def _ask_service(self, protocol: str) -> None:
        for probe in self._state.probes:
            (answers,) = self._ask(probe, [f"a.{protocol}.service.probe"], "TXT")
            self._expect_server(answers, f"from {probe.node}")

    def _check_balance(self) -> str | None:
        wanted = {pod.name for pod in self._state.servers}
        if len(wanted) < 2:
            return "there is one worker only"
        with self._kubectl.forward(f"pod/{self._state.probes[0].name}", PORT) as port:
            seen = set()
            for number in range(40):
                answers = self._ask_patiently(port, f"b{number}.tcp.service.probe", "TXT")
                seen.add(self._expect_server(answers, "service"))
                if seen == wanted:
                    return None
        raise SmokeError(f"40 questions, and never an answer of {', '.join(sorted(wanted - seen))}")

    def _check_dns(self) -> None:
        domain = self._options.domain
        wanted = {
            f"kubernetes.default.svc.{domain}": self._options.service_address,
            f"{SERVER}.{self._namespace}.svc.{domain}": self._state.cluster_ip,
        }
        for probe in self._state.probes:
            for name, answers in zip(wanted, self._ask(probe, list(wanted), "A"), strict=True):
                if answers != [wanted[name]]:
                    raise SmokeError(f"from {probe.node}: {name} is {wanted[name]}, got {', '.join(answers)}")

    def _check_pods(self) -> str | None:
        numbered = list(enumerate(self._state.servers))
        for probe in self._state.probes:
            names = [f"c.pod{number}.probe" for number, _ in numbered]
            for (_, pod), answers in zip(numbered, self._ask(probe, names, "TXT"), strict=True):
                self._expect_server(answers, f"from {probe.node} to {pod.node}", pod.name)
        pairs = itertools.product(self._state.probes, self._state.servers)
        if not any(probe.node != pod.node for probe, pod in pairs):
            return "only within one node: there is one worker"
        return None

    def _check_node_ports(self) -> None:
        names = [f"d.node{number}.probe" for number in range(len(self._state.workers))]
        for probe in self._state.probes:
            for node, answers in zip(self._state.workers, self._ask(probe, names, "TXT"), strict=True):
                self._expect_server(answers, f"from {probe.node} to port {self._state.node_port} of {node}")

    def _check_logs(self) -> None:
        for number, pod in enumerate(self._state.servers):
            mark = f"mark-{secrets.token_hex(4)}.pod{number}.probe"
            self._ask(self._state.probes[0], [mark], "TXT")
            self._wait_until(
                lambda pod=pod, mark=mark: mark in self._kubectl.run("logs", pod.name).stdout,  # type: ignore[misc]
                f"the log of {pod.name} on {pod.node} does not hold what it was asked",
            )

    def _wait_until(self, is_so: Callable[[], bool], problem: str) -> None:
        deadline = time.monotonic() + self._options.patience
        while not is_so():
            if time.monotonic() >= deadline:
                raise SmokeError(f"{problem} after {self._options.patience:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _check_exec(self) -> None:
        for pod in self._state.servers:
            done = self._kubectl.run("exec", pod.name, "--", "/coredns", "-version")
            if "CoreDNS-" not in done.stdout:
                raise SmokeError(f"on {pod.node}: wanted CoreDNS's version, got {done.stdout[:100]!r}")

    def _check_metrics(self) -> None:
        for node in self._state.workers:
            text = self._admin.run("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics/resource").stdout
            if "node_cpu_usage_seconds_total" not in text:
                raise SmokeError(f"the metrics of {node} hold no processor time")

    def _check_metrics_server(self) -> str | None:
        """It has its first numbers when it has asked every kubelet twice."""
        if not self._options.metrics_server:
            return "this cluster has no metrics-server"

        def knows_all() -> bool:
            with contextlib.suppress(ImagegenError):
                text = self._admin.run("get", "--raw", METRICS).stdout
                return all(f'"name":"{node}"' in text for node in self._state.workers)
            return False

        self._wait_until(knows_all, "metrics-server does not know the metrics of every node")
        return None

    def _check_rollout(self) -> None:
        self._kubectl.run("set", "env", f"deployment/{SERVER}", "RELEASE=2")
        self._wait_for_rollout(SERVER)
        self._state.servers = self._list_pods(SERVER)
        (answers,) = self._ask(self._state.probes[0], ["e.tcp.service.probe"], "TXT")
        self._expect_server(answers, "service")
        if not answers[0].endswith(" 2"):
            raise SmokeError(f"wanted an answer of release 2, got {answers[0]!r}")

    # --- a dead node ---

    def _check_eviction(self) -> str | None:
        kill, revive = self._options.kill_node, self._options.revive_node
        if kill is None or revive is None:
            return "no node may be killed (--disruptive allows it)"
        if len(self._state.workers) < 2:
            return "there is one worker only"
        victim = self._state.servers[0]
        self._kubectl.run("scale", f"deployment/{SERVER}", "--replicas=1")
        self._wait_for_rollout(SERVER)
        victim = self._wait_for_server(lambda pod: True, "one server remains")
        kill(victim.node)
        try:
            self._wait_for_server(
                lambda pod: pod.node != victim.node, f"no pod of the dead node {victim.node} has moved"
            )
            probe = next(one for one in self._state.probes if one.node != victim.node)
            (answers,) = self._ask(probe, ["f.tcp.service.probe"], "TXT")
            if answers[0].split(" ")[0] == victim.name:
                raise SmokeError("the service still leads to the dead node")
        finally:
            revive(victim.node)
        self._wait_until(self._are_nodes_ready, f"{victim.node} is not ready again")
        return None

    def _wait_for_server(self, fits: Callable[[Pod], bool], problem: str) -> Pod:
        found: list[Pod] = []

        def has_moved() -> bool:
            found[:] = [pod for pod in self._list_pods(SERVER) if fits(pod)]
            return bool(found)

        self._wait_until(has_moved, problem)
        return found[0]

    def _are_nodes_ready(self) -> bool:
        return all(_is_ready(item) for item in self._admin.get("nodes")["items"])


def _is_ready(item: Any) -> bool:
    conditions = item["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _is_tainted(item: Any) -> bool:
    """Whether the node is a master that takes the pods of the control plane only."""
    return any(taint.get("effect") == "NoSchedule" for taint in item["spec"].get("taints", []))


def _internal_address(item: Any) -> str:
    addresses = item["status"]["addresses"]
    return next(str(one["address"]) for one in addresses if one["type"] == "InternalIP")
