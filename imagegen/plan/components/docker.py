"""Docker with the kubelet's built-in shim, up to 1.23: the distribution's package, and its settings.

With ``cni: flannel-etcd`` the daemon waits for flannel and takes the range of its bridge from it.
"""

from __future__ import annotations

from imagegen.emit import emit_json, emit_unit
from imagegen.kubernetes import docker, flannel
from imagegen.model.cluster import Node, Role, Runtime
from imagegen.plan.component import Context
from imagegen.plan.items import (
    ContainerImage,
    Directory,
    File,
    Fragment,
    Item,
    Origin,
    Package,
    Phase,
    Unit,
)

UNIT = "docker.service"
_DROP_INS = f"/etc/systemd/system/{UNIT}.d"
_WHERE = "component docker"
_ORIGIN = Origin(_WHERE, reason="runs containers for the kubelet")
_NOTHING = Fragment()


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    cluster = ctx.cluster
    if not cluster.has_kubelet(roles) or cluster.runtime is not Runtime.DOCKER:
        return _NOTHING
    items: list[Item] = [
        Package(phase=Phase.BAKE, origin=_ORIGIN, name=name)
        for name in docker.PACKAGES[cluster.image.os].packages
    ]
    return Fragment(
        (
            *items,
            Directory(phase=Phase.BAKE, origin=_ORIGIN, path="/etc/docker"),
            File(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="the kubelet's cgroup driver, logs that end, and whose network"),
                path=docker.CONFIG,
                content=(emit_json(docker.daemon_config(cluster)),),
            ),
            Directory(phase=Phase.BAKE, origin=_ORIGIN, path=_DROP_INS),
            File(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="Docker starts when the network of its containers is known"),
                path=f"{_DROP_INS}/50-imagegen.conf",
                content=(_emit_drop_in(ctx),),
            ),
            Unit(phase=Phase.BAKE, origin=_ORIGIN, name=UNIT, content=None),
            ContainerImage(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="holds the namespaces of every pod"),
                reference=ctx.releases.image("pause"),
            ),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _emit_drop_in(ctx: Context) -> str:
    unit = [("After", "cloud-config.target network-online.target"), ("StartLimitIntervalSec", "0")]
    service = [("Restart", "always"), ("RestartSec", "5s"), ("OOMScoreAdjust", "-999")]
    if docker.has_docker_network(ctx.cluster):
        unit += [("After", "flanneld.service"), ("Requires", "flanneld.service")]
        service += [
            ("EnvironmentFile", flannel.DOCKER_ENVIRONMENT),
            # the package's own command first has to go
            ("ExecStart", ""),
            ("ExecStart", docker.exec_start(ctx.cluster)),
            # from 1.13 on Docker sets DROP, and pods of other nodes would not get through
            ("ExecStartPost", "/usr/sbin/iptables --wait --policy FORWARD ACCEPT"),
        ]
    return emit_unit([("Unit", unit), ("Service", service)])
