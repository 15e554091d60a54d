"""Container images that travel in a golden image: where they lie, and what imports them on first boot.

With them a node starts its own pods with no registry in reach. A stock cloud image pulls them when used.
"""

from __future__ import annotations

from imagegen.emit import emit_unit
from imagegen.kubernetes.gates import Gates
from imagegen.model.cluster import ImageMode, Layout, Node, Role, Runtime
from imagegen.plan.component import Context
from imagegen.plan.components.first_boot import PROGRAMS, program
from imagegen.plan.items import Directory, Fragment, Item, Origin, Phase, Unit

_NOTHING = Fragment()
_ORIGIN = Origin("component preload", reason="pods of the node itself start with no registry in reach")

#: one OCI archive an image; imagegen.backends.image puts them there
IMAGE_DIRECTORY = "/var/lib/imagegen/images"

_CTR = "/usr/local/bin/ctr --namespace k8s.io images"
_PINNED = "io.cri-containerd.pinned=pinned"


def render_import(gates: Gates) -> str:
    """The shell command of the unit.

    Images are pinned, because the kubelet's garbage collection must not remove what cannot be pulled again.
    """
    options = " --local" if gates.has("containerd", "ctr images import --local") else ""
    can_label = gates.has("containerd", "ctr images import --label")
    options += f" --label {_PINNED}" if can_label else ""
    command = (
        f"for archive in {IMAGE_DIRECTORY}/*.tar; do "
        '[ -e "$$archive" ] && [ ! -e "$$archive.imported" ] || continue; '
        f'{_CTR} import{options} "$$archive" && : >"$$archive.imported"; done'
    )
    if can_label:
        return command
    return f'{command} && for name in $$({_CTR} list --quiet); do {_CTR} label "$$name" {_PINNED}; done'


def _choose_timeout(ctx: Context) -> int:
    """Seconds: the daemons of a control plane are half a GB, and a master without them is none."""
    return 300 if ctx.cluster.kubernetes.layout is Layout.SYSTEMD else 1800


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    is_golden = ctx.cluster.image.mode is ImageMode.GOLDEN
    if not ctx.cluster.has_kubelet(roles) or not is_golden:
        return _NOTHING
    if ctx.cluster.runtime is Runtime.DOCKER:
        runtime, command = "docker.service", f"{PROGRAMS}/docker-load {IMAGE_DIRECTORY}"
        programs: list[Item] = [
            Directory(phase=Phase.BAKE, origin=_ORIGIN, path=PROGRAMS),
            program("docker-load", _ORIGIN),
        ]
    else:
        runtime, command, programs = "containerd.service", f"/bin/sh -ec '{render_import(ctx.gates)}'", []
    unit = emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Import the container images of this golden image"),
                    ("After", runtime),
                    ("Requires", runtime),
                    ("Before", "kubelet.service"),
                    ("ConditionDirectoryNotEmpty", IMAGE_DIRECTORY),
                ],
            ),
            (
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    ("ExecStart", command),
                    ("TimeoutStartSec", str(_choose_timeout(ctx))),
                ],
            ),
            ("Install", [("WantedBy", "multi-user.target")]),
        ]
    )
    return Fragment(
        (
            *programs,
            Directory(phase=Phase.BAKE, origin=_ORIGIN, path=IMAGE_DIRECTORY),
            Unit(phase=Phase.BAKE, origin=_ORIGIN, name="imagegen-import-images.service", content=unit),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING
