"""kube-controller-manager on masters."""

from __future__ import annotations

from imagegen.kubernetes import controller_manager
from imagegen.kubernetes.arguments import emit_exec_start
from imagegen.kubernetes.static_pods import user_id
from imagegen.kubernetes.units import UNPRIVILEGED, Daemon, emit_daemon_unit
from imagegen.model.cluster import Layout, Node, Role
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.items import Binary, Fragment, Group, Item, Origin, Phase, Unit, User

_WHERE = "component controller_manager"
_NOTHING = Fragment()
_NAME = controller_manager.COMPONENT
_USER = paths.USER_CONTROLLER_MANAGER


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if Role.MASTER not in roles or ctx.cluster.kubernetes.layout is Layout.KUBEADM:
        return _NOTHING
    daemon = Origin(_WHERE, reason="the controller manager runs without privileges of its own")
    number = user_id(ctx.cluster.kubernetes.layout, _USER)
    return Fragment(
        (
            *_plan_unit(ctx),
            Group(phase=Phase.BAKE, origin=daemon, name=_USER, gid=number),
            User(
                phase=Phase.BAKE,
                origin=daemon,
                name=_USER,
                uid=number,
                group=_USER,
                gecos="Kubernetes controller manager",
            ),
        )
    )


def _plan_unit(ctx: Context) -> list[Item]:
    if ctx.cluster.kubernetes.layout is not Layout.SYSTEMD:
        return []
    return [
        Binary(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="the controllers of the cluster"),
            path=f"/usr/local/bin/{_NAME}",
            part=_NAME,
            version=ctx.releases.version(_NAME),
        ),
        Unit(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="starts by itself once the seed has brought its files"),
            name=f"{_NAME}.service",
            content=_emit_unit(ctx),
        ),
    ]


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _emit_unit(ctx: Context) -> str:
    arguments = controller_manager.controller_manager_arguments(ctx.cluster, ctx.gates)
    return emit_daemon_unit(
        Daemon(
            description="Kubernetes controller manager",
            documentation=f"https://kubernetes.io/docs/reference/command-line-tools-reference/{_NAME}/",
            type="exec",
            exec_start=emit_exec_start(f"/usr/local/bin/{_NAME}", arguments),
            user=_USER,
            after=("kube-apiserver.service",),
            needs=(paths.CONTROLLER_MANAGER_KUBECONFIG, f"{paths.CONTROLLER_MANAGER_SERVER}.key"),
            resources=(
                ("LimitNOFILE", "16384"),
                ("TasksMax", "2048"),
                ("MemoryMin", "64M"),
                ("CPUWeight", "200"),
                ("OOMScoreAdjust", "-700"),
            ),
            sandbox=UNPRIVILEGED,
        )
    )
