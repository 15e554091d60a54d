"""First boot of a master: what the API server must be told before anyone can join, applied by one service.

The programs lie in ``cloud-init/``; what they apply is data from ``imagegen.kubernetes.manifests``.
"""

from __future__ import annotations

from functools import cache

from imagegen.emit import emit_unit, emit_yaml, emit_yaml_documents
from imagegen.kubernetes import kubeadm
from imagegen.kubernetes.kubelet import control_plane_labels
from imagegen.kubernetes.manifests.access import (
    bootstrap_bindings,
    cluster_info_access,
    csr_approver_access,
    identity_bindings,
)
from imagegen.kubernetes.manifests.cluster_info import CA_MARK, cluster_info
from imagegen.kubernetes.manifests.fit import fit_objects
from imagegen.kubernetes.manifests.objects import Manifest
from imagegen.kubernetes.units import UNPRIVILEGED
from imagegen.model.cluster import BootstrapMethod, Layout, Node, Role
from imagegen.pki import paths
from imagegen.pki.inventory import kubelet_client_subject
from imagegen.plan.component import Context
from imagegen.plan.items import (
    Content,
    Directory,
    File,
    Fragment,
    Item,
    Origin,
    Phase,
    Ref,
    Unit,
)
from imagegen.resources import find_resource

#: Programs of ours that run on machines.
PROGRAMS = "/usr/local/lib/imagegen"
MANIFESTS = "/etc/kubernetes/first-boot"
ADDONS = "/etc/kubernetes/addons"
BOOTSTRAP_TOKENS = "/etc/imagegen/bootstrap-tokens"
UNIT = "imagegen-first-boot.service"

_ORIGIN = Origin(
    "component first_boot", reason="tells a new API server what TLS bootstrap and the admin need"
)

_NOTHING = Fragment()


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    """Masters: the objects, the tokens, and the service that applies them."""
    if Role.MASTER not in roles:
        return _NOTHING
    return Fragment((*_plan_bake(ctx), *_plan_boot(ctx)))


def plan_node(ctx: Context, node: Node) -> Fragment:
    """Nothing: every master gets the same files, since any of them may be the first to boot."""
    return _NOTHING


@cache
def read_program(name: str) -> str:
    """The text of a program in ``cloud-init/``."""
    return find_resource("cloud-init", name).read_text(encoding="utf-8")


def program(name: str, origin: Origin, *, mode: str = "0755") -> File:
    """A program of ours as an item: in the image, owned by root."""
    return File(
        phase=Phase.BAKE, origin=origin, path=f"{PROGRAMS}/{name}", content=(read_program(name),), mode=mode
    )


def api_client_library(origin: Origin) -> File:
    """The module that our programs on masters share; both of them ask for it."""
    return program("kube_api.py", origin, mode="0644")


def _plan_bake(ctx: Context) -> list[Item]:
    gates, kubelet_client = ctx.gates, kubelet_client_subject(ctx.cluster).common_name

    def manifest(name: str, objects: tuple[Manifest, ...]) -> File:
        text = emit_yaml_documents(fit_objects(objects, gates))
        return File(phase=Phase.BAKE, origin=_ORIGIN, path=f"{MANIFESTS}/{name}", content=(text,))

    # kubeadm lets everybody read it, and writes it
    cluster_info_items: list[Item] = []
    if ctx.cluster.kubernetes.layout is not Layout.KUBEADM:
        cluster_info_items.append(manifest("40-cluster-info-access.yaml", cluster_info_access()))
    return [
        Directory(phase=Phase.BAKE, origin=_ORIGIN, path=PROGRAMS),
        Directory(phase=Phase.BAKE, origin=_ORIGIN, path=MANIFESTS),
        Directory(phase=Phase.BAKE, origin=_ORIGIN, path=ADDONS),
        manifest("10-bootstrap.yaml", bootstrap_bindings(gates)),
        manifest("20-identities.yaml", identity_bindings(gates, kubelet_client)),
        manifest("30-csr-approver.yaml", csr_approver_access()),
        *cluster_info_items,
        api_client_library(_ORIGIN),
        program("kube_objects.py", _ORIGIN, mode="0644"),
        program("bootstrap_tokens.py", _ORIGIN, mode="0644"),
        program("first-boot", _ORIGIN),
        Unit(phase=Phase.BAKE, origin=_ORIGIN, name=UNIT, content=_render_unit(ctx)),
    ]


def _plan_boot(ctx: Context) -> list[Item]:
    items: list[Item] = []
    if ctx.cluster.kubernetes.layout is not Layout.KUBEADM:
        items.append(
            File(
                phase=Phase.BOOT,
                origin=_ORIGIN,
                path=f"{MANIFESTS}/50-cluster-info.yaml",
                content=_cluster_info_content(ctx),
            )
        )
    if ctx.cluster.bootstrap.method is BootstrapMethod.TOKEN:
        items.append(
            File(
                phase=Phase.BOOT,
                origin=_ORIGIN,
                path=BOOTSTRAP_TOKENS,
                content=_tokens_content(ctx),
                mode="0600",
            )
        )
    return items


def _cluster_info_content(ctx: Context) -> Content:
    before, after = emit_yaml(cluster_info(ctx.cluster.endpoint.url)).split(CA_MARK)
    return (before, Ref("pki/ca.crt", public=True, encoding="base64"), after)


def _tokens_content(ctx: Context) -> Content:
    """One line ``NODE TOKEN`` for every node whose kubelet joins with one."""
    parts: list[str | bytes | Ref] = [
        "# NODE TOKEN: what each node may use once to ask for its certificate\n"
    ]
    for node in ctx.cluster.nodes:
        if not ctx.cluster.joins_by_token(node.roles):
            continue
        parts += [f"{node.name} ", Ref(f"nodes/{node.name}/bootstrap-token"), "\n"]
    return tuple(parts)


def _list_words(ctx: Context) -> list[str]:
    """The command of the unit; a master that is a node of its own cluster is labelled as one."""
    lifetime = int(ctx.cluster.bootstrap.token_lifetime.total_seconds())
    words = [f"{PROGRAMS}/first-boot", f"--token-lifetime {lifetime}"]
    if ctx.cluster.kubernetes.layout is Layout.STATIC_PODS:
        words += ["--node ${NODE_NAME}", *(f"--node-label {k}" for k in control_plane_labels(ctx.gates))]
    if ctx.cluster.kubernetes.layout is Layout.KUBEADM:
        words.append(f"--token-group {kubeadm.TOKEN_GROUP}")
    return words


def _render_unit(ctx: Context) -> str:
    command = _list_words(ctx)
    has_units = ctx.cluster.kubernetes.layout is Layout.SYSTEMD
    starter = "kube-apiserver.service" if has_units else "kubelet.service"
    # Wanted by what starts the API server, not by multi-user.target: a slow API must not hold up the rest of
    # the boot.
    return emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Tell the Kubernetes API what TLS bootstrap and the add-ons need"),
                    ("After", f"cloud-config.target {starter} time-sync.target"),
                    ("ConditionPathExists", paths.FIRST_BOOT_KUBECONFIG),
                    ("StartLimitIntervalSec", "0"),
                ],
            ),
            (
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    *([] if has_units else [("EnvironmentFile", paths.NODE_ENV)]),
                    ("ExecStart", " ".join(command)),
                    ("TimeoutStartSec", "30min"),
                    ("Restart", "on-failure"),
                    ("RestartSec", "5s"),
                    ("CPUWeight", "50"),
                    ("MemoryMax", "512M"),
                    *UNPRIVILEGED,
                    ("IPAddressDeny", "any"),
                    ("IPAddressAllow", "localhost"),
                ],
            ),
            ("Install", [("WantedBy", starter)]),
        ]
    )
