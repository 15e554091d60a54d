"""The approver of kubelet certificate requests on masters: its user, its policy from the cluster
file, its unit.
"""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address

from imagegen.kubernetes.units import UNPRIVILEGED, Daemon, emit_daemon_unit
from imagegen.model.cluster import Cluster, Node, Role
from imagegen.pki import paths
from imagegen.plan.component import Context
from imagegen.plan.components.first_boot import PROGRAMS, api_client_library, program
from imagegen.plan.daemons import plan_account
from imagegen.plan.items import Directory, File, Fragment, Origin, Package, Phase, Unit

POLICY = "/etc/imagegen/csr-policy"
UNIT = "csr-approver.service"

_COMMAND = f"{PROGRAMS}/csr-approver --kubeconfig {paths.CSR_APPROVER_KUBECONFIG} --policy {POLICY}"
_USER = paths.USER_CSR_APPROVER
_ORIGIN = Origin(
    "component csr_approver", reason="signs off only the kubelet certificates that the cluster file allows"
)

_NOTHING = Fragment()


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    """Masters: several run it at once; the API server's resource versions let one of them decide."""
    if Role.MASTER not in roles:
        return _NOTHING
    return Fragment(
        (
            *plan_account(_ORIGIN, _USER, gecos="imagegen CSR approver"),
            Package(phase=Phase.BAKE, origin=_ORIGIN, name="python3-cryptography"),
            Package(phase=Phase.BAKE, origin=_ORIGIN, name="python3-yaml"),
            Directory(phase=Phase.BAKE, origin=_ORIGIN, path=PROGRAMS),
            api_client_library(_ORIGIN),
            program("csr_policy.py", _ORIGIN, mode="0644"),
            program("csr-approver", _ORIGIN),
            Unit(phase=Phase.BAKE, origin=_ORIGIN, name=UNIT, content=_render_unit(ctx)),
            File(
                phase=Phase.BOOT,
                origin=_ORIGIN,
                path=POLICY,
                content=(render_policy(ctx.cluster),),
                mode="0640",
                group=_USER,
            ),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    """Nothing: all masters follow one policy."""
    return _NOTHING


def render_policy(cluster: Cluster) -> str:
    """The policy as lines; ``cloud-init/csr_policy.py`` documents and reads the format."""
    lines = [
        f"serving {'yes' if cluster.bootstrap.approve_serving else 'no'}",
        f"range {cluster.network.nodes}",
        f"reserve {cluster.network.services}",
    ]
    lines += [f"reserve {address}" for address in _reserved_addresses(cluster)]
    lines += [f"node {n.name} {n.address or 'dhcp'}" for n in cluster.kubelet_nodes]
    return "\n".join(lines) + "\n"


def _reserved_addresses(cluster: Cluster) -> list[IPv4Address]:
    """What no node with a leased address may ask for; addresses of kubelets are reserved by their
    own lines.
    """
    strangers = (n for n in cluster.nodes if not cluster.has_kubelet(n.roles))
    reserved = {n.address for n in strangers if n.address is not None}
    if cluster.network.gateway is not None:
        reserved.add(cluster.network.gateway)
    reserved.update(cluster.network.nameservers)
    with contextlib.suppress(ValueError):  # a DNS name is not an address
        reserved.add(IPv4Address(cluster.endpoint.host))
    return sorted(address for address in reserved if address in cluster.network.nodes)


def _render_unit(ctx: Context) -> str:
    has_v1 = ctx.gates.has("kube-controller-manager", "certificates.k8s.io/v1")
    return emit_daemon_unit(
        Daemon(
            description="Approve the kubelet certificate requests that the cluster file allows",
            documentation="https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/",
            type="exec",
            exec_start=_COMMAND if has_v1 else f"{_COMMAND} --api v1beta1",
            user=_USER,
            after=("kube-apiserver.service",),
            needs=(paths.CSR_APPROVER_KUBECONFIG, POLICY),
            resources=(("MemoryMax", "256M"), ("TasksMax", "16")),
            sandbox=(
                *UNPRIVILEGED,
                ("PrivateUsers", "yes"),
                ("ProcSubset", "pid"),
                # it talks to the API server of its own node
                ("IPAddressDeny", "any"),
                ("IPAddressAllow", "localhost"),
            ),
        )
    )
