"""The control plane as static pods on masters: the descriptions that the kubelet reads, and their images.

etcd stays a unit: it has its own disk, its own life and no need of a kubelet.
"""

from __future__ import annotations

from collections.abc import Mapping

from imagegen.emit import emit_yaml
from imagegen.kubernetes import apiserver, controller_manager, scheduler, static_pods
from imagegen.kubernetes.arguments import Arguments
from imagegen.model.cluster import Layout, Node, Role
from imagegen.plan.component import Context
from imagegen.plan.components.first_boot import read_program
from imagegen.plan.items import ContainerImage, Directory, File, Fragment, Item, Origin, Phase

_WHERE = "component static_pods"
_NOTHING = Fragment()
#: prints the end of the log of each daemon of the control plane, from the disk
LOGS = "/usr/local/bin/control-plane-logs"


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if Role.MASTER not in roles or ctx.cluster.kubernetes.layout is Layout.SYSTEMD:
        return _NOTHING
    logs = Origin(_WHERE, reason="logs are found when no API server answers kubectl logs")
    items: list[Item] = [
        Directory(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="what the kubelet starts without asking an API server"),
            path=static_pods.MANIFESTS,
            mode="0700",
        ),
        File(
            phase=Phase.BAKE,
            origin=logs,
            path=LOGS,
            content=(read_program("control-plane-logs"),),
            mode="0755",
        ),
        *(_image(ctx, name) for name in static_pods.COMPONENTS),
    ]
    if ctx.cluster.kubernetes.layout is Layout.STATIC_PODS:
        manager = controller_manager.controller_manager_arguments(ctx.cluster, ctx.gates)
        items += [
            _manifest(ctx, controller_manager.COMPONENT, manager, {}, Phase.BAKE),
            _manifest(
                ctx,
                scheduler.COMPONENT,
                scheduler.scheduler_arguments(ctx.cluster, ctx.gates),
                {},
                Phase.BAKE,
            ),
        ]
    return Fragment(tuple(items))


def plan_node(ctx: Context, node: Node) -> Fragment:
    """The API server: its flags name the node's own address and every member of etcd."""
    if not node.has(Role.MASTER) or ctx.cluster.kubernetes.layout is not Layout.STATIC_PODS:
        return _NOTHING
    values = {
        **apiserver.apiserver_environment(ctx.cluster, ctx.gates),
        "NODE_ADDRESS": str(node.address),
    }
    arguments = apiserver.apiserver_arguments(ctx.cluster, ctx.gates)
    return Fragment((_manifest(ctx, apiserver.COMPONENT, arguments, values, Phase.BOOT),))


def _manifest(
    ctx: Context, component: str, arguments: Arguments, values: Mapping[str, str], phase: Phase
) -> File:
    """``values`` are what a unit would find in its environment."""
    filled = static_pods.fill_variables(arguments, values)
    pod = static_pods.control_plane_pod(component, ctx.releases.image(component), filled, ctx.gates)
    return File(
        phase=phase,
        origin=Origin(_WHERE, reason=f"the kubelet runs {component} from it"),
        path=static_pods.manifest_path(component),
        content=(emit_yaml(pod),),
        mode="0600",
    )


def _image(ctx: Context, component: str) -> ContainerImage:
    return ContainerImage(
        phase=Phase.BAKE,
        origin=Origin(_WHERE, reason="a master starts its control plane with no registry in reach"),
        reference=ctx.releases.image(component),
    )
