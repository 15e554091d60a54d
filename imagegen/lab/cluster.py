"""A whole cluster in the lab: its network, its machines, its API; started by one command, found by others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from imagegen.backends.image.layers import remove_tree
from imagegen.diagnostics import Report
from imagegen.errors import InputError, UsageError
from imagegen.lab import access, network
from imagegen.lab.access import emit_ssh_config, write_kubeconfig
from imagegen.lab.api import ApiClient
from imagegen.lab.engine import Engine, LabMachine, NodeBoot, load_engine
from imagegen.lab.errors import LabError
from imagegen.lab.folder import LabFolder, lab_folder
from imagegen.lab.machine import choose_memory
from imagegen.lab.network import LabNetwork
from imagegen.lab.networkplan import NetworkPlan, plan_network
from imagegen.lab.seeds import write_seeds
from imagegen.lab.state import (
    LabState,
    MachineRecord,
    identify_image,
    read_boot_id,
    read_state,
    write_state,
)
from imagegen.lab.timeline import Timeline
from imagegen.lab.watch import Watch, watch_lab
from imagegen.model.cluster import Cluster, ImageMode, ImagePki, Node
from imagegen.model.load import load_cluster
from imagegen.progress import SILENT, Progress
from imagegen.run import Completed, Runner, require_tools

_SHUTDOWN_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """How to start a lab. ``out`` holds the golden images (``out/images``). ``nodes`` None: all of them.

    ``clock_offset``: seconds that the lab's time server and the machines' clocks are ahead of ours.
    ``rtc_base`` sets the machines' clocks alone, as QEMU takes it.
    """

    out: Path
    engine: str = "qemu"
    nodes: tuple[str, ...] | None = None
    secrets: Path | None = None
    profile_dirs: tuple[Path, ...] = ()
    fresh: bool = False
    clock_offset: float = 0.0
    rtc_base: str = "utc"


class LabCluster:
    """A running lab. Made by ``start_lab`` or ``open_lab``."""

    def __init__(
        self,
        cluster: Cluster,
        folder: LabFolder,
        state: LabState,
        engine: Engine,
        network: LabNetwork,
        runner: Runner,
    ) -> None:
        self.cluster = cluster
        self.folder = folder
        self.state = state
        self.engine = engine
        self.network = network
        self.runner = runner
        self.machines: dict[str, LabMachine] = {}
        self._api: ApiClient | None = None

    # --- looking ---

    @property
    def nodes(self) -> list[Node]:
        """The nodes that this lab runs, in the order of the cluster file."""
        return [node for node in self.cluster.nodes if node.name in self.state.nodes]

    def address_of(self, node: str) -> str:
        return self.network.plan.address_of[node]

    def image_of(self, node: str) -> Path:
        """The golden image that a node boots: that of its roles, or with its seed inside its own."""
        is_own = self.cluster.image.pki is ImagePki.BAKED
        name = node if is_own else self.cluster.node(node).role_set
        return Path(self.state.out) / "images" / f"{self.cluster.name}-{name}.qcow2"

    @property
    def clock_offset(self) -> timedelta:
        """How far the lab's clocks are ahead of ours."""
        return timedelta(seconds=float(self.state.settings.get("clock_offset", 0.0)))

    @property
    def api(self) -> ApiClient:
        """The API server, as the admin, through the lab's own door."""
        if self._api is None:
            host, port = self.network.plan.relays[0].targets[0]
            self._api = ApiClient(
                self.folder.kubeconfig,
                lambda timeout: self.network.connect(host, port, timeout),
                checks_time=not self.clock_offset,
            )
        return self._api

    def ssh(self, node: str, command: str, *, timeout: float = 120.0, check: bool = True) -> Completed:
        """Run a shell command on a node as the access user, who may use sudo. Raises CommandError."""
        argv = ["ssh", "-F", str(self.folder.ssh_config), "-o", "BatchMode=yes", node, "--", command]
        return self.runner.run(argv, timeout=timeout, check=check)

    def kubectl(self, *arguments: str, timeout: float = 120.0, check: bool = True) -> Completed:
        """Run kubectl of the cluster's own version as the admin. Raises CommandError, MissingToolError."""
        program = str(self.folder.kubectl) if self.folder.kubectl.exists() else "kubectl"
        argv = [program, "--kubeconfig", str(self.folder.kubeconfig), *arguments]
        return self.runner.run(argv, timeout=timeout, check=check)

    def watch(self) -> Watch:
        """How far every node is."""
        return Watch(self)

    def wait_ready(self, timeout: float = 900.0, *, nodes: Sequence[str] | None = None) -> Timeline:
        """Wait until the nodes (all of them, or these) have done everything that is expected of them since
        their last start. Raises BootFailureError with what is missing and where to look.
        """
        return watch_lab(self.watch(), timeout, nodes=nodes)

    # --- changing ---

    def start_node(self, name: str) -> LabMachine:
        """Switch a node on; its disk is as it was left."""
        boot = self._boot_of(name)
        boot.folder.mkdir(parents=True, exist_ok=True)
        self.state.images.setdefault(name, identify_image(boot.image))
        machine = self.engine.start(boot, self.network)
        self.machines[name] = machine
        self.state.machines[name] = MachineRecord(
            process=machine.process, started_at=machine.started_at, console_offset=machine.console_offset
        )
        write_state(self.folder.state, self.state)
        return machine

    def stop_node(self, name: str, timeout: float = _SHUTDOWN_SECONDS) -> bool:
        """Shut a node down as its power button would; whether it ended by itself within ``timeout``."""
        return self.machines[name].stop(timeout)

    def reboot(self, name: str) -> LabMachine:
        """Shut a node down cleanly and switch it on again."""
        self.stop_node(name)
        return self.start_node(name)

    def power_cut(self, name: str) -> None:
        """Take the power from a node at once; ``start_node`` gives it back."""
        self.machines[name].kill()

    def restart_all(self, *, cleanly: bool = True) -> None:
        """Switch every node off, by its power button or by a power cut, then all of them on again."""
        self._stop_all(cleanly=cleanly)
        for node in self.nodes:
            self.start_node(node.name)

    def down(self, *, keep_disks: bool = False) -> None:
        """End everything that runs. Without ``keep_disks`` the disks go; with it the nodes are shut down
        cleanly first.
        """
        if keep_disks:
            self._stop_all(cleanly=True)
        if self._api is not None:
            self._api.close()
        self.network.stop()
        end_processes(self.state)
        self.machines.clear()
        self.state.machines.clear()
        self.state.network = None
        if not keep_disks:
            self.folder.forget_machines()
            self.state.images.clear()
        write_state(self.folder.state, self.state)

    def _stop_all(self, *, cleanly: bool) -> None:
        if not cleanly:
            for machine in self.machines.values():
                machine.kill()
        elif self.machines:
            with ThreadPoolExecutor(max_workers=len(self.machines)) as pool:
                list(pool.map(lambda machine: machine.stop(_SHUTDOWN_SECONDS), self.machines.values()))

    def _boot_of(self, name: str) -> NodeBoot:
        node = self.cluster.node(name)
        plan = self.network.plan
        return NodeBoot(
            cluster=self.cluster,
            node=node,
            image=self.image_of(name),
            seed=None if self.cluster.image.pki is ImagePki.BAKED else self.folder.seed(name),
            folder=self.folder.machine(name),
            console=self.folder.console(name),
            tap=plan.tap_of[name],
            mac=plan.mac_of[name],
            address=plan.address_of[name],
            memory_mib=choose_memory(node.roles, has_kubelet=self.cluster.has_kubelet(node.roles)),
            rtc_base=self.state.settings.get("rtc_base", "utc"),
        )


def _read(cluster_file: Path, profile_dirs: Sequence[Path]) -> Cluster:
    report = Report()
    cluster = load_cluster(cluster_file, report, profile_dirs=tuple(str(d.resolve()) for d in profile_dirs))
    if cluster is None or report.has_errors:
        raise InputError(report)
    return cluster


def find_running(cluster_file: Path) -> LabState | None:
    """The state of a lab whose network is there, or None."""
    state = read_state(lab_folder(cluster_file).state)
    if state is None or state.network is None or state.boot_id != read_boot_id():
        return None
    return state if state.network.is_alive() else None


def check_startable(cluster: Cluster, engine: str, runner: Runner) -> None:
    """Raise MissingToolError or UsageError before long work when the lab could not be started anyway."""
    if cluster.image.mode is not ImageMode.GOLDEN:
        raise UsageError(
            "image.mode is stock: on its first boot such a node downloads packages and releases, and nothing "
            "leaves the lab's network",
            hint="set image.mode: golden for the lab; both modes end in the same state",
        )
    load_engine(engine, runner).check(cluster)
    require_tools([*network.TOOLS, *access.TOOLS])


def end_lab(
    cluster_file: Path, *, keep_disks: bool = False, purge: bool = False, runner: Runner | None = None
) -> bool:
    """End a lab, or what a killed one left behind; whether anything was running. ``purge`` removes its
    folder. The cluster file need not be valid unless the disks are kept.
    """
    folder = lab_folder(cluster_file)
    if not folder.root.exists():
        return False
    with folder.lock():
        state = read_state(folder.state)
        running = find_running(cluster_file) is not None
        if running and keep_disks:
            open_lab(cluster_file, runner=runner).down(keep_disks=True)
        elif state is not None:
            end_processes(state)
            state.network = None
            state.machines.clear()
            if not keep_disks:
                folder.forget_machines()
                state.images.clear()
            write_state(folder.state, state)
        if purge:
            remove_tree(folder.root)
    return running


def end_processes(state: LabState) -> None:
    """End whatever a lab of this state left running; fine when nothing is."""
    if state.boot_id != read_boot_id():
        return
    if state.network is not None:
        # the first process of the lab's namespace: the kernel ends the others with it
        state.network.end()
    for record in state.machines.values():
        record.process.end(patience=0.0)


def open_lab(
    cluster_file: Path, *, profile_dirs: Sequence[Path] = (), runner: Runner | None = None
) -> LabCluster:
    """The lab that another command started. Raises LabError when none is running."""
    folder = lab_folder(cluster_file)
    state = read_state(folder.state)
    if state is None or state.network is None:
        raise LabError(
            f"the lab of {cluster_file} is not running", hint=f"start it: imagegen up {cluster_file}"
        )
    if state.boot_id != read_boot_id() or not state.network.is_alive():
        raise LabError(
            f"the lab of {cluster_file} has ended without being shut down",
            hint=f"imagegen up {cluster_file} starts it again, imagegen down {cluster_file} cleans up",
        )
    runner = runner or Runner()
    cluster = _read(cluster_file, profile_dirs)
    own = LabNetwork(_plan_network(cluster, state), folder.network, runner)
    own.attach(state.network, state.api_port)
    lab = LabCluster(cluster, folder, state, load_engine(state.engine, runner), own, runner)
    for name, record in state.machines.items():
        lab.machines[name] = lab.engine.adopt(
            lab._boot_of(name), record.process, record.started_at, record.console_offset
        )
    return lab


def _plan_network(cluster: Cluster, state: LabState) -> NetworkPlan:
    offset = float(state.settings.get("clock_offset", 0.0))
    return plan_network(cluster, api_port=state.api_port, clock_offset=offset)


def start_lab(
    cluster_file: Path,
    options: LabOptions,
    *,
    runner: Runner | None = None,
    progress: Progress = SILENT,
    report: Report | None = None,
) -> LabCluster:
    """Write the lab's seeds, make its network and switch the nodes on; the golden images must be there.

    What a killed run left behind is ended first. Raises LabError when the lab is running already or an image
    is missing, MissingToolError when a program is.
    """
    runner = runner or Runner()
    cluster = _read(cluster_file, options.profile_dirs)
    folder = lab_folder(cluster_file)
    check_startable(cluster, options.engine, runner)
    engine = load_engine(options.engine, runner)
    names = list(options.nodes) if options.nodes is not None else [node.name for node in cluster.nodes]
    with folder.lock():
        former = read_state(folder.state)
        if find_running(cluster_file) is not None:
            raise LabError(
                f"the lab of {cluster_file} is running already",
                hint=f"imagegen status {cluster_file} shows it, imagegen down {cluster_file} stops it",
            )
        if former is not None:
            end_processes(former)
        state = LabState(
            cluster=cluster.name,
            engine=options.engine,
            out=str(options.out.absolute()),
            boot_id=read_boot_id(),
            started_at=time.time(),
            api_port=former.api_port if former is not None else 0,
            nodes=names,
            images=former.images if former is not None else {},
            settings={"clock_offset": options.clock_offset, "rtc_base": options.rtc_base},
        )
        own = LabNetwork(_plan_network(cluster, state), folder.network, runner)
        lab = LabCluster(cluster, folder, state, engine, own, runner)
        _choose_disks(lab, fresh=options.fresh or (former is not None and former.engine != options.engine))
        folder.make()
        write_seeds(
            cluster,
            folder,
            report or Report(),
            secrets=options.secrets,
            now=datetime.now(UTC) + lab.clock_offset,
            progress=progress,
        )
        images = {boot.image: boot for node in lab.nodes if (boot := lab._boot_of(node.name))}
        for boot in images.values():
            engine.prepare(boot)
        _switch_on(lab)
    return lab


def _choose_disks(lab: LabCluster, *, fresh: bool) -> None:
    """Forget disks that lie above another image than today's: they cannot be read any more."""
    missing = [boot.image for node in lab.nodes if not (boot := lab._boot_of(node.name)).image.exists()]
    if missing:
        raise LabError(
            f"{missing[0]} is missing: it must be built before it can boot",
            hint=f"imagegen build {lab.cluster.file} -o {lab.state.out}",
        )
    images = {node.name: identify_image(lab._boot_of(node.name).image) for node in lab.nodes}
    if fresh or lab.state.images != images:
        lab.folder.forget_machines()
        lab.state.images = images


def _switch_on(lab: LabCluster) -> None:
    lab.network.start()
    lab.state.network, lab.state.api_port = lab.network.process, lab.network.api_port
    write_state(lab.folder.state, lab.state)
    lab.network.release()
    try:
        if lab.network.api_port:
            write_kubeconfig(lab.folder, lab.cluster, lab.network.api_port)
        config = emit_ssh_config(lab.folder, lab.cluster.access.user, lab.network.plan.address_of)
        lab.folder.ssh_config.write_text(config, encoding="utf-8")
        for node in lab.nodes:
            lab.start_node(node.name)
    except BaseException:
        lab.down(keep_disks=False)
        raise
