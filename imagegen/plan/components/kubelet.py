"""The kubelet on workers. It joins by TLS bootstrap: only its token is made before first boot."""

from __future__ import annotations

from dataclasses import replace

from imagegen.emit import emit_yaml
from imagegen.kubernetes import kubelet
from imagegen.kubernetes.arguments import emit_exec_start
from imagegen.kubernetes.units import Daemon, emit_daemon_unit
from imagegen.model.cluster import Node, Role
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.items import Binary, Directory, File, Fragment, Item, Origin, Phase, Port, Sysctl, Unit

_WHERE = "component kubelet"
_NOTHING = Fragment()
_NODE_PORTS = (30000, 32767)


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if Role.WORKER not in roles:
        return _NOTHING
    return Fragment((*_plan_daemon(ctx), *_plan_kernel(), *_plan_ports(ctx)))


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _plan_daemon(ctx: Context) -> list[Item]:
    return [
        Binary(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="runs the pods of this node"),
            path="/usr/local/bin/kubelet",
            part=kubelet.COMPONENT,
            version=ctx.releases.version(kubelet.COMPONENT),
        ),
        *_plan_configuration(ctx),
        Directory(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="pods, volumes and the certificates that the kubelet gets"),
            path="/var/lib/kubelet",
            mode="0700",
        ),
        Unit(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="starts by itself once the seed has brought its token"),
            name="kubelet.service",
            content=_emit_unit(ctx),
        ),
    ]


def _plan_configuration(ctx: Context) -> list[Item]:
    if not kubelet.has_config(ctx.gates):
        return []
    return [
        File(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="the settings that all kubelets share"),
            path=kubelet.CONFIG,
            content=(emit_yaml(kubelet.kubelet_config(ctx.cluster, ctx.gates)),),
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


def _emit_unit(ctx: Context) -> str:
    arguments = kubelet.kubelet_arguments(ctx.cluster, ctx.gates)
    runtime = f"{ctx.cluster.runtime.value}.service"
    return emit_daemon_unit(
        Daemon(
            description="Kubernetes kubelet",
            documentation="https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/",
            type="exec",
            exec_start=emit_exec_start("/usr/local/bin/kubelet", arguments),
            after=(runtime, "kube-apiserver.service"),
            wants=(runtime,),
            needs=(paths.NODE_ENV, *([kubelet.CONFIG] if kubelet.has_config(ctx.gates) else []), paths.CA),
            unit=(
                # first boot has the token; later boots have the kubeconfig that the kubelet wrote
                ("ConditionPathExists", f"|{paths.BOOTSTRAP_KUBECONFIG}"),
                ("ConditionPathExists", f"|{paths.KUBELET_KUBECONFIG}"),
            ),
            environment_files=(paths.NODE_ENV,),
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
