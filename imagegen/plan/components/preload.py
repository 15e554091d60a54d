"""Container images that travel in a golden image: where they lie, and what imports them on first boot.

With them a node starts its own pods with no registry in reach. A stock cloud image pulls them when used.
"""

from __future__ import annotations

from imagegen.emit import emit_unit
from imagegen.model.cluster import ImageMode, Node, Role, Runtime
from imagegen.plan.component import Context
from imagegen.plan.items import Directory, Fragment, Origin, Phase, Unit

_NOTHING = Fragment()
_ORIGIN = Origin("component preload", reason="pods of the node itself start with no registry in reach")

#: one OCI archive an image; imagegen.backends.image puts them there
IMAGE_DIRECTORY = "/var/lib/imagegen/images"

# Pinned, because the kubelet's garbage collection must not remove what cannot be pulled again.
_IMPORT = (
    f"for archive in {IMAGE_DIRECTORY}/*.tar; do "
    '[ -e "$$archive" ] && [ ! -e "$$archive.imported" ] || continue; '
    "/usr/local/bin/ctr --namespace k8s.io images import --local --label io.cri-containerd.pinned=pinned "
    '"$$archive" && : >"$$archive.imported"; done'
)


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    is_golden = ctx.cluster.image.mode is ImageMode.GOLDEN
    if Role.WORKER not in roles or not is_golden or ctx.cluster.runtime is not Runtime.CONTAINERD:
        return _NOTHING
    unit = emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Import the container images of this golden image"),
                    ("After", "containerd.service"),
                    ("Requires", "containerd.service"),
                    ("Before", "kubelet.service"),
                    ("ConditionDirectoryNotEmpty", IMAGE_DIRECTORY),
                ],
            ),
            (
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    ("ExecStart", f"/bin/sh -ec '{_IMPORT}'"),
                    ("TimeoutStartSec", "300"),
                ],
            ),
            ("Install", [("WantedBy", "multi-user.target")]),
        ]
    )
    return Fragment(
        (
            Directory(phase=Phase.BAKE, origin=_ORIGIN, path=IMAGE_DIRECTORY),
            Unit(phase=Phase.BAKE, origin=_ORIGIN, name="imagegen-import-images.service", content=unit),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING
