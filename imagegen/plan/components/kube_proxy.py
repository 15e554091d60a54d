"""kube-proxy on workers. On a pure worker it waits for the certificate that the kubelet gets."""

from __future__ import annotations

from imagegen.emit import emit_unit, emit_yaml
from imagegen.kubernetes import kube_proxy
from imagegen.kubernetes.arguments import emit_exec_start
from imagegen.kubernetes.units import NETWORK_ROOT, Daemon, emit_daemon_unit
from imagegen.model.cluster import Layout, Node, Role
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.items import Binary, File, Fragment, Item, Origin, Phase, Port, Unit, UnitState

_WHERE = "component kube_proxy"
_NOTHING = Fragment()
_NAME = kube_proxy.COMPONENT


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if not ctx.cluster.has_kubelet(roles) or ctx.cluster.kubernetes.layout is Layout.KUBEADM:
        return _NOTHING
    has_own_identity = Role.MASTER in roles
    return Fragment(
        (
            Binary(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="makes service addresses work on this node"),
                path=f"/usr/local/bin/{_NAME}",
                part=_NAME,
                version=ctx.releases.version(_NAME),
            ),
            *_plan_configuration(ctx),
            *_plan_units(ctx, has_own_identity),
            plan_health_port(ctx, _WHERE),
        )
    )


def plan_health_port(ctx: Context, where: str) -> Port:
    """The port on which kube-proxy, started by the component ``where``, says that it is well."""
    return Port(
        phase=Phase.BAKE,
        origin=Origin(where, reason="load balancers ask whether this node serves node ports"),
        first=kube_proxy.HEALTH_PORT,
        last=kube_proxy.HEALTH_PORT,
        protocol="tcp",
        purpose="kube-proxy health",
        sources=(str(ctx.cluster.network.nodes),),
    )


def _plan_configuration(ctx: Context) -> list[Item]:
    if not kube_proxy.has_config(ctx.gates):
        return []
    return [
        File(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="the settings that all kube-proxies share"),
            path=kube_proxy.CONFIG,
            content=(emit_yaml(kube_proxy.kube_proxy_config(ctx.cluster, ctx.gates)),),
        )
    ]


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _plan_units(ctx: Context, has_own_identity: bool) -> list[Item]:
    service = Unit(
        phase=Phase.BAKE,
        origin=Origin(_WHERE, reason="the packet filter of this node follows the cluster's services"),
        name=f"{_NAME}.service",
        content=_emit_unit(ctx, has_own_identity),
        state=UnitState.ENABLED if has_own_identity else UnitState.STATIC,
    )
    if has_own_identity:
        return [service]
    path = Unit(
        phase=Phase.BAKE,
        origin=Origin(_WHERE, reason="kube-proxy uses the kubelet's certificate, which comes with the join"),
        name=f"{_NAME}.path",
        content=emit_unit(
            (
                (
                    "Unit",
                    (
                        ("Description", "Start kube-proxy when the kubelet has its certificate"),
                        ("ConditionPathExists", paths.KUBE_PROXY_KUBECONFIG),
                        ("After", "cloud-config.target"),
                    ),
                ),
                ("Path", (("PathExists", paths.KUBELET_CLIENT_CERTIFICATE),)),
                ("Install", (("WantedBy", "multi-user.target"),)),
            )
        ),
    )
    return [service, path]


def _emit_unit(ctx: Context, has_own_identity: bool) -> str:
    credential = () if has_own_identity else (paths.KUBELET_CLIENT_CERTIFICATE,)
    arguments = kube_proxy.kube_proxy_arguments(ctx.cluster, ctx.gates)
    return emit_daemon_unit(
        Daemon(
            description="Kubernetes service proxy",
            documentation=f"https://kubernetes.io/docs/reference/command-line-tools-reference/{_NAME}/",
            type="exec",
            exec_start=emit_exec_start(f"/usr/local/bin/{_NAME}", arguments),
            after=("kubelet.service", "kube-apiserver.service"),
            needs=(paths.NODE_ENV, paths.KUBE_PROXY_KUBECONFIG, *credential),
            environment_files=(paths.NODE_ENV,),
            resources=(
                ("LimitNOFILE", "65536"),
                ("TasksMax", "2048"),
                ("MemoryMin", "32M"),
                ("OOMScoreAdjust", "-999"),
            ),
            sandbox=NETWORK_ROOT,
            wanted_by="multi-user.target" if has_own_identity else None,
        )
    )
