"""kube-apiserver on masters, and kubectl beside it."""

from __future__ import annotations

from imagegen.content import Content, Ref
from imagegen.emit import emit_yaml
from imagegen.kubernetes import apiserver, kubeadm
from imagegen.kubernetes.arguments import emit_exec_start
from imagegen.kubernetes.audit import audit_policy
from imagegen.kubernetes.manifests.access import BOOTSTRAPPERS, NODE_BOOTSTRAPPERS_PREFIX
from imagegen.kubernetes.static_pods import user_id
from imagegen.kubernetes.units import UNPRIVILEGED, Daemon, emit_daemon_unit
from imagegen.model.cluster import BootstrapMethod, Layout, Node, Role
from imagegen.pki import paths
from imagegen.pki.inventory import bootstrap_token_name, owner_of
from imagegen.plan.component import Context
from imagegen.plan.daemons import plan_account
from imagegen.plan.items import (
    Binary,
    Directory,
    File,
    Fragment,
    Item,
    Origin,
    Phase,
    Port,
    Unit,
)

_WHERE = "component apiserver"
_NOTHING = Fragment()
_USER = paths.USER_APISERVER


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    if Role.MASTER not in roles:
        return _NOTHING
    return Fragment((*_plan_daemon(ctx), *_plan_configuration(ctx)))


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _plan_daemon(ctx: Context) -> list[Item]:
    daemon = Origin(_WHERE, reason="the API server runs without privileges of its own")
    number = user_id(ctx.cluster.kubernetes.layout, _USER)
    is_unit = ctx.cluster.kubernetes.layout is Layout.SYSTEMD
    items: list[Item] = [
        Binary(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="the API server, and the tool that talks to it"),
            path=f"/usr/local/bin/{name}",
            part=name,
            version=ctx.releases.version(name),
        )
        for name in ((apiserver.COMPONENT, "kubectl") if is_unit else ("kubectl",))
    ]
    if is_unit:
        items.append(
            Unit(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="starts by itself once the seed has brought its files"),
                name="kube-apiserver.service",
                content=_emit_unit(ctx),
            )
        )
    owner = owner_of(_USER, ctx.cluster.kubernetes.layout)
    if owner == _USER:
        items += plan_account(daemon, _USER, gecos="Kubernetes API server", number=number)
    return [
        *items,
        Directory(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="audit logs; only the API server may read them"),
            path=apiserver.AUDIT_DIRECTORY,
            mode="0700",
            owner=owner,
            group=owner,
        ),
        Port(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="everybody who uses the cluster dials the API"),
            first=apiserver.SECURE_PORT,
            last=apiserver.SECURE_PORT,
            protocol="tcp",
            purpose="Kubernetes API",
        ),
    ]


def _plan_configuration(ctx: Context) -> list[Item]:
    items: list[Item] = []
    layout = ctx.cluster.kubernetes.layout
    owner = owner_of(_USER, layout)
    if layout is Layout.SYSTEMD:
        environment = apiserver.apiserver_environment(ctx.cluster, ctx.gates)
        items.append(
            File(
                phase=Phase.BOOT,
                origin=Origin(_WHERE, reason="flags that depend on the list of nodes"),
                path=apiserver.ENVIRONMENT,
                content=("".join(f"{name}={value}\n" for name, value in environment.items()),),
            )
        )
    if apiserver.has_audit_policy(ctx.gates):
        items.append(
            File(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="what the audit log records"),
                path=apiserver.AUDIT_POLICY,
                content=(emit_yaml(audit_policy(ctx.gates)),),
            )
        )
    if apiserver.has_encryption(ctx.gates):
        items.append(
            File(
                phase=Phase.BOOT,
                origin=Origin(_WHERE, reason="Secrets are encrypted in etcd with this key"),
                path=apiserver.ENCRYPTION_CONFIG,
                content=apiserver.encryption_config(ctx.gates),
                mode="0600",
                owner=owner,
                group=owner,
            )
        )
    if ctx.cluster.bootstrap.method is BootstrapMethod.TOKEN_FILE:
        items.append(
            File(
                phase=Phase.BOOT,
                origin=Origin(_WHERE, reason="the tokens with which kubelets ask for their certificates"),
                path=apiserver.TOKEN_FILE,
                content=_token_file(ctx),
                mode="0600",
                owner=owner,
                group=owner,
            )
        )
    if apiserver.limits_anonymous(ctx.gates):
        more = (kubeadm.CLUSTER_INFO,) if layout is Layout.KUBEADM else ()
        items.append(
            File(
                phase=Phase.BAKE,
                origin=Origin(_WHERE, reason="without a credential only health can be asked for"),
                path=apiserver.AUTHENTICATION_CONFIG,
                content=(emit_yaml(apiserver.authentication_config(ctx.gates, more)),),
            )
        )
    return items


def _token_file(ctx: Context) -> Content:
    """One line ``TOKEN,USER,UID,"GROUPS"`` a kubelet, with the groups of bootstrap tokens."""
    parts: list[str | bytes | Ref] = []
    for node in (n for n in ctx.cluster.nodes if ctx.cluster.joins_by_token(n.roles)):
        groups = f"{BOOTSTRAPPERS},{NODE_BOOTSTRAPPERS_PREFIX}{node.name}"
        user = f'system:bootstrap:{node.name},{node.name},"{groups}"'
        parts += [Ref(bootstrap_token_name(node.name)), f",{user}\n"]
    return tuple(parts)


def _emit_unit(ctx: Context) -> str:
    arguments = apiserver.apiserver_arguments(ctx.cluster, ctx.gates)
    return emit_daemon_unit(
        Daemon(
            description="Kubernetes API server",
            documentation="https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/",
            type="notify",
            exec_start=emit_exec_start("/usr/local/bin/kube-apiserver", arguments),
            user=_USER,
            after=("etcd.service",),
            needs=(paths.NODE_ENV, apiserver.ENVIRONMENT, f"{paths.APISERVER}.key"),
            environment_files=(paths.NODE_ENV, apiserver.ENVIRONMENT),
            service=(
                # ready means that etcd answers, on whatever machine it is
                ("TimeoutStartSec", "15min"),
                ("LogsDirectory", "kubernetes"),
                ("LogsDirectoryMode", "0700"),
            ),
            resources=(
                ("LimitNOFILE", "65536"),
                ("TasksMax", "4096"),
                ("MemoryMin", "256M"),
                ("CPUWeight", "300"),
                ("OOMScoreAdjust", "-800"),
            ),
            sandbox=UNPRIVILEGED,
        )
    )
