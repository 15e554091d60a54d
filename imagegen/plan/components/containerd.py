"""containerd with runc on the nodes that run pods, the pause image in it, and crictl to look at it."""

from __future__ import annotations

from imagegen.kubernetes import containerd
from imagegen.kubernetes.arguments import emit_exec_start
from imagegen.kubernetes.units import Daemon, emit_daemon_unit
from imagegen.model.cluster import Node, Role, Runtime
from imagegen.plan.component import Context
from imagegen.plan.items import (
    Binary,
    ContainerImage,
    Directory,
    File,
    Fragment,
    Item,
    Origin,
    Phase,
    Unit,
)

_WHERE = "component containerd"
_NOTHING = Fragment()

#: executable → (part of the catalogue, path)
_EXECUTABLES = {
    "containerd": ("containerd", "/usr/local/bin/containerd"),
    "containerd-shim-runc-v2": ("containerd", "/usr/local/bin/containerd-shim-runc-v2"),
    "ctr": ("containerd", "/usr/local/bin/ctr"),
    "crictl": ("crictl", "/usr/local/bin/crictl"),
}


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if not ctx.cluster.has_kubelet(roles) or ctx.cluster.runtime is not Runtime.CONTAINERD:
        return _NOTHING
    pause = ctx.releases.image("pause")
    return Fragment(
        (
            *_plan_binaries(ctx),
            *_plan_directories(),
            ContainerImage(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="holds the namespaces of every pod"),
                reference=pause,
            ),
            File(
                phase=Phase.BAKE,
                origin=Origin(
                    _WHERE, reason="systemd cgroups, the sandbox image, where the CNI plug-ins are"
                ),
                path=containerd.CONFIG,
                content=(containerd.containerd_config(ctx.gates, pause),),
            ),
            File(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="crictl finds containerd without flags"),
                path=containerd.CRICTL_CONFIG,
                content=(containerd.crictl_config(),),
            ),
            Unit(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="the container runtime of the kubelet"),
                name="containerd.service",
                content=_emit_unit(ctx),
            ),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _plan_binaries(ctx: Context) -> list[Item]:
    origin = Origin(_WHERE, reason="runs containers")
    items: list[Item] = []
    for name, (part_name, path) in _EXECUTABLES.items():
        part = ctx.releases.part(part_name)
        items.append(
            Binary(
                phase=Phase.BAKE,
                origin=origin,
                path=path,
                part=part.name,
                version=part.version,
                member=part.member(name),
            )
        )
    runc = ctx.releases.part("runc")
    items.append(
        Binary(phase=Phase.BAKE, origin=origin, path=containerd.RUNC, part=runc.name, version=runc.version)
    )
    return items


def _plan_directories() -> list[Item]:
    reasons = {
        "/etc/containerd": "configuration of containerd",
        containerd.DROP_INS: "drop-ins that config.toml imports",
        containerd.REGISTRIES: "mirrors and credentials of registries, one folder each",
    }
    return [
        Directory(phase=Phase.BAKE, origin=Origin(_WHERE, reason=reason), path=path)
        for path, reason in reasons.items()
    ]


def _emit_unit(ctx: Context) -> str:
    arguments = ctx.cluster.kubernetes.extra_args_of("containerd")
    return emit_daemon_unit(
        Daemon(
            description="containerd container runtime",
            documentation="https://containerd.io",
            type="notify",
            exec_start=emit_exec_start("/usr/local/bin/containerd", arguments),
            after=("local-fs.target", "systemd-modules-load.service"),
            service=(
                # containers outlive a restart of their runtime
                ("KillMode", "process"),
                ("Delegate", "yes"),
            ),
            resources=(
                ("LimitNOFILE", "1048576"),
                ("LimitNPROC", "infinity"),
                ("LimitCORE", "0"),
                ("TasksMax", "infinity"),
                ("OOMScoreAdjust", "-999"),
            ),
        )
    )
