"""The quick tier: nodes as containers of systemd-nspawn, from the golden images' own root trees.

systemd, cloud-init with the node's seed, and everything of the cluster run as they do on a machine, in a
tenth of the time. Kernel, initrd, bootloader, udev, modules and the kernel's own settings are not tested.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from imagegen.backends.image.layers import LayerCache, default_layer_root, hash_inputs
from imagegen.errors import UsageError
from imagegen.lab import nspawncgroups
from imagegen.lab.engine import NodeBoot
from imagegen.lab.errors import BootFailureError, LabError
from imagegen.lab.machine import Machine
from imagegen.lab.network import LabNetwork
from imagegen.lab.networkplan import BRIDGE
from imagegen.lab.nspawnnode import SEED, write_differences, write_seed
from imagegen.lab.processes import Process, find_process, list_children
from imagegen.lab.state import read_boot_id
from imagegen.model.cluster import Cluster, ImageMode
from imagegen.run import Background, CommandError, Runner, Tool, require_tools
from imagegen.verify.roots import unpack_root

NSPAWN = Tool(name="systemd-nspawn", package="systemd-container", purpose="run a node as a container")
TOOLS = (
    NSPAWN,
    Tool(name="unshare", package="util-linux", purpose="give a node its own mounts and processes"),
    Tool(name="debugfs", package="e2fsprogs", purpose="read a golden image", version_arguments=("-V",)),
)
_NODE = Path(__file__).with_name("nspawn-node.sh")
_INIT = Path(__file__).with_name("nspawn-init.sh")
#: systemd from 256 on refuses cgroups of version 1 without the first; a machine with version 2 ignores it
_SYSTEMD = ("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "systemd.show_status=1")
_NAMESPACES = (
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation=private",
    "--",
)
_START_SECONDS = 20.0
_GROUP = "cgroup"
_LOG = "nspawn.log"


def load_engine(runner: Runner) -> NspawnEngine:
    return NspawnEngine(runner)


@dataclass(slots=True, kw_only=True)
class NspawnNode(Machine):
    """A node in its container; ``process`` holds the container's namespaces and ends with it."""

    def cpu_seconds(self) -> float:
        return nspawncgroups.read_cpu_seconds(self.group)

    @property
    def group(self) -> str:
        """The node's cgroup."""
        return (self.folder / _GROUP).read_text(encoding="ascii")

    def press_power_button(self) -> None:
        for shell in list_children(self.process.pid):
            for nspawn in list_children(shell.pid):
                # nspawn asks the node's systemd to shut down
                nspawn.send(signal.SIGTERM)

    def wait(self, timeout: float) -> bool:
        ended = Machine.wait(self, timeout)
        if ended:
            nspawncgroups.remove_group(self.group)
        return ended


class NspawnEngine:
    """Containers on this machine's own kernel. Only root can make them."""

    name = "nspawn"

    def __init__(self, runner: Runner, cache: LayerCache | None = None) -> None:
        self._runner = runner
        self._cache = cache or LayerCache(root=default_layer_root(), is_durable=False)
        self._is_tried = False

    def check(self, cluster: Cluster) -> None:
        """Raise MissingToolError or UsageError when this machine or this cluster cannot be run with it."""
        if os.geteuid() != 0:
            raise UsageError(
                "the engine nspawn makes containers with their own cgroups, which only root may do",
                hint="run it as root, or use --engine qemu",
            )
        if cluster.image.mode is ImageMode.STOCK:
            raise UsageError(
                "the engine nspawn boots golden images only", hint="image.mode: golden, or --engine qemu"
            )
        require_tools(TOOLS)
        if not self._is_tried:
            try_nspawn(self._runner)
            self._is_tried = True
        nspawncgroups.sweep_groups()

    def prepare(self, boot: NodeBoot) -> None:
        """Unpack the image: while that went on, nodes that run already would not be watched."""
        unpack_tree(self._runner, boot.image, self._cache)

    def start(self, boot: NodeBoot, network: LabNetwork) -> NspawnNode:
        """Start a node; what its disk holds from an earlier start is kept."""
        folder = boot.folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        tree = unpack_tree(self._runner, boot.image, self._cache)
        # a node whose seed is in its image has it in the tree
        seed = boot.seed if boot.seed is not None else tree / SEED.lstrip("/")
        if not (folder / "upper").exists():
            _write_upper(tree, folder)
        # another seed than at the last start is to a node what another disk in the drive is to a machine
        write_seed(tree, folder / "upper", seed)
        shutil.copyfile(_INIT, folder / "init")
        nspawncgroups.watch_lab(self._runner, network.process, folder / _LOG)
        group = nspawncgroups.name_group(network.process, boot.node.name)
        (folder / _GROUP).write_text(group, encoding="ascii")
        offset = boot.console.stat().st_size if boot.console.exists() else 0
        argv = [*network.enter_argv(), *_NAMESPACES, "/bin/sh", str(_NODE), str(folder), str(tree), group]
        started_at = time.time()
        background = self._runner.start(
            [*argv, boot.node.name, BRIDGE, boot.mac, *_SYSTEMD], output=boot.console, cwd=folder
        )
        return NspawnNode(
            name=boot.node.name,
            folder=folder,
            serial=boot.console,
            process=_find_holder(background),
            started_at=started_at,
            console_offset=offset,
            _background=background,
        )

    def adopt(self, boot: NodeBoot, process: Process, started_at: float, console_offset: int) -> NspawnNode:
        """The node that another command started."""
        return NspawnNode(
            name=boot.node.name,
            folder=boot.folder.absolute(),
            serial=boot.console,
            process=process,
            started_at=started_at,
            console_offset=console_offset,
        )

    def describe(self) -> str:
        """What runs the nodes."""
        return "this machine's own kernel"


def unpack_tree(runner: Runner, image: Path, cache: LayerCache) -> Path:
    """The root tree of a golden image, unpacked once for each content. Raises ImagegenError when the image
    holds none.
    """

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:
            unpack_root(runner, image, Path(name), set_ids=True).rename(folder / "root")

    # thousands of small files take minutes to reach a busy disk: a tree is good until this machine's next
    # start, and need not be there after a crash
    with open(image, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return cache.get_or_build("tree", hash_inputs({"image": digest, "boot": read_boot_id()}), build) / "root"


def try_nspawn(runner: Runner) -> None:
    """Run a container as small as can be, with everything that a node needs. Raises LabError with what is
    missing.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = folder / "tree"
        for part in ("usr", "etc", "proc", "sys", "dev", "run", "tmp"):
            (tree / part).mkdir(parents=True)
        for part in ("bin", "lib", "lib64"):
            (tree / part).symlink_to(f"usr/{part}")
        holder = find_process(os.getpid()) or Process(os.getpid(), 0)
        group = nspawncgroups.name_group(holder, "trial")
        argv = [*_NAMESPACES, "/bin/sh", str(_NODE), str(folder), str(tree), group]
        try:
            runner.run(argv, timeout=_START_SECONDS)
        except CommandError as error:
            raise LabError(
                f"this machine does not let the engine nspawn make its containers\n{error}",
                hint="containers often may not; run it on the machine itself, or use --engine qemu",
            ) from None
        finally:
            nspawncgroups.remove_group(group)


def _write_upper(tree: Path, folder: Path) -> None:
    partial = folder / "upper.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_differences(tree, partial)
    partial.rename(folder / "upper")


def _find_holder(background: Background) -> Process:
    """The process that holds the node's namespaces: nsenter's child."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and background.poll() is None:
        for holder in list_children(background.pid):
            if next(list_children(holder.pid), None) is not None:
                return holder
        time.sleep(0.02)
    background.end()
    raise BootFailureError(f"the container did not start\n{background.last_lines()}")
