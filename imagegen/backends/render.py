"""The whole main job: PKI, then the seed of every node, streamed into the output folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen.backends.budgets import BudgetCheck
from imagegen.backends.cloudinit import CloudInit, Seed
from imagegen.backends.output import OutputFolder, OutputSummary
from imagegen.backends.seediso import build_seed_iso
from imagegen.diagnostics import Report
from imagegen.errors import InputError, UsageError
from imagegen.model.cluster import Cluster, ImageMode, Target
from imagegen.pki.issue import IssueResult, issue_material
from imagegen.pki.kubeconfigs import admin_kubeconfig, super_admin_kubeconfig
from imagegen.pki.resolve import resolve_content
from imagegen.pki.store import SecretStore
from imagegen.plan.dump import iter_plan_json
from imagegen.plan.plan import NodePlan, Plan
from imagegen.progress import SILENT, Progress, Step

if TYPE_CHECKING:
    from imagegen.backends.packer.versions import PackerStyle

_KUBECONFIGS = {
    "kubeconfigs/admin.kubeconfig": admin_kubeconfig,
    "kubeconfigs/super-admin.kubeconfig": super_admin_kubeconfig,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderResult:
    """What one run did: to the secret store, to the output folder, and for how many nodes."""

    issued: IssueResult
    output: OutputSummary
    nodes: int


def render_cluster(
    plan: Plan,
    store: SecretStore,
    out: Path,
    report: Report,
    *,
    now: datetime,
    epoch: int,
    with_iso: bool,
    nodes: Sequence[str] | None = None,
    checksums: Mapping[str, str] | None = None,
    force: bool = False,
    packer: PackerStyle | None = None,
    secret_files: Mapping[str, bytes] | None = None,
    progress: Progress = SILENT,
) -> RenderResult:
    """Issue what the cluster needs and write every text output, with ``with_iso`` seed ISOs as well.

    ``nodes`` limits the node folders to these names; the files of other nodes stay as they are. ``now`` is
    for certificates, ``epoch`` (seconds since 1970) for dates inside artifacts. ``checksums`` maps URLs of
    downloads to SHA-256 sums, for ``image.mode: stock`` and for Packer; without ``packer`` the files of
    Packer builds stay as they are; ``secret_files`` are written besides. Nothing is written to ``out`` unless
    everything is fine. Raises UsageError for an unknown node or an unusable folder, InputError with
    ``report`` when a seed is too large for a target or the store cannot be used, ImagegenError when writing
    fails.
    """
    cluster = plan.cluster
    wanted = _select_nodes(cluster, nodes)
    if out.resolve().is_relative_to(store.root.resolve()):
        raise UsageError(
            f"the output folder {out} lies in the secret store {store.root}",
            hint="choose another folder with -o OUT",
        )
    with OutputFolder(out, cluster=cluster.name, force=force) as folder:
        with progress.step("issuing certificates"):
            issued = issue_material(cluster, store, report, now=now)
        lowering = CloudInit(cluster, store, checksums=checksums)
        with progress.step("writing nodes", len(wanted)) as step:
            budgets = BudgetCheck(cluster.targets, report)
            has_guestinfo = Target.VMWARE in cluster.targets and cluster.image.mode is ImageMode.GOLDEN
            writer = _Writer(folder, lowering, budgets, epoch, with_iso, has_guestinfo, step)
            writer.write_all(plan, wanted)
            step.note = f"{len(wanted):,} nodes"
        for path, body in (secret_files or {}).items():
            folder.write(path, body, inputs=_digest(body), secret=True)
        for path, make in _KUBECONFIGS.items():
            body = resolve_content(make(cluster), store)
            folder.write(path, body, inputs=_digest(body), secret=True)
        if plan.cluster.image.mode is ImageMode.GOLDEN:
            _write_handover(folder, plan.cluster)
        if packer is not None:
            from imagegen.backends.packer.folder import write_packer

            write_packer(folder, plan, checksums or {}, packer)
        if report.has_errors:
            raise InputError(report)
        with progress.step("naming files"):
            summary = folder.commit(
                lambda path: (
                    (nodes is None and _is_rendered(path)) or (packer is not None and _is_packer(path))
                )
            )
    return RenderResult(issued=issued, output=summary, nodes=len(wanted))


def _select_nodes(cluster: Cluster, names: Sequence[str] | None) -> frozenset[str]:
    known = frozenset(node.name for node in cluster.nodes)
    unknown = sorted(set(names or ()) - known)
    if unknown:
        raise UsageError(f"there is no node {unknown[0]!r} in cluster {cluster.name!r}")
    return known if names is None else frozenset(names)


def _is_rendered(path: str) -> bool:
    return path.startswith(("nodes/", "handover/")) or path == "plan.json" or path in _KUBECONFIGS


def _write_handover(folder: OutputFolder, cluster: Cluster) -> None:
    from imagegen.backends.handover import lower_handover

    for path, body in lower_handover(cluster).items():
        folder.write(path, body, inputs=_digest(body))


def _is_packer(path: str) -> bool:
    """Whether an artifact is text of a Packer build; what such a build downloads is ``build``'s."""
    parts = path.split("/")
    return parts[0] == "packer" and parts[2:3] != ["downloads"]


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@dataclass(slots=True)
class _Writer:
    """Writes node folders while ``plan.json`` is being made, so that every node is planned once and then
    forgotten.
    """

    folder: OutputFolder
    lowering: CloudInit
    budgets: BudgetCheck
    epoch: int
    with_iso: bool
    has_guestinfo: bool
    step: Step

    def write_all(self, plan: Plan, wanted: frozenset[str]) -> None:
        digest = _digest(plan.cluster.name.encode(), str(plan.cluster.kubernetes.version).encode())
        with self.folder.stream("plan.json", inputs=digest) as write:
            for piece in iter_plan_json(plan, nodes=self._written(plan, wanted)):
                write(piece.encode())

    def _written(self, plan: Plan, wanted: frozenset[str]) -> Iterator[NodePlan]:
        for node_plan in plan.node_plans():
            if node_plan.node.name in wanted:
                self._write_node(node_plan)
                self.step.advance(node_plan.node.name)
            yield node_plan

    def _write_node(self, plan: NodePlan) -> None:
        seed = self.lowering.lower_node(plan)
        self.budgets.check_seed(seed, lambda: self.lowering.list_entries(plan))
        base = f"nodes/{seed.node.name}"
        inputs = seed.digest[:16]
        for name, body in seed.files().items():
            secret = seed.is_secret and name == "user-data"
            self.folder.write(f"{base}/{name}", body, inputs=inputs, secret=secret)
        self._write_iso(seed, f"{base}/seed.iso")
        if self.has_guestinfo:
            from imagegen.backends.handover import lower_guestinfo

            for path, body in lower_guestinfo(seed).items():
                self.folder.write(path, body, inputs=inputs, secret=seed.is_secret)

    def _write_iso(self, seed: Seed, path: str) -> None:
        inputs = _digest(seed.digest.encode(), str(self.epoch).encode())
        if self.with_iso:
            image = build_seed_iso(seed.files(), epoch=self.epoch)
            self.folder.write(path, image, inputs=inputs, secret=seed.is_secret)
        else:
            # a seed made from the same files is still right; any other one is stale and will be removed
            self.folder.keep(path, inputs)
