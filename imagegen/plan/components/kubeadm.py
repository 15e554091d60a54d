"""The layout kubeadm: its configuration for every node, and the unit that runs it until it has succeeded.

Certificates, etcd and the approver are ours; manifests, kubeconfigs, kube-proxy and CoreDNS are kubeadm's.
"""

from __future__ import annotations

from imagegen.emit import emit_unit
from imagegen.kubernetes import kube_proxy, kubeadm
from imagegen.model.cluster import ImageMode, Layout, Node, Role
from imagegen.plan.component import Context
from imagegen.plan.components.first_boot import PROGRAMS, program
from imagegen.plan.components.kube_proxy import plan_health_port
from imagegen.plan.items import (
    Binary,
    ContainerImage,
    Directory,
    File,
    Fragment,
    Item,
    Origin,
    Phase,
    Unit,
)

UNIT = "imagegen-kubeadm.service"
DONE = "/var/lib/imagegen/kubeadm-done"
_WHERE = "component kubeadm"
_NOTHING = Fragment()


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    cluster = ctx.cluster
    if cluster.kubernetes.layout is not Layout.KUBEADM or not cluster.has_kubelet(roles):
        return _NOTHING
    origin = Origin(_WHERE, reason="makes the machine a node of its cluster")
    items: list[Item] = [
        Binary(
            phase=Phase.BAKE,
            origin=origin,
            path=f"/usr/local/bin/{kubeadm.COMPONENT}",
            part=kubeadm.COMPONENT,
            version=ctx.releases.version(kubeadm.COMPONENT),
        ),
        Directory(phase=Phase.BAKE, origin=origin, path=PROGRAMS),
        program("kubeadm-node", origin),
        Unit(phase=Phase.BAKE, origin=origin, name=UNIT, content=_emit_unit(ctx)),
        ContainerImage(
            phase=Phase.BAKE,
            origin=Origin(_WHERE, reason="kubeadm runs kube-proxy as a pod on every node"),
            reference=ctx.releases.image(kube_proxy.COMPONENT),
        ),
        plan_health_port(ctx, _WHERE),
    ]
    return Fragment(tuple(items))


def plan_node(ctx: Context, node: Node) -> Fragment:
    cluster = ctx.cluster
    if cluster.kubernetes.layout is not Layout.KUBEADM or not cluster.has_kubelet(node.roles):
        return _NOTHING
    verb = "init" if kubeadm.is_first_master(cluster, node) else "join"
    return Fragment(
        (
            File(
                phase=Phase.BOOT,
                origin=Origin(_WHERE, reason=f"what kubeadm {verb} reads"),
                path=kubeadm.CONFIG,
                content=kubeadm.node_config(cluster, ctx.gates, ctx.releases, node),
                mode="0600",
            ),
        )
    )


def _emit_unit(ctx: Context) -> str:
    cluster = ctx.cluster
    after = ["cloud-config.target", "network-online.target", "time-sync.target", "etcd.service"]
    after.append(f"{cluster.runtime.value}.service")
    if cluster.image.mode is ImageMode.GOLDEN:
        after.append("imagegen-import-images.service")
    return emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Make this machine a node of its cluster with kubeadm"),
                    ("Documentation", "https://kubernetes.io/docs/reference/setup-tools/kubeadm/"),
                    ("Wants", "network-online.target time-sync.target"),
                    ("After", " ".join(after)),
                    ("ConditionPathExists", kubeadm.CONFIG),
                    ("ConditionPathExists", f"!{DONE}"),
                    ("StartLimitIntervalSec", "0"),
                ],
            ),
            (
                "Service",
                [
                    # not oneshot: a control plane that waits for others must not hold up the rest of the boot
                    ("Type", "exec"),
                    ("RemainAfterExit", "yes"),
                    ("ExecStart", f"{PROGRAMS}/kubeadm-node {kubeadm.CONFIG}"),
                    ("Restart", "on-failure"),
                    ("RestartSec", "10s"),
                    ("UMask", "0077"),
                ],
            ),
            ("Install", [("WantedBy", "multi-user.target")]),
        ]
    )
