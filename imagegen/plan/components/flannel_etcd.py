"""flannel as a daemon of the machine: its network's configuration in etcd, and flanneld on every other node.

Masters without pods run it as well, so that their API servers reach pods.
"""

from __future__ import annotations

from imagegen.content import Ref
from imagegen.emit import emit_unit
from imagegen.kubernetes import flannel
from imagegen.kubernetes.apiserver import etcd_servers
from imagegen.kubernetes.arguments import emit_exec_start
from imagegen.kubernetes.docker import has_docker_network
from imagegen.kubernetes.units import NETWORK_ROOT, UNPRIVILEGED, Daemon, emit_daemon_unit
from imagegen.model.cluster import Cni, Node, Role
from imagegen.pki import inventory, paths
from imagegen.plan.component import Context
from imagegen.plan.components.cni import plan_vxlan_port
from imagegen.plan.items import (
    Binary,
    Directory,
    File,
    Fragment,
    Item,
    KernelModule,
    Origin,
    Package,
    Phase,
    Unit,
)

NETWORK_UNIT = "imagegen-flannel-network.service"
_WHERE = "component flannel_etcd"
_ORIGIN = Origin(_WHERE, reason="network.cni is flannel-etcd")
_NOTHING = Fragment()
_MK_DOCKER_OPTS = "/usr/local/bin/mk-docker-opts.sh"


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if ctx.cluster.network.cni is not Cni.FLANNEL_ETCD:
        return _NOTHING
    items: list[Item] = []
    if Role.ETCD in roles:
        items += _plan_network(ctx)
    if Role.MASTER in roles or Role.WORKER in roles:
        items += _plan_daemon(ctx, roles)
    return Fragment(tuple(items))


def plan_node(ctx: Context, node: Node) -> Fragment:
    """Nothing: the certificate of the node is the component ``certificates``."""
    return _NOTHING


def _plan_network(ctx: Context) -> list[Item]:
    origin = Origin(_WHERE, reason="flannel waits until etcd tells it the range of all pods")
    return [
        File(
            phase=Phase.BAKE,
            origin=origin,
            path=flannel.NETWORK_FILE,
            content=(flannel.network_config(ctx.cluster),),
        ),
        Unit(phase=Phase.BAKE, origin=origin, name=NETWORK_UNIT, content=_emit_network_unit(ctx)),
    ]


def _plan_daemon(ctx: Context, roles: tuple[Role, ...]) -> list[Item]:
    part = ctx.releases.part("flannel")
    programs = ["flanneld"]
    has_docker = ctx.cluster.has_kubelet(roles) and has_docker_network(ctx.cluster)
    if has_docker:
        programs.append("mk-docker-opts.sh")
    return [
        *(
            Binary(
                phase=Phase.BAKE,
                origin=_ORIGIN,
                path=f"/usr/local/bin/{name}",
                part=part.name,
                version=part.version,
                member=part.member(name),
            )
            for name in programs
        ),
        # flannel ends when it cannot remove the rules of iptables that an earlier start of it may have left
        Package(phase=Phase.BAKE, origin=_ORIGIN, name="iptables"),
        KernelModule(phase=Phase.BAKE, origin=_ORIGIN, name="vxlan"),
        # it ends without this one on masters, too, which have no pods (flannel-io/flannel#2082)
        KernelModule(phase=Phase.BAKE, origin=_ORIGIN, name="br_netfilter"),
        Directory(phase=Phase.BAKE, origin=_ORIGIN, path=paths.FLANNEL),
        Directory(phase=Phase.BAKE, origin=_ORIGIN, path=f"{paths.FLANNEL}/pki"),
        File(
            phase=Phase.BOOT,
            origin=Origin(_WHERE, reason="where the members of etcd are"),
            path=flannel.ENVIRONMENT,
            content=(f"ETCD_ENDPOINTS={etcd_servers(ctx.cluster)}\n",),
        ),
        File(
            phase=Phase.BOOT,
            origin=Origin(_WHERE, reason="flanneld trusts etcd members by it"),
            path=paths.FLANNEL_ETCD_CA,
            content=(Ref(f"{inventory.etcd_authority(ctx.cluster)}.crt", public=True),),
        ),
        Unit(phase=Phase.BAKE, origin=_ORIGIN, name="flanneld.service", content=_emit_unit(has_docker)),
        plan_vxlan_port(ctx, _ORIGIN),
    ]


def _emit_unit(has_docker: bool) -> str:
    options = f"-k {flannel.DOCKER_VARIABLE} -d {flannel.DOCKER_ENVIRONMENT}"
    docker = [("ExecStartPost", f"{_MK_DOCKER_OPTS} {options}")] if has_docker else []
    return emit_daemon_unit(
        Daemon(
            description="flannel: the pod network between nodes",
            documentation="https://github.com/flannel-io/flannel",
            type="notify",
            exec_start=emit_exec_start("/usr/local/bin/flanneld", flannel.flanneld_arguments()),
            after=("etcd.service", NETWORK_UNIT),
            needs=(paths.NODE_ENV, flannel.ENVIRONMENT, f"{paths.FLANNEL_ETCD_CLIENT}.key"),
            environment_files=(paths.NODE_ENV, flannel.ENVIRONMENT),
            unit=(("Before", "docker.service kubelet.service"),),
            service=(
                # it is ready when etcd has answered, on whatever machine that is
                ("TimeoutStartSec", "infinity"),
                ("RuntimeDirectory", "flannel"),
                ("RuntimeDirectoryPreserve", "yes"),
                *docker,
            ),
            resources=(("TasksMax", "512"), ("MemoryMin", "32M"), ("OOMScoreAdjust", "-999")),
            sandbox=NETWORK_ROOT,
        )
    )


def _emit_network_unit(ctx: Context) -> str:
    return emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Tell flannel the range of all pods"),
                    ("After", "cloud-config.target etcd.service"),
                    ("ConditionPathExists", f"{paths.ETCD_HEALTHCHECK_CLIENT}.key"),
                    ("StartLimitIntervalSec", "0"),
                ],
            ),
            (
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    ("ExecStart", f"/bin/sh -ec '{flannel.write_network_command(ctx.gates)}'"),
                    ("Restart", "on-failure"),
                    ("RestartSec", "5s"),
                    *UNPRIVILEGED,
                    ("IPAddressDeny", "any"),
                    ("IPAddressAllow", "localhost"),
                ],
            ),
            ("Install", [("WantedBy", "multi-user.target")]),
        ]
    )
