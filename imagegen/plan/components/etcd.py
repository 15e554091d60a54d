"""etcd on the nodes with that role. Its configuration names the members, so it is per node."""

from __future__ import annotations

from imagegen.emit import emit_yaml
from imagegen.kubernetes import etcd
from imagegen.kubernetes.units import UNPRIVILEGED, Daemon, emit_daemon_unit
from imagegen.model.cluster import Node, Role
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.daemons import plan_account
from imagegen.plan.items import (
    Binary,
    Directory,
    File,
    Fragment,
    Origin,
    Phase,
    Port,
    Unit,
)

_WHERE = "component etcd"
_NOTHING = Fragment()
_EXECUTABLES = ("etcd", "etcdctl", "etcdutl")


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if Role.ETCD not in roles:
        return _NOTHING
    part = ctx.releases.part("etcd")
    user = paths.USER_ETCD
    daemon = Origin(_WHERE, reason="etcd runs without privileges of its own")
    ports = Origin(_WHERE, reason="the API server and the other members dial etcd; nobody else")
    return Fragment(
        (
            *(
                Binary(
                    phase=Phase.BAKE,
                    origin=Origin(_WHERE, reason="the member and its tools"),
                    path=f"/usr/local/bin/{name}",
                    part=part.name,
                    version=part.version,
                    member=part.member(name),
                )
                for name in _EXECUTABLES
                if name != "etcdutl" or ctx.gates.has(etcd.COMPONENT, "etcdutl")
            ),
            *plan_account(daemon, user, gecos="etcd", home=etcd.DATA_DIRECTORY),
            Directory(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="the data of the member; etcd warns when others can enter"),
                path=etcd.DATA_DIRECTORY,
                mode="0700",
                owner=user,
                group=user,
            ),
            Unit(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="starts by itself once the seed has brought its files"),
                name="etcd.service",
                content=_emit_unit(),
            ),
            Port(
                phase=Phase.BAKE,
                origin=ports,
                first=etcd.CLIENT_PORT,
                last=etcd.PEER_PORT,
                protocol="tcp",
                purpose="etcd clients and peers",
                sources=(str(ctx.cluster.network.nodes),),
            ),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    if not node.has(Role.ETCD):
        return _NOTHING
    return Fragment(
        (
            File(
                phase=Phase.BOOT,
                origin=Origin(_WHERE, reason="who this member is, and who the others are"),
                path=etcd.CONFIG,
                content=(emit_yaml(etcd.etcd_config(ctx.cluster, ctx.gates, node)),),
            ),
        )
    )


def _emit_unit() -> str:
    return emit_daemon_unit(
        Daemon(
            description="etcd member",
            documentation="https://etcd.io/docs/",
            type="notify",
            exec_start=f"/usr/local/bin/etcd\n--config-file={etcd.CONFIG}",
            user=paths.USER_ETCD,
            needs=(etcd.CONFIG, f"{paths.ETCD_SERVER}.key", f"{paths.ETCD_PEER}.key"),
            service=(
                # a member is ready when it has found a quorum; that takes as long as the others take
                ("TimeoutStartSec", "infinity"),
                ("StateDirectory", "etcd"),
                ("StateDirectoryMode", "0700"),
                ("WorkingDirectory", etcd.DATA_DIRECTORY),
            ),
            resources=(
                ("LimitNOFILE", "65536"),
                ("TasksMax", "4096"),
                ("MemoryMin", "128M"),
                ("CPUWeight", "400"),
                ("IOWeight", "400"),
                ("IOSchedulingClass", "best-effort"),
                ("IOSchedulingPriority", "0"),
                ("OOMScoreAdjust", "-900"),
            ),
            sandbox=UNPRIVILEGED,
        )
    )
