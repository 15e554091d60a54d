"""Runs etcd and the control plane that kubeadm describes in a network of its own, and lets nodes ask to join.

Started by ``test_kubeadm_run.py`` with ``unshare --net``; prints what every command of kubeadm said as JSON.
kubeadm sees each machine as a folder; daemons get the paths of the first master moved below its folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.judges.control_plane import ask, move_paths, wait_for

ADDRESSES = ("10.240.0.10", "10.240.0.11", "10.240.0.12", "10.240.0.31")
API = "https://10.240.0.11:6443"
CONFIG = ("--config", "/etc/kubernetes/kubeadm.yaml")
FIRST_BOOT = Path(__file__).parents[2] / "cloud-init" / "first-boot"
TOKEN_GROUP = "system:bootstrappers:kubeadm:default-node-token"


class Cluster:
    """The folders of the machines below ``root``; ``programs`` by name; what was said, by words."""

    def __init__(self, root: Path, programs: dict[str, str]) -> None:
        self.root, self.programs = root, programs
        self.running: list[subprocess.Popen[bytes]] = []
        self.said: dict[str, Any] = {}

    def start(self, name: str, command: list[str]) -> None:
        log = (self.root / f"{name}.log").open("w")
        self.running.append(
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        )

    def kubeadm(self, node: str, *words: str) -> None:
        """Note what one command said on one machine, and how it ended."""
        command = [self.programs["kubeadm"], "--rootfs", str(self.root / node), *words, *CONFIG]
        if words[1:3] == ("phase", "preflight"):
            command += ["--ignore-preflight-errors", "all"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        self.said[f"{node}: {' '.join(words)}"] = [done.returncode, done.stdout + done.stderr]

    def start_pod(self, node: str, component: str, *more: str) -> None:
        """The container of a static pod that kubeadm wrote, as a process."""
        folder = self.root / node
        pod = yaml.safe_load((folder / f"etc/kubernetes/manifests/{component}.yaml").read_text())
        command = pod["spec"]["containers"][0]["command"]
        words = [move_paths(word, folder) for word in command[1:]]
        self.start(component, [self.programs[component], *words, *more])

    def first_boot(self, node: str) -> None:
        """Our own program beside kubeadm: it brings in the tokens of the other nodes."""
        folder = self.root / node
        done = subprocess.run(
            [
                *(sys.executable, str(FIRST_BOOT), "--token-lifetime", "3600", "--token-group", TOKEN_GROUP),
                *("--kubeconfig", str(folder / "etc/kubernetes/first-boot.kubeconfig")),
                *("--manifests", str(folder / "etc/kubernetes/first-boot")),
                *("--addons", str(folder / "etc/kubernetes/addons")),
                *("--tokens", str(folder / "etc/imagegen/bootstrap-tokens"), "--deadline", "120"),
            ],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        self.said[f"{node}: first-boot"] = [done.returncode, done.stdout + done.stderr]


def run_cluster(cluster: Cluster) -> None:
    """The first master as ``kubeadm init`` makes it, then what the others do before their kubelets start."""
    first = "master-0"
    root = cluster.root / first
    for phase in ("certs", "kubeconfig", "control-plane"):
        cluster.kubeadm(first, "init", "phase", phase, "all")
    etcd = (cluster.root / "etcd-0/etc/etcd/etcd.yaml").read_text()
    config = cluster.root / "etcd.yaml"
    config.write_text(move_paths(etcd, cluster.root / "etcd-0"))
    cluster.start("etcd", [cluster.programs["etcd"], f"--config-file={config}"])
    cluster.start_pod(first, "kube-apiserver")
    # nobody starts it again when a slow disk costs it its lease
    cluster.start_pod(first, "kube-controller-manager", "--leader-elect=false")
    cluster.said["ready"] = wait_for(root, f"{API}/readyz", "admin", 150)
    cluster.said["anonymous"] = [ask(root, f"{API}{path}")[0] for path in ("/livez", "/api")]
    # the kubelet's part: kubeadm waits for this label before it adds its own
    metadata = {"name": first, "labels": {"kubernetes.io/hostname": first}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
    cluster.said["node"] = ask(root, f"{API}/api/v1/nodes", "admin", node)[0]
    for phase in ("upload-config all", "mark-control-plane", "bootstrap-token", "addon all"):
        cluster.kubeadm(first, "init", "phase", *phase.split())
    cluster.first_boot(first)
    # the signer of cluster-info has to see the new tokens
    time.sleep(3)
    for name in ("master-1", "worker-0"):
        cluster.kubeadm(name, "join", "phase", "preflight")
    for phase in ("certs", "kubeconfig", "control-plane"):
        cluster.kubeadm("master-1", "join", "phase", "control-plane-prepare", phase)
    found = json.loads(ask(root, f"{API}/api/v1/nodes/{first}", "admin")[1])
    cluster.said["labels"] = sorted(found["metadata"].get("labels", {}))
    cluster.said["taints"] = [taint["key"] for taint in found["spec"].get("taints", [])]


def main() -> None:
    """Arguments: the folder of all machines, and the programs by name as JSON."""
    cluster = Cluster(Path(sys.argv[1]), json.loads(sys.argv[2]))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # kubeadm looks for the address of the default route, whatever it is told
    subprocess.run(["ip", "link", "add", "node", "type", "veth", "peer", "name", "other"], check=True)
    for address in ADDRESSES:
        subprocess.run(["ip", "address", "add", f"{address}/24", "dev", "node"], check=True)
    for words in ("link set node up", "link set other up", "route add default via 10.240.0.31 dev node"):
        subprocess.run(["ip", *words.split()], check=True)
    for name in ("crt", "key"):
        shutil.copy(cluster.root / f"secrets/pki/super-admin.{name}", cluster.root / f"master-0/admin.{name}")
    try:
        run_cluster(cluster)
        print(json.dumps(cluster.said))
    finally:
        for process in reversed(cluster.running):
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
