"""kube-controller-manager on masters."""

from __future__ import annotations

from imagegen.kubernetes import controller_manager
from imagegen.model.cluster import Layout, Node, Role
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.daemons import Controller, plan_controller
from imagegen.plan.items import Fragment

_NOTHING = Fragment()
_CONTROLLER = Controller(
    where="component controller_manager",
    name=controller_manager.COMPONENT,
    user=paths.USER_CONTROLLER_MANAGER,
    title="Kubernetes controller manager",
    does="the controllers of the cluster",
    runs="the controller manager runs without privileges of its own",
    needs=(paths.CONTROLLER_MANAGER_KUBECONFIG, f"{paths.CONTROLLER_MANAGER_SERVER}.key"),
)


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if Role.MASTER not in roles or ctx.cluster.kubernetes.layout is Layout.KUBEADM:
        return _NOTHING
    arguments = controller_manager.controller_manager_arguments(ctx.cluster, ctx.gates)
    return Fragment(plan_controller(ctx, _CONTROLLER, arguments))


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING
