"""``imagegen test CLUSTER``: checks made from the plan on running nodes, and a smoke test through the API."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.cli.check import count
from imagegen.cli.inputs import find_secrets, read_plan_aloud
from imagegen.cli.options import require_known
from imagegen.cli.terminal import Terminal
from imagegen.cli.testreport import Findings, tell_findings
from imagegen.errors import ImagegenError, InputError, UsageError
from imagegen.model.cluster import Addon, Role

if TYPE_CHECKING:
    from imagegen.content import Content
    from imagegen.lab.cluster import LabCluster
    from imagegen.plan.plan import NodePlan, Plan
    from imagegen.run import Runner
    from imagegen.verify.live import Expectations
    from imagegen.verify.nodeshell import NodeShell
    from imagegen.verify.outcomes import Outcome

#: nodes that are asked at once
_PARALLEL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTest:
    """What the command line says about a test of running nodes."""

    cluster: Path
    nodes: tuple[str, ...] = ()
    only: str | None = None
    profile_dirs: tuple[Path, ...] = ()
    secrets_dir: Path | None = None
    kubeconfig: Path | None = None
    ssh_user: str | None = None
    ssh_key: Path | None = None
    ssh_config: Path | None = None
    addresses: tuple[str, ...] = ()
    disruptive: bool = False
    patience: float = 180.0

    @property
    def is_elsewhere(self) -> bool:
        """Whether the cluster is not the lab's but reached by words of the command line."""
        return any((self.kubeconfig, self.ssh_user, self.ssh_key, self.ssh_config, self.addresses))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reach:
    """How nodes and API are reached."""

    shell: NodeShell
    kubeconfig: Path | None
    kubectl: str
    lab: LabCluster | None = None
    images: Mapping[str, Path] = field(default_factory=dict)


def run_cluster_test(test: ClusterTest, form: str, terminal: Terminal) -> int:
    """Make the checks and tell them; the exit code."""
    from imagegen.run import Runner
    from imagegen.verify.outcomes import count_failed

    plan = read_plan_aloud(test.cluster, test.profile_dirs, terminal)
    for name in test.nodes:
        require_known("node", name, [node.name for node in plan.cluster.nodes])
    runner = Runner(log=terminal.detail)
    reach = _find_elsewhere(test, plan, runner) if test.is_elsewhere else _find_lab(test, plan, runner)
    found = Findings()
    if test.only != "smoke":
        for suite, benchmark in _check_nodes(test, plan, reach, terminal):
            found.suite.extend(suite)
            found.benchmark.extend(benchmark)
    if test.only in (None, "smoke"):
        found.smoke.extend(_run_smoke(test, plan, reach, terminal))
    tell_findings(str(test.cluster), found, form, terminal)
    return 1 if count_failed(found.all) else 0


# --- reaching the cluster ---


def _find_lab(test: ClusterTest, plan: Plan, runner: Runner) -> _Reach:
    from imagegen.lab.cluster import open_lab
    from imagegen.lab.errors import LabError
    from imagegen.verify.nodeshell import NodeShell

    try:
        lab = open_lab(test.cluster, profile_dirs=test.profile_dirs, runner=runner)
    except LabError as error:
        raise UsageError(
            str(error),
            hint=f"imagegen up {test.cluster} starts it here; a cluster elsewhere is named by --kubeconfig, "
            "--ssh-user, --ssh-key",
        ) from None
    words = {node.name: ("-F", str(lab.folder.ssh_config), node.name) for node in lab.nodes}
    kubectl = str(lab.folder.kubectl) if lab.folder.kubectl.exists() else "kubectl"
    images = {node.name: lab.image_of(node.name) for node in lab.nodes}
    return _Reach(
        shell=NodeShell(runner=runner, words=words),
        kubeconfig=lab.folder.kubeconfig,
        kubectl=kubectl,
        lab=lab,
        images=images,
    )


def _find_elsewhere(test: ClusterTest, plan: Plan, runner: Runner) -> _Reach:
    from imagegen.verify.nodeshell import NodeShell, list_words

    kubeconfig = test.kubeconfig
    if kubeconfig is None and "KUBECONFIG" in os.environ:
        kubeconfig = Path(os.environ["KUBECONFIG"])
    addresses = {node.name: str(node.address) for node in plan.cluster.nodes if node.address is not None}
    for word in test.addresses:
        name, equals, address = word.partition("=")
        require_known("node", name, [node.name for node in plan.cluster.nodes])
        if not equals or not address:
            raise UsageError(f"--address {word} names no address", hint="--address worker-1=10.0.0.5")
        addresses[name] = address
    missing = [node.name for node in plan.cluster.nodes if node.name not in addresses]
    if missing and kubeconfig is not None and test.only != "smoke":
        addresses |= {n: a for n, a in _ask_addresses(runner, kubeconfig).items() if n in missing}
    user = test.ssh_user or plan.cluster.access.user
    words = {
        name: list_words(address, user=user, key=test.ssh_key, config=test.ssh_config)
        for name, address in addresses.items()
    }
    return _Reach(shell=NodeShell(runner=runner, words=words), kubeconfig=kubeconfig, kubectl="kubectl")


def _ask_addresses(runner: Runner, kubeconfig: Path) -> dict[str, str]:
    """Addresses of the nodes that take theirs by DHCP, as the API knows them."""
    from imagegen.verify.kubectl import Kubectl

    found: dict[str, str] = {}
    try:
        items = Kubectl(runner=runner, program="kubectl", kubeconfig=kubeconfig).get("nodes")["items"]
    except ImagegenError:
        # each node whose address is not known is told by its own check
        return found
    for item in items:
        for address in item["status"]["addresses"]:
            if address["type"] == "InternalIP":
                found[item["metadata"]["name"]] = address["address"]
    return found


# --- the suite of every node ---


_Answers = tuple[list["Outcome"], list["Outcome"]]


def _check_nodes(test: ClusterTest, plan: Plan, reach: _Reach, terminal: Terminal) -> Iterator[_Answers]:
    """What the suite and what the benchmark says of each node."""
    from imagegen.run import require_tools
    from imagegen.verify.nodeshell import SSH

    require_tools([SSH])
    wanted = test.nodes or [node.name for node in plan.cluster.nodes]
    if reach.lab is not None:
        running = [node.name for node in reach.lab.nodes]
        wanted = [name for name in wanted if test.nodes or name in running]
    plans = [plan.node_plan(name) for name in wanted]
    resolve = _Resolver(test, plan)
    progress = terminal.progress()
    with ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
        jobs = [pool.submit(_check_node, one, reach, resolve, test.only) for one in plans]
        for one, job in zip(plans, jobs, strict=True):
            with progress.step(f"checking {one.node.name}") as step:
                suite, benchmark = job.result()
                step.note = count(len(suite) + len(benchmark), "check")
            yield suite, benchmark


def _check_node(plan: NodePlan, reach: _Reach, resolve: _Resolver, only: str | None) -> _Answers:
    from imagegen.verify.cisfacts import check_benchmark
    from imagegen.verify.live import check_node, emit_probe, parse_answer
    from imagegen.verify.outcomes import Outcome, count_failed

    name = plan.node.name
    if name not in reach.shell.words:
        where = f"its address is not known: --address {name}=ADDRESS"
        return [Outcome(place=name, name="can be reached", problem=where)], []
    suite: list[Outcome] = []
    benchmark: list[Outcome] = []
    try:
        if only != "cis":
            answer = parse_answer(reach.shell.run_python(name, emit_probe(plan)))
            suite += check_node(plan, answer, _expect(plan, reach, resolve))
            if count_failed(suite) and set(plan.node.roles) & {Role.ETCD, Role.MASTER}:
                other = resolve.replan(name)
                again = list(check_node(other, answer, _expect_later(other, reach, resolve)))
                suite = min(suite, again, key=count_failed)
        if only != "suite":
            benchmark += check_benchmark(
                plan, resolve.version, lambda script: reach.shell.run_script(name, script)
            )
    except ImagegenError as error:
        suite.append(Outcome(place=name, name="can be reached", problem=str(error)))
    return suite, benchmark


def _expect_later(plan: NodePlan, reach: _Reach, resolve: _Resolver) -> Expectations:
    """What is expected where machines were replaced since the node's first boot."""
    from imagegen.plan.components.first_boot import BOOTSTRAP_TOKENS

    expected = _expect(plan, reach, resolve)
    history = "it holds the tokens of the master's first boot, and a node that was replaced has a newer one"
    return replace(expected, excused={**expected.excused, BOOTSTRAP_TOKENS: history})


def _expect(plan: NodePlan, reach: _Reach, resolve: _Resolver) -> Expectations:
    from imagegen.verify.bill import read_digests
    from imagegen.verify.live import Expectations

    excused: Mapping[str, str] = {}
    is_container = reach.lab is not None and reach.lab.engine.name == "nspawn"
    if is_container:
        from imagegen.lab.nspawnnode import list_differences

        excused = list_differences()
    image = reach.images.get(plan.node.name)
    digests = read_digests(image) if image is not None else {}
    return Expectations(resolve=resolve, digests=digests, excused=excused, shares_kernel=is_container)


class _Resolver:
    """File bodies as bytes; None where a secret would be needed that is not here."""

    def __init__(self, test: ClusterTest, plan: Plan) -> None:
        from imagegen.pki.store import open_store

        self.version = plan.cluster.kubernetes.version
        self._cluster = plan.cluster
        folder = find_secrets(test.cluster, test.secrets_dir)
        self._store = open_store(str(plan.cluster.file), folder, os.environ) if folder.is_dir() else None

    def replan(self, node: str) -> NodePlan:
        """The plan of a node whose machine took the place of an older one."""
        from imagegen.diagnostics import Report
        from imagegen.plan.build import build_plan
        from imagegen.plan.profiles import load_profiles

        report = Report()
        cluster = self._cluster.rejoin(node)
        plan = build_plan(cluster, load_profiles(cluster.profile_dirs, report), report)
        if plan is None:
            raise InputError(report)
        return plan.node_plan(node)

    def __call__(self, content: Content) -> bytes | None:
        from imagegen.content import Ref
        from imagegen.pki.resolve import resolve_content
        from imagegen.pki.store import StoreError

        if self._store is None:
            if any(isinstance(part, Ref) for part in content):
                return None
            return b"".join(p if isinstance(p, bytes) else str(p).encode() for p in content)
        try:
            return resolve_content(content, self._store)
        except StoreError:
            return None


# --- the smoke test ---


def _run_smoke(test: ClusterTest, plan: Plan, reach: _Reach, terminal: Terminal) -> list[Outcome]:
    from imagegen.plan.items import ContainerImage
    from imagegen.run import require_tools
    from imagegen.verify.kubectl import KUBECTL, Kubectl
    from imagegen.verify.outcomes import Outcome
    from imagegen.verify.smoke import Smoke, SmokeOptions

    items = [item for one in plan.role_plans for item in one.items if isinstance(item, ContainerImage)]
    image = next((item.reference for item in items if "/coredns" in item.reference), None)
    if image is None:
        reason = "its pods are CoreDNS, which this cluster has not on its workers"
        return [Outcome(place="smoke", name="smoke test", skipped=reason)]
    if reach.kubeconfig is None:
        raise UsageError("the smoke test asks the API", hint="--kubeconfig FILE, or --only suite")
    if reach.kubectl == KUBECTL.name:
        require_tools([KUBECTL])
    network = plan.cluster.network
    options = SmokeOptions(
        image=image,
        domain=network.domain,
        service_address=str(network.api_service),
        patience=test.patience,
        metrics_server=Addon.METRICS_SERVER in plan.cluster.addons,
        kill_node=_make_killer(reach) if test.disruptive else None,
        revive_node=_make_reviver(reach) if test.disruptive else None,
    )
    kubectl = Kubectl(runner=reach.shell.runner, program=reach.kubectl, kubeconfig=reach.kubeconfig)
    outcomes, progress = [], terminal.progress()
    steps = Smoke(kubectl, options).outcomes()
    with progress.step("smoke test") as step:
        for outcome in steps:
            outcomes.append(outcome)
            step.advance(outcome.name)
    return outcomes


def _make_killer(reach: _Reach) -> Callable[[str], None]:
    """In the lab the power is cut; elsewhere the kubelet is stopped, which looks the same to the cluster."""
    if reach.lab is not None:
        return reach.lab.power_cut

    def stop_kubelet(node: str) -> None:
        reach.shell.run_script(node, "systemctl stop kubelet")

    return stop_kubelet


def _make_reviver(reach: _Reach) -> Callable[[str], None]:
    def revive(node: str) -> None:
        if reach.lab is not None:
            reach.lab.start_node(node)
        else:
            reach.shell.run_script(node, "systemctl start kubelet")

    return revive
