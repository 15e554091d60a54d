"""The kubelet where pods run. A worker joins by TLS bootstrap: only its token is made before first boot.

The kubelet of a master that starts the API server as a pod has its certificate from its seed.
"""

from __future__ import annotations

from dataclasses import replace

from imagegen.emit import emit_yaml
from imagegen.kubernetes import kubeadm, kubelet
from imagegen.kubernetes.arguments import emit_exec_start
from imagegen.kubernetes.units import Daemon, emit_daemon_unit
from imagegen.model.cluster import Layout, Node, Role
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.items import Binary, Directory, File, Fragment, Item, Origin, Phase, Port, Sysctl, Unit

_WHERE = "component kubelet"
_NOTHING = Fragment()
_NODE_PORTS = (30000, 32767)


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if not ctx.cluster.has_kubelet(roles):
        return _NOTHING
    return Fragment((*_plan_daemon(ctx, roles), *_plan_kernel(), *_plan_ports(ctx)))


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _plan_daemon(ctx: Context, roles: tuple[Role, ...]) -> list[Item]:
    return [
        Binary(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="runs the pods of this node"),
            path="/usr/local/bin/kubelet",
            part=kubelet.COMPONENT,
            version=ctx.releases.version(kubelet.COMPONENT),
        ),
        *_plan_configuration(ctx, roles),
        Directory(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="pods, volumes and the certificates that the kubelet gets"),
            path="/var/lib/kubelet",
            mode="0700",
        ),
        Unit(
            phase=Phase.BAKE,
            origin=Origin(
                _WHERE, reason="starts by itself once the seed has brought its token or kubeconfig"
            ),
            name="kubelet.service",
            content=_emit_unit(ctx, roles),
        ),
    ]


def _plan_configuration(ctx: Context, roles: tuple[Role, ...]) -> list[Item]:
    if not kubelet.has_config(ctx.gates) or ctx.cluster.kubernetes.layout is Layout.KUBEADM:
        return []
    return [
        File(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="the settings that all kubelets share"),
            path=kubelet.CONFIG,
            content=(emit_yaml(kubelet.kubelet_config(ctx.cluster, ctx.gates, roles)),),
            mode="0600",
        )
    ]


def _plan_kernel() -> list[Item]:
    origin = Origin(_WHERE, reason="wanted by the kubelet with protectKernelDefaults")
    return [
        Sysctl(phase=Phase.BAKE, origin=origin, key=key, value=value)
        for key, value in kubelet.KERNEL_DEFAULTS.items()
    ]


def _plan_ports(ctx: Context) -> list[Item]:
    network = ctx.cluster.network
    first, last = _NODE_PORTS
    origin = Origin(_WHERE, reason="the API server asks for logs and exec, metrics-server for metrics")
    service = Origin(_WHERE, reason="services of type NodePort and LoadBalancer")
    api = Port(
        phase=Phase.BAKE,
        origin=origin,
        first=kubelet.PORT,
        last=kubelet.PORT,
        protocol="tcp",
        purpose="kubelet API",
        sources=(str(network.nodes), str(network.pods)),
    )
    tcp = Port(phase=Phase.BAKE, origin=service, first=first, last=last, protocol="tcp", purpose="node ports")
    return [api, tcp, replace(tcp, protocol="udp")]


def _list_conditions(ctx: Context, roles: tuple[Role, ...]) -> tuple[tuple[str, str], ...]:
    if ctx.cluster.kubernetes.layout is Layout.KUBEADM:
        return (("ConditionPathExists", kubeadm.KUBELET_CONFIG),)
    if not ctx.cluster.joins_by_token(roles):
        return (("ConditionPathExists", paths.MASTER_KUBELET_KUBECONFIG),)
    # first boot has the token; later boots have the kubeconfig that the kubelet wrote
    return (
        ("ConditionPathExists", f"|{paths.BOOTSTRAP_KUBECONFIG}"),
        ("ConditionPathExists", f"|{paths.KUBELET_KUBECONFIG}"),
    )


def _emit_unit(ctx: Context, roles: tuple[Role, ...]) -> str:
    has_kubeadm = ctx.cluster.kubernetes.layout is Layout.KUBEADM
    if has_kubeadm:
        command = kubeadm.kubelet_exec_start(ctx.cluster)
    else:
        arguments = kubelet.kubelet_arguments(ctx.cluster, ctx.gates, roles)
        command = emit_exec_start("/usr/local/bin/kubelet", arguments)
    has_file = kubelet.has_config(ctx.gates) and not has_kubeadm
    runtime = f"{ctx.cluster.runtime.value}.service"
    # an API server without etcd ends, and the kubelet waits longer every time before it starts it again
    has_units = ctx.cluster.kubernetes.layout is Layout.SYSTEMD
    after = "etcd.service" if Role.MASTER in roles and not has_units else "kube-apiserver.service"
    return emit_daemon_unit(
        Daemon(
            description="Kubernetes kubelet",
            documentation="https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/",
            type="exec",
            exec_start=command,
            after=(runtime, after),
            wants=(runtime,),
            needs=(paths.NODE_ENV, *([kubelet.CONFIG] if has_file else []), paths.CA),
            unit=_list_conditions(ctx, roles),
            environment_files=(paths.NODE_ENV, *([f"-{kubeadm.KUBELET_FLAGS}"] if has_kubeadm else [])),
            service=(("KillMode", "process"), ("Delegate", "yes")),
            resources=(
                ("CPUAccounting", "yes"),
                ("MemoryAccounting", "yes"),
                ("LimitNOFILE", "1048576"),
                ("LimitCORE", "0"),
                ("TasksMax", "infinity"),
                ("MemoryMin", "64M"),
                ("OOMScoreAdjust", "-999"),
            ),
        )
    )
