"""A new machine in the place of a running lab's node: what docs/security.md asks people to do elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from imagegen.backends.image.layers import remove_tree
from imagegen.backends.replacement import (
    announce_member,
    check_replaceable,
    etcdctl,
    has_new_token,
    make_token_secret,
    name_token_secret,
)
from imagegen.diagnostics import Report
from imagegen.errors import UsageError
from imagegen.lab.api import ApiError
from imagegen.lab.cluster import LabCluster
from imagegen.lab.errors import LabError
from imagegen.lab.seeds import write_seeds
from imagegen.model.cluster import ImagePki, Node, Role
from imagegen.pki import inventory
from imagegen.pki.expiry import replace_identity
from imagegen.pki.store import SecretStore, open_store
from imagegen.progress import SILENT, Progress

_SHUTDOWN_SECONDS = 30.0
_DRAIN_SECONDS = 120
_SECRETS = "/api/v1/namespaces/kube-system/secrets"


def replace_node(
    lab: LabCluster,
    name: str,
    report: Report,
    *,
    secrets: Path | None = None,
    progress: Progress = SILENT,
) -> None:
    """Drop a node's machine with its disk and its identity, and start a new one with a new seed.

    Raises UsageError when it cannot be replaced, LabError when the cluster does not do its part.
    """
    node = lab.cluster.node(name)
    check_replaceable(lab.cluster, node)
    if lab.cluster.image.pki is ImagePki.BAKED:
        raise UsageError(
            f"{name} has its seed in its image",
            hint=f"imagegen up {lab.cluster.file} --fresh builds it again",
        )
    store = open_store(lab.cluster.file, secrets, os.environ)
    with progress.step(f"moving the pods of {name}") as step:
        step.note = _drain(lab, node)
    with progress.step(f"destroying {name}"):
        _destroy(lab, node)
    former = _read_token(store, node)
    # what people on the lab's clock would do on that day
    now = datetime.now(UTC) + lab.clock_offset
    with progress.step(f"a new identity for {name}"):
        replace_identity(lab.cluster, store, report, name, now=now)
        write_seeds(lab.cluster.rejoin(name), lab.folder, report, secrets=secrets, now=now, nodes=(name,))
    with progress.step("telling the cluster"):
        _tell_members(lab, node)
        if has_new_token(lab.cluster, node):
            _tell_token(lab, node, former, _read_token(store, node), now)
    with progress.step(f"starting {name}"):
        lab.start_node(name)


def _drain(lab: LabCluster, node: Node) -> str:
    """What came of it; a node that is dead, or an API that is down, keeps nobody from replacing it."""
    if not lab.cluster.has_kubelet(node.roles):
        return "it has none"
    words = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", f"--timeout={_DRAIN_SECONDS}s"]
    done = lab.kubectl("drain", node.name, *words, timeout=_DRAIN_SECONDS + 30, check=False)
    return "" if done.returncode == 0 else "not all of them moved"


def _destroy(lab: LabCluster, node: Node) -> None:
    machine = lab.machines.get(node.name)
    if machine is not None and machine.is_alive():
        machine.stop(_SHUTDOWN_SECONDS)
    remove_tree(lab.folder.machine(node.name))
    # its host keys were on the disk
    lab.folder.known_hosts.unlink(missing_ok=True)
    if lab.cluster.has_kubelet(node.roles):
        _ask_api(lab, "DELETE", f"/api/v1/nodes/{node.name}", fine=(200, 404))


def _read_token(store: SecretStore, node: Node) -> str:
    """The node's bootstrap token; empty when it has none."""
    name = inventory.bootstrap_token_name(node.name)
    return store.read(name).decode("ascii") if store.exists(name) else ""


def _tell_members(lab: LabCluster, node: Node) -> None:
    """Take the old member out of etcd and announce the new one, on a machine of another member."""
    if not node.has(Role.ETCD):
        return
    others = [n.name for n in lab.cluster.nodes_with(Role.ETCD) if n.name != node.name]
    alive = next((n for n in others if n in lab.machines and lab.machines[n].is_alive()), None)
    if alive is None:
        raise LabError(f"no other member of etcd runs, which could let {node.name} back in")
    listed = json.loads(lab.ssh(alive, etcdctl("member list --write-out=json")).stdout)["members"]
    peers = announce_member(node).partition("--peer-urls=")[2]
    for member in listed:
        if member.get("name") == node.name or peers in member.get("peerURLs", ()):
            lab.ssh(alive, etcdctl(f"member remove {member['ID']:x}"))
    lab.ssh(alive, etcdctl(announce_member(node)))


def _tell_token(lab: LabCluster, node: Node, former: str, token: str, now: datetime) -> None:
    if former:
        _ask_api(lab, "DELETE", f"{_SECRETS}/{name_token_secret(former)}", fine=(200, 404))
    _ask_api(lab, "POST", _SECRETS, make_token_secret(lab.cluster, node, token, now), fine=(201, 409))


def _ask_api(
    lab: LabCluster, method: str, path: str, body: object = None, *, fine: Sequence[int] = (200,)
) -> None:
    """Ask the API server. Raises LabError when it does not do it; its words may hold what we sent."""
    status = 0
    with contextlib.suppress(ApiError):
        status, _ = lab.api.request(method, path, body)
    if status not in fine:
        where = path if body is None else path.rpartition("/")[2]
        raise LabError(f"the API server did not do {method} {where}: status {status or 'none'}")
