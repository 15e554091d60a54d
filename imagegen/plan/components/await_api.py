"""On a worker's first boot the kubelet waits until the API server takes its bootstrap token.

Without that its first attempts fail, and its pauses between attempts grow to half a minute.
"""

from __future__ import annotations

from imagegen.emit import emit_unit
from imagegen.kubernetes.units import UNPRIVILEGED
from imagegen.model.cluster import ImageMode, Layout, Node, Role
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.components.first_boot import PROGRAMS, api_client_library, program
from imagegen.plan.items import Directory, Fragment, Origin, Package, Phase, Unit

UNIT = "imagegen-await-api.service"
#: then the kubelet starts anyway
DEADLINE_SECONDS = 600

_NOTHING = Fragment()
_ORIGIN = Origin("component await_api", reason="the kubelet's first request for its certificate is answered")


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    """Workers. A stock image is busy bringing itself up while the API comes up."""
    is_golden = ctx.cluster.image.mode is ImageMode.GOLDEN
    has_kubeadm = ctx.cluster.kubernetes.layout is Layout.KUBEADM
    if not ctx.cluster.joins_by_token(roles) or not is_golden or has_kubeadm:
        return _NOTHING
    return Fragment(
        (
            Package(phase=Phase.BAKE, origin=_ORIGIN, name="python3-yaml"),
            Directory(phase=Phase.BAKE, origin=_ORIGIN, path=PROGRAMS),
            api_client_library(_ORIGIN),
            program("await-api", _ORIGIN),
            Unit(phase=Phase.BAKE, origin=_ORIGIN, name=UNIT, content=_emit_unit()),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    """Nothing: the node's kubeconfig says where the API is."""
    return _NOTHING


def _emit_unit() -> str:
    command = f"{PROGRAMS}/await-api --kubeconfig {paths.BOOTSTRAP_KUBECONFIG} --deadline {DEADLINE_SECONDS}"
    return emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Wait until the Kubernetes API takes this node's bootstrap token"),
                    ("After", "cloud-config.target network-online.target time-sync.target"),
                    ("Wants", "network-online.target"),
                    ("Before", "kubelet.service"),
                    ("ConditionPathExists", paths.BOOTSTRAP_KUBECONFIG),
                    # a node that has joined needs no token
                    ("ConditionPathExists", f"!{paths.KUBELET_KUBECONFIG}"),
                ],
            ),
            (
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    ("ExecStart", command),
                    ("TimeoutStartSec", str(DEADLINE_SECONDS + 60)),
                    ("MemoryMax", "128M"),
                    *UNPRIVILEGED,
                ],
            ),
            ("Install", [("WantedBy", "kubelet.service")]),
        ]
    )
