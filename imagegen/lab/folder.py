"""The names of everything in a lab's folder, ``lab/`` beside the cluster file."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagegen.backends.image.layers import remove_tree
from imagegen.lab.errors import LabError


@dataclass(frozen=True, slots=True)
class LabFolder:
    """Where a lab keeps its state. Private: it holds the key to the nodes and the admin's kubeconfig."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "lab.json"

    @property
    def timeline(self) -> Path:
        return self.root / "timeline.json"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        """The kubectl of the cluster's own version."""
        return self.root / "kubectl"

    @property
    def ssh_key(self) -> Path:
        return self.root / "id_ed25519"

    @property
    def ssh_config(self) -> Path:
        return self.root / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.root / "known_hosts"

    @property
    def network(self) -> Path:
        return self.root / "network"

    @property
    def seeds(self) -> Path:
        """An output folder of ``imagegen seed``, with the lab's own key in the seeds."""
        return self.root / "seeds"

    @property
    def baked(self) -> Path:
        """An output folder of ``imagegen build`` for images with a seed inside, which has the lab's key."""
        return self.root / "baked"

    @property
    def consoles(self) -> Path:
        return self.root / "consoles"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    def console(self, node: str) -> Path:
        return self.consoles / f"{node}.log"

    def machine(self, node: str) -> Path:
        """The folder of one node's disks and sockets."""
        return self.machines / node

    def seed(self, node: str) -> Path:
        """The folder of one node's seed: user-data, meta-data, network-config, seed.iso."""
        return self.seeds / "nodes" / node

    def make(self) -> None:
        """Make the folder, closed to others and invisible to git."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        (self.root / ".gitignore").write_text("*\n", encoding="utf-8")
        for path in (self.consoles, self.machines, self.network):
            path.mkdir(exist_ok=True)

    def forget_machines(self) -> None:
        """Remove the disks and what was learnt from them."""
        remove_tree(self.machines)
        self.known_hosts.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One command at a time changes the lab. Raises LabError when another one is at it."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        with open(self.root / ".lock", "w", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LabError(
                    f"another command is starting or stopping the lab in {self.root}",
                    hint="wait for it, or end it, and run again",
                ) from None
            yield


def lab_folder(cluster_file: Path) -> LabFolder:
    """The lab's folder of a cluster file."""
    return LabFolder(cluster_file.absolute().parent / "lab")
