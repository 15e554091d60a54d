"""containerd with runc on the nodes that run pods, the pause image in it, and crictl to look at it."""

from __future__ import annotations

from imagegen.kubernetes import containerd
from imagegen.kubernetes.arguments import emit_exec_start
from imagegen.kubernetes.units import Daemon, emit_daemon_unit
from imagegen.model.cluster import Node, NodeTool, Role, Runtime
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

#: executables of the part containerd
_EXECUTABLES = ("containerd", "containerd-shim-runc-v2", "ctr")


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if not ctx.cluster.has_kubelet(roles) or ctx.cluster.runtime is not Runtime.CONTAINERD:
        return _NOTHING
    pause = ctx.releases.image("pause")
    return Fragment(
        (
            *_plan_binaries(ctx),
            *_plan_directories(),
            *(_plan_crictl(ctx) if NodeTool.CRICTL in ctx.cluster.image.tools else ()),
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
    runc = ctx.releases.part("runc")
    return [
        *(_plan_binary(ctx, origin, "containerd", name) for name in _EXECUTABLES),
        Binary(phase=Phase.BAKE, origin=origin, path=containerd.RUNC, part=runc.name, version=runc.version),
    ]


def _plan_crictl(ctx: Context) -> list[Item]:
    return [
        _plan_binary(ctx, Origin(_WHERE, reason="image.tools has crictl"), "crictl", "crictl"),
        File(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="crictl finds containerd without flags"),
            path=containerd.CRICTL_CONFIG,
            content=(containerd.crictl_config(),),
        ),
    ]


def _plan_binary(ctx: Context, origin: Origin, part_name: str, name: str) -> Binary:
    part = ctx.releases.part(part_name)
    return Binary(
        phase=Phase.BAKE,
        origin=origin,
        path=f"/usr/local/bin/{name}",
        part=part.name,
        version=part.version,
        member=part.member(name),
    )


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
