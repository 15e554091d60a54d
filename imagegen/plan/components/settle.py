"""A first boot that a power cut interrupts happens again: two units around everything that it writes.

Neither cloud-init nor containerd's unpacking waits for the disk, but both remember at once that they did it.
A file system with delayed allocation may then keep the memory and lose the data.
"""

from __future__ import annotations

from imagegen.emit import emit_unit
from imagegen.model.cluster import ImageMode, Node, Role, Runtime
from imagegen.model.systems import SYSTEMS
from imagegen.plan.component import Context
from imagegen.plan.components import preload
from imagegen.plan.components.first_boot import PROGRAMS, program
from imagegen.plan.items import Directory, Fragment, Origin, Phase, Unit
from imagegen.plan.sandbox import list_sandbox

PROGRAM = f"{PROGRAMS}/settle"
CHECK, MARK = "imagegen-settle-check.service", "imagegen-settle.service"
_ORIGIN = Origin("component settle", reason="a power cut during the first boot leaves no half-written node")
#: what is removed belongs to many users
_REMOVER = "CAP_DAC_OVERRIDE CAP_FOWNER"
_STATE = {
    Runtime.CONTAINERD: "-/var/lib/containerd",
    Runtime.DOCKER: "-/var/lib/containerd -/var/lib/docker",
}


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    """Every golden image that we make; a stock image has a unit that goes on where it stopped."""
    image = ctx.cluster.image
    if image.mode is not ImageMode.GOLDEN or not SYSTEMS[image.os].has_own_base:
        return Fragment()
    has_images = bool(preload.plan_role(ctx, roles).items)
    runtime = ctx.cluster.runtime if has_images else Runtime.CONTAINERD
    return Fragment(
        (
            Directory(phase=Phase.BAKE, origin=_ORIGIN, path=PROGRAMS),
            program("settle", _ORIGIN),
            Unit(
                phase=Phase.BAKE,
                origin=_ORIGIN,
                name=CHECK,
                content=_emit_check(runtime, has_images),
            ),
            Unit(
                phase=Phase.BAKE,
                origin=_ORIGIN,
                name=MARK,
                content=_emit_mark(runtime, has_images),
            ),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    return Fragment()


def _writable(runtime: Runtime) -> tuple[str, str]:
    return ("ReadWritePaths", f"/var/lib/cloud {_STATE[runtime]} -/var/lib/imagegen")


def _emit_check(runtime: Runtime, has_images: bool) -> str:
    before = ["cloud-init-local.service"]
    if has_images:
        before.append(f"{runtime.value}.service")
    return emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Let an interrupted first boot happen again"),
                    ("DefaultDependencies", "no"),
                    ("RequiresMountsFor", "/var/lib"),
                    ("After", "local-fs.target"),
                    ("Before", " ".join(before)),
                    ("Before", "sysinit.target shutdown.target"),
                    ("Conflicts", "shutdown.target"),
                    ("ConditionDirectoryNotEmpty", "/var/lib/cloud/instances"),
                ],
            ),
            (
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    ("ExecStart", f"{PROGRAM} check"),
                    *list_sandbox(capabilities=_REMOVER, families=""),
                    _writable(runtime),
                ],
            ),
            ("Install", [("WantedBy", "sysinit.target")]),
        ]
    )


def _emit_mark(runtime: Runtime, has_images: bool) -> str:
    after = ["cloud-final.service"]
    if has_images:
        after.append("imagegen-import-images.service")
    return emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Remember that the first boot has reached the disk"),
                    ("After", " ".join(after)),
                    ("ConditionPathExists", "!/var/lib/cloud/instance/imagegen-settled"),
                ],
            ),
            (
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    ("ExecStart", f"{PROGRAM} mark"),
                    *list_sandbox(capabilities=_REMOVER, families=""),
                    _writable(runtime),
                ],
            ),
            ("Install", [("WantedBy", "cloud-init.target")]),
        ]
    )
