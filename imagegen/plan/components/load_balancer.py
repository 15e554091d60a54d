"""HAProxy on nodes with role lb: TCP pass-through to the masters that answer /readyz over TLS."""

from __future__ import annotations

from imagegen.emit import emit_unit
from imagegen.kubernetes.apiserver import COMPONENT, SECURE_PORT, limits_anonymous
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.units import UNPRIVILEGED
from imagegen.model.cluster import Cluster, Node, Role
from imagegen.model.systems import SYSTEMS
from imagegen.plan.component import Context
from imagegen.plan.items import Directory, File, Fragment, Origin, Package, Phase, Port, Ref, Unit, UnitState

CA = "/etc/haproxy/cluster-ca.crt"
STATISTICS_PORT = 8404

_ORIGIN = Origin("component load_balancer", reason="spreads API connections over the masters that are ready")

_NOTHING = Fragment()


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    """Every load balancer is the same; the CA is all they know of the cluster's PKI."""
    if Role.LB not in roles:
        return _NOTHING
    path = SYSTEMS[ctx.cluster.image.os].haproxy_config
    return Fragment(
        (
            Package(phase=Phase.BAKE, origin=_ORIGIN, name="haproxy"),
            Directory(phase=Phase.BAKE, origin=_ORIGIN, path="/etc/haproxy"),
            Directory(phase=Phase.BAKE, origin=_ORIGIN, path="/etc/systemd/system/haproxy.service.d"),
            File(
                phase=Phase.BAKE,
                origin=_ORIGIN,
                path="/etc/systemd/system/haproxy.service.d/50-imagegen.conf",
                content=(_render_drop_in(path),),
            ),
            Unit(
                phase=Phase.BAKE,
                origin=_ORIGIN,
                name="haproxy.service",
                content=None,
                state=UnitState.ENABLED,
            ),
            File(
                phase=Phase.BOOT,
                origin=_ORIGIN,
                path=path,
                content=(render_haproxy(ctx.cluster, ctx.gates),),
            ),
            Port(
                phase=Phase.BAKE,
                origin=_ORIGIN,
                first=ctx.cluster.endpoint.port,
                last=ctx.cluster.endpoint.port,
                protocol="tcp",
                purpose="Kubernetes API (load balancer)",
            ),
            File(phase=Phase.BOOT, origin=_ORIGIN, path=CA, content=(Ref("pki/ca.crt", public=True),)),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    """Nothing: load balancers do not differ."""
    return _NOTHING


def _asks_anonymously(cluster: Cluster, gates: Gates) -> bool:
    """Whether the API server tells /readyz to a client without a credential."""
    extra = cluster.kubernetes.extra_args_of(COMPONENT)
    if "anonymous-auth" in extra:
        return extra["anonymous-auth"] == "true"
    return limits_anonymous(gates) and not any(flag.startswith("oidc-") for flag in extra)


def render_haproxy(cluster: Cluster, gates: Gates) -> str:
    """The configuration. Connections are passed through unread; only the health check speaks TLS.

    A master counts when it shows a certificate of the cluster CA for the name ``kubernetes`` and /readyz
    says 200. Two failed checks a second apart take it out; its connections are then closed so that clients
    dial again.
    """
    has_send = SYSTEMS[cluster.image.os].has_http_check_send
    # A server that takes no anonymous requests answers 401 once it serves at all; this sees it die, not
    # become unready.
    codes = "200" if _asks_anonymously(cluster, gates) else "200,401"
    return "\n".join(
        [
            "global",
            "    chroot /var/lib/haproxy",
            "    user haproxy",
            "    group haproxy",
            f"    ssl-default-server-options {_MINIMUM if has_send else _OLD_MINIMUM}",
            "",
            "defaults",
            "    mode tcp",
            "    option clitcpka",
            "    option srvtcpka",
            "    timeout connect 5s",
            "    timeout check 3s",
            # A watch may be silent for long; TCP keep-alive, not these, finds dead peers.
            "    timeout client 1h",
            "    timeout server 1h",
            "    timeout client-fin 30s",
            "    timeout tunnel 24h",
            "",
            "frontend kube-apiserver",
            f"    bind 0.0.0.0:{cluster.endpoint.port}",
            "    default_backend kube-apiservers",
            "",
            "backend kube-apiservers",
            "    balance leastconn",
            *_list_checks(cluster, codes),
            "",
            "frontend statistics",
            "    mode http",
            f"    bind 127.0.0.1:{STATISTICS_PORT}",
            "    timeout client 10s",
            "    stats enable",
            "    stats uri /",
            "",
        ]
    )


_MINIMUM = "ssl-min-ver TLSv1.2"
_OLD_MINIMUM = "force-tlsv12"
_TIMING = "inter 1s downinter 1s fall 2 rise 2 on-marked-down shutdown-sessions"
_CHECK = f"check check-ssl verify required verifyhost kubernetes ca-file {CA}"


def _list_checks(cluster: Cluster, codes: str) -> list[str]:
    """The servers and how each is asked for its health; in words of haproxy 1.5 where 2.2 is not there."""
    servers = [
        f"    server {node.name} {node.address}:{SECURE_PORT}"
        for node in cluster.nodes_with(Role.MASTER)
        if node.address is not None
    ]
    if SYSTEMS[cluster.image.os].has_http_check_send:
        return [
            "    option httpchk",
            "    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host kubernetes",
            f"    http-check expect status {codes}",
            f"    default-server {_TIMING} {_CHECK.replace(' verify', ' check-sni kubernetes verify', 1)}",
            *servers,
        ]
    return [
        "    option httpchk GET /readyz HTTP/1.1\\r\\nHost:\\ kubernetes",
        f"    http-check expect rstatus ^({codes.replace(',', '|')})$",
        f"    default-server {_TIMING}",
        *(f"{server} {_CHECK}" for server in servers),
    ]


def _render_drop_in(path: str) -> str:
    return emit_unit(
        [
            (
                "Unit",
                [
                    ("After", "cloud-config.target"),
                    ("ConditionPathExists", path),
                    ("ConditionPathExists", CA),
                    ("StartLimitIntervalSec", "0"),
                ],
            ),
            (
                "Service",
                [
                    ("Environment", f"CONFIG={path}"),
                    ("RestartSec", "2s"),
                    # haproxy itself finds out how many connections that is good for
                    ("LimitNOFILE", "65536"),
                    *UNPRIVILEGED,
                    # it starts as root, binds, then its worker locks itself in as a user of its own,
                    # which the master must still be able to stop
                    (
                        "CapabilityBoundingSet",
                        "CAP_KILL CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID CAP_SYS_CHROOT",
                    ),
                    ("SystemCallFilter", "@setuid chroot"),
                    ("ReadWritePaths", "/run"),
                ],
            ),
        ]
    )
