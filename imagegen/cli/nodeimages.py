"""Which images ``imagegen build`` makes: one a set of roles, or one a node with that node's seed inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.cli.inputs import find_secrets
from imagegen.cli.options import require_known
from imagegen.errors import UsageError

if TYPE_CHECKING:
    from imagegen.backends.image.nodeseed import NodeSeed
    from imagegen.cli.terminal import Terminal
    from imagegen.model.cluster import Cluster, DiskFormat
    from imagegen.plan.plan import Plan, RolePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One image to build; ``node`` is the one whose seed is inside, None for an image without a seed."""

    role_plan: RolePlan
    node: str | None = None


def choose_formats(cluster: Cluster, words: Sequence[str]) -> tuple[DiskFormat, ...]:
    """The formats of the command line, else those of the cluster file.

    Raises UsageError for one that the cluster's images cannot be made in.
    """
    from imagegen.model.cluster import DiskFormat

    formats = tuple(DiskFormat(word) for word in dict.fromkeys(words)) or cluster.image.formats
    if DiskFormat.ISO in formats and DiskFormat.ISO not in cluster.image.formats:
        raise UsageError(
            "image.formats lacks iso, and what starts from read-only media is part of the image",
            hint="add iso to image.formats",
        )
    if DiskFormat.GCE in formats and cluster.image.size_mib % 1024:
        raise UsageError(
            f"the format gce takes whole GiB, image.size is {cluster.image.size_mib}MiB",
            hint=f"set image.size to {cluster.image.size_mib // 1024 + 1}GiB",
        )
    return formats


def choose_images(
    plan: Plan,
    base: RolePlan,
    roles: Sequence[str],
    nodes: Sequence[str],
    formats: Sequence[DiskFormat],
) -> list[Choice]:
    """The images of the chosen sets of roles and nodes, at least one; none chosen means all of the cluster.

    ``base`` may be chosen even when no node has this role: it is what a Packer build can start from. Raises
    UsageError for a name that the cluster does not have, and where a node's keys would come into an image
    although the cluster file wants them in seeds. An ISO of its own is what a node may always have.
    """
    from imagegen.model.cluster import DiskFormat, ImagePki

    cluster = plan.cluster
    role_plans = {one.name: one for one in (base, *plan.role_plans)}
    for role in roles:
        require_known("set of roles", role, list(role_plans))
    for name in nodes:
        require_known("node", name, [node.name for node in cluster.nodes])
    is_baked = cluster.image.pki is ImagePki.BAKED
    if nodes and not is_baked:
        others = [one.value for one in formats if one is not DiskFormat.ISO]
        if others:
            raise UsageError(
                f"--node would put the keys of {nodes[0]} into an image in format {others[0]}, "
                "but image.pki says that keys come in seeds",
                hint="--format iso makes a bootable ISO of that node alone; for disks set image.pki: baked",
            )
    chosen = [role_plans[role] for role in dict.fromkeys(roles)] if roles else list(plan.role_plans)
    if not nodes and not is_baked:
        return [Choice(role_plan=one) for one in chosen]
    choices = [
        Choice(role_plan=one, node=node.name)
        for one in chosen
        for node in cluster.nodes
        if node.roles == one.roles and (not nodes or node.name in nodes)
    ]
    if not choices:
        named = f" among {', '.join(nodes)}" if nodes else ", and images of nodes are wanted"
        raise UsageError(f"no node has the roles {', '.join(roles)}{named}")
    return choices


def lower_seeds(
    plan: Plan,
    choices: Sequence[Choice],
    cluster_file: Path,
    secrets_dir: Path | None,
    out: Path,
    terminal: Terminal,
) -> dict[str, NodeSeed]:
    """The seeds of the chosen nodes by name; issues what the cluster still lacks.

    Raises UsageError when OUT lies in the secret store, StoreError when the store cannot be used.
    """
    wanted = [choice.node for choice in choices if choice.node is not None]
    if not wanted:
        return {}

    from imagegen.backends.cloudinit import CloudInit
    from imagegen.backends.image.nodeseed import make_node_seed
    from imagegen.diagnostics import Report
    from imagegen.pki.issue import issue_material
    from imagegen.pki.store import open_store

    secrets = find_secrets(cluster_file, secrets_dir)
    if out.resolve().is_relative_to(secrets.resolve()):
        raise UsageError(
            f"the output folder {out} lies in the secret store {secrets}",
            hint="choose another folder with -o OUT",
        )
    store = open_store(str(cluster_file), secrets, os.environ)
    report = Report()
    with terminal.progress().step("issuing certificates"):
        issue_material(plan.cluster, store, report, now=datetime.now(UTC))
    terminal.show_report(report)
    lowering = CloudInit(plan.cluster, store)
    return {name: make_node_seed(lowering.lower_node(plan.node_plan(name))) for name in wanted}
