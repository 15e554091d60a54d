"""The machine below Kubernetes where it depends on the cluster file: clock, swap, modules, sysctls.

What every machine has regardless of the cluster file is data in ``profiles/``.
"""

from __future__ import annotations

from pathlib import PurePath

from imagegen.emit import emit_unit
from imagegen.model.cluster import Cluster, Cni, ImageMode, Node, ProxyMode, Role, Target
from imagegen.model.compatibility import CONNTRACK_MERGED_KERNEL
from imagegen.model.systems import SYSTEMS
from imagegen.plan.component import Context
from imagegen.plan.items import (
    File,
    Fragment,
    Item,
    KernelModule,
    Origin,
    Package,
    Phase,
    Sysctl,
    Unit,
    UnitState,
)
from imagegen.plan.sandbox import list_sandbox

_NOTHING = Fragment()

#: seconds that boot waits for a synchronised clock before it goes on without, and without even an answer
CLOCK_WAIT_SECONDS = 20
CLOCK_SILENCE_SECONDS = 8

_DAEMONS = (
    "etcd.service kube-apiserver.service kube-controller-manager.service kube-scheduler.service "
    "kubelet.service"
)


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    cluster = ctx.cluster
    items = [*_plan_clock(cluster), *_plan_swap(cluster), *_plan_selinux(cluster), *_plan_packages(cluster)]
    if cluster.has_kubelet(roles):
        items += _plan_pod_network(cluster)
    return Fragment(tuple(items))


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _origin(reason: str) -> Origin:
    return Origin("component host", reason=reason)


def _plan_clock(cluster: Cluster) -> list[Item]:
    facts = SYSTEMS[cluster.image.os]
    service = facts.time_unit
    clock = _origin("certificates and leases need a clock that is right before etcd and the kubelet start")
    return [
        Package(phase=Phase.BAKE, origin=clock, name="chrony"),
        File(
            phase=Phase.BAKE,
            origin=clock,
            path=facts.time_config,
            content=(emit_chrony(cluster),),
        ),
        Unit(phase=Phase.BAKE, origin=clock, name=service, content=None),
        Unit(
            phase=Phase.BAKE,
            origin=_origin("two clients must not steer one clock"),
            name="systemd-timesyncd.service",
            content=None,
            state=UnitState.MASKED,
        ),
        Unit(
            phase=Phase.BAKE,
            origin=_origin(
                f"boot waits at most {CLOCK_WAIT_SECONDS} s for it, so that it ends without time servers too"
            ),
            name="imagegen-time-sync.service",
            content=_time_sync_unit(service, facts.time_user),
        ),
    ]


_DHCP_SOURCES = ("# time servers that DHCP names", "sourcedir /run/chrony-dhcp")


def emit_chrony(cluster: Cluster) -> str:
    """Client only: no NTP port, no command port; chronyc talks to the daemon through its socket.

    The daemon may step the clock in its first three updates only, because etcd dislikes steps later.
    """
    return "\n".join(
        [
            *_list_time_sources(cluster),
            *(_DHCP_SOURCES if SYSTEMS[cluster.image.os].has_time_folder else ()),
            "driftfile /var/lib/chrony/drift",
            "makestep 1.0 3",
            "rtcsync",
            "port 0",
            "cmdport 0",
            "",
        ]
    )


def _list_time_sources(cluster: Cluster) -> list[str]:
    if cluster.network.ntp_servers:
        return [f"server {server} iburst" for server in cluster.network.ntp_servers]
    sources = ["server metadata.google.internal iburst prefer"] if Target.GCE in cluster.targets else []
    return [*sources, f"pool {SYSTEMS[cluster.image.os].time_pool} iburst maxsources 4"]


def _time_sync_unit(service: str, user: str) -> str:
    chronyc = "/usr/bin/chronyc -n"
    rest = CLOCK_WAIT_SECONDS - CLOCK_SILENCE_SECONDS
    # the sixth field is the register of answers, in octal
    wait = (
        f"{chronyc} waitsync {CLOCK_SILENCE_SECONDS} 1 0 1 || "
        f"{{ {chronyc} -c sources | cut -d, -f6 | grep -q [1-7] && {chronyc} waitsync {rest} 1 0 1; }} || "
        "echo no time source has answered in time, going on with the clock as it is"
    )
    return emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", f"Wait at most {CLOCK_WAIT_SECONDS} s for a synchronised clock"),
                    ("Wants", f"{service} network-online.target time-sync.target"),
                    ("After", f"{service} network-online.target"),
                    ("Before", f"time-sync.target {_DAEMONS}"),
                ],
            ),
            (
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    ("ExecStart", f'/bin/sh -c "{wait}"'),
                    ("TimeoutStartSec", f"{CLOCK_WAIT_SECONDS + 15}"),
                    # chronyc needs the daemon's own user: it puts its socket beside the daemon's.
                    ("User", user),
                    ("ReadWritePaths", "-/run/chrony"),
                    *list_sandbox(),
                ],
            ),
            ("Install", [("WantedBy", "multi-user.target time-sync.target")]),
        ]
    )


def _plan_swap(cluster: Cluster) -> list[Item]:
    """``swap.target`` masked stops every swap of fstab, of the GPT and of zram-generator at boot; the service
    also ends swap that a stock image switched on before the mask was there."""
    origin = _origin("the kubelet refuses to run with swap, and etcd must never wait for a page")
    unit = emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Switch swap off"),
                    ("Before", _DAEMONS),
                ],
            ),
            (
                "Service",
                [
                    ("Type", "oneshot"),
                    ("RemainAfterExit", "yes"),
                    ("ExecStart", "/usr/sbin/swapoff --all"),
                    *list_sandbox(
                        capabilities="CAP_SYS_ADMIN",
                        families="",
                        calls="@system-service @swap",
                        has_devices=True,
                    ),
                ],
            ),
            ("Install", [("WantedBy", "multi-user.target")]),
        ]
    )
    mask = Unit(phase=Phase.BAKE, origin=origin, name="swap.target", content=None, state=UnitState.MASKED)
    if cluster.image.mode is ImageMode.GOLDEN:
        return [mask]
    return [mask, Unit(phase=Phase.BAKE, origin=origin, name="imagegen-swap-off.service", content=unit)]


def _plan_selinux(cluster: Cluster) -> list[Item]:
    """SELinux watches and lets pass, where there is one: no policy knows our paths."""
    path = SYSTEMS[cluster.image.os].selinux
    if path is None:
        return []
    origin = _origin(
        "SELinux logs what its policy would refuse; that policy knows none of the daemons' places"
    )
    items: list[Item] = [
        File(
            phase=Phase.BAKE,
            origin=origin,
            path=path,
            content=("SELINUX=permissive\nSELINUXTYPE=targeted\n",),
        )
    ]
    if cluster.image.mode is ImageMode.STOCK:
        items.append(Unit(phase=Phase.BAKE, origin=origin, name=_SELINUX_UNIT, content=_emit_selinux_unit()))
    return items


_SELINUX_UNIT = "imagegen-selinux.service"


def _emit_selinux_unit() -> str:
    """A stock image has read its own setting before cloud-init wrote ours."""
    return emit_unit(
        [
            (
                "Unit",
                [
                    ("Description", "Let SELinux watch only"),
                    ("ConditionSecurity", "selinux"),
                    ("Before", _DAEMONS),
                ],
            ),
            (
                "Service",
                [("Type", "oneshot"), ("RemainAfterExit", "yes"), ("ExecStart", "/usr/sbin/setenforce 0")],
            ),
            ("Install", [("WantedBy", "multi-user.target")]),
        ]
    )


def _plan_packages(cluster: Cluster) -> list[Item]:
    span = cluster.span_of("image.packages")
    origin = Origin(
        PurePath(cluster.file).name, span.line if span else 0, "image.packages of the cluster file"
    )
    return [Package(phase=Phase.BAKE, origin=origin, name=name) for name in cluster.image.packages]


_IPVS_MODULES = ("ip_vs", "ip_vs_rr", "ip_vs_sh", "ip_vs_wrr")


def _plan_pod_network(cluster: Cluster) -> list[Item]:
    modules: list[str] = []
    packages: list[str] = []
    sysctls: dict[str, str] = {}
    proxy, cni = cluster.network.proxy, cluster.network.cni
    if proxy is ProxyMode.NFTABLES:
        modules.append("nf_tables")
    if proxy is ProxyMode.IPVS:
        modules += _IPVS_MODULES
        if SYSTEMS[cluster.image.os].kernel < CONNTRACK_MERGED_KERNEL:
            modules.append("nf_conntrack_ipv4")
        packages += ["ipset", "ipvsadm"]
        # kube-proxy binds service addresses to kube-ipvs0; without these a node answers ARP for all of them.
        sysctls |= {"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"}
    if cni in {Cni.FLANNEL, Cni.FLANNEL_ETCD, Cni.CALICO}:
        modules.append("vxlan")
    if cni is Cni.CALICO:
        modules += ["ipip", "xt_set"]
        packages.append("ipset")
        sysctls["net.ipv4.conf.all.forwarding"] = "1"
    origin = _origin(f"proxy mode {proxy.value} and CNI {cni.value} need it")
    return [
        *(KernelModule(phase=Phase.BAKE, origin=origin, name=name) for name in modules),
        *(Package(phase=Phase.BAKE, origin=origin, name=name) for name in dict.fromkeys(packages)),
        *(Sysctl(phase=Phase.BAKE, origin=origin, key=key, value=value) for key, value in sysctls.items()),
    ]
