"""What golden images leave out of every boot because no node needs it: units and systemd's generators.

``docs/images.md`` says what each part of a boot costs.
"""

from __future__ import annotations

from imagegen.model.cluster import Cluster, ImageMode, Node, Role
from imagegen.model.systems import SYSTEMS
from imagegen.plan.component import Context
from imagegen.plan.items import Fragment, Item, Origin, Phase, Symlink, Unit, UnitState

_NOTHING = Fragment()
_GENERATORS = "/etc/systemd/system-generators"

_MASKED_UNITS = {
    "cloud-init-hotplugd.socket": "nothing is configured again when hardware is plugged in",
    "e2scrub_all.timer": "it checks file systems on LVM, which no golden image has",
    "e2scrub_reap.service": "it tidies up after e2scrub_all, which does not run",
    "modprobe@drm.service": "no node draws on a screen; a kernel driver that does is loaded by udev",
    "systemd-binfmt.service": "no foreign executables: the kernel needs no table of interpreters",
    "proc-sys-fs-binfmt_misc.automount": "no foreign executables: the kernel needs no table of interpreters",
}

#: systemd.generator(7): a link to /dev/null in /etc switches one off
_MASKED_GENERATORS = {
    "systemd-gpt-auto-generator": "partitions are mounted because fstab says so, not because a disk has them",
    "systemd-hibernate-resume-generator": "nodes do not hibernate",
    "systemd-ssh-generator": "the SSH server listens on TCP only, not on sockets of the host or of AF_VSOCK",
    "systemd-tpm2-generator": "nothing in the image is sealed by a TPM",
}


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    """The same for all roles."""
    return Fragment(tuple(_plan_masks(ctx.cluster)))


def plan_node(ctx: Context, node: Node) -> Fragment:
    """Nothing: boots of all nodes are alike."""
    return _NOTHING


def _plan_masks(cluster: Cluster) -> list[Item]:
    if cluster.image.mode is not ImageMode.GOLDEN or not SYSTEMS[cluster.image.os].has_own_base:
        return []
    items: list[Item] = [
        Unit(phase=Phase.BAKE, origin=_origin(reason), name=name, content=None, state=UnitState.MASKED)
        for name, reason in _MASKED_UNITS.items()
    ]
    items += [
        Symlink(phase=Phase.BAKE, origin=_origin(reason), path=f"{_GENERATORS}/{name}", target="/dev/null")
        for name, reason in _MASKED_GENERATORS.items()
    ]
    return items


def _origin(reason: str) -> Origin:
    return Origin("component leanboot", reason=reason)
