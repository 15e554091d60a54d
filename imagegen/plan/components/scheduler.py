"""kube-scheduler on masters."""

from __future__ import annotations

from imagegen.emit import emit_yaml
from imagegen.kubernetes import scheduler
from imagegen.model.cluster import Layout, Node, Role
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.daemons import Controller, plan_controller
from imagegen.plan.items import File, Fragment, Item, Origin, Phase

_NOTHING = Fragment()
_CONTROLLER = Controller(
    where="component scheduler",
    name=scheduler.COMPONENT,
    user=paths.USER_SCHEDULER,
    title="Kubernetes scheduler",
    does="gives pods a node",
    runs="the scheduler runs without privileges of its own",
    needs=(paths.SCHEDULER_KUBECONFIG, f"{paths.SCHEDULER_SERVER}.key"),
)


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if Role.MASTER not in roles or ctx.cluster.kubernetes.layout is Layout.KUBEADM:
        return _NOTHING
    arguments = scheduler.scheduler_arguments(ctx.cluster, ctx.gates)
    return Fragment((*plan_controller(ctx, _CONTROLLER, arguments), *_plan_configuration(ctx)))


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _plan_configuration(ctx: Context) -> list[Item]:
    if not scheduler.has_config(ctx.gates):
        return []
    return [
        File(
            phase=Phase.BAKE,
            origin=Origin(_CONTROLLER.where, reason="what no flag can say"),
            path=scheduler.CONFIG,
            content=(emit_yaml(scheduler.scheduler_config(ctx.gates)),),
        )
    ]
