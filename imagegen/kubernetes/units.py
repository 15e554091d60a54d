"""The systemd unit of a daemon: ordering, restarts, resources and a sandbox as tight as the daemon bears.

Directives: systemd.unit(5), systemd.exec(5), systemd.resource-control(5) of systemd 252.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from imagegen.emit import emit_unit

Directives = tuple[tuple[str, str], ...]

#: what a sandbox of any of our units keeps from the program: the kernel's own state, ...
KERNEL: Directives = (
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
)
#: ... more rights than it has, ...
RIGHTS: Directives = (
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
)
#: ... other code than its own
CODE: Directives = (
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("KeyringMode", "private"),
    ("SystemCallArchitectures", "native"),
)

#: for an unprivileged daemon that talks over the network and writes only its own directories
UNPRIVILEGED: Directives = (
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("DevicePolicy", "closed"),
    *KERNEL,
    ("ProtectKernelTunables", "yes"),
    ("ProtectProc", "invisible"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_NETLINK AF_UNIX"),
    *RIGHTS,
    ("RemoveIPC", "yes"),
    *CODE,
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged"),
    # the API server gives a rotated audit log the owner of the old one, which is itself
    ("SystemCallFilter", "@chown"),
    ("SystemCallErrorNumber", "EPERM"),
    ("UMask", "0077"),
)

#: for kube-proxy: root without most of its powers, because the packet filter and /proc/sys/net belong to root
NETWORK_ROOT: Directives = (
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", "CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_RESOURCE"),
    ("ProtectSystem", "full"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("DevicePolicy", "closed"),
    *KERNEL,
    ("ProtectProc", "invisible"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_NETLINK AF_UNIX"),
    *RIGHTS,
    *CODE,
    ("SystemCallFilter", "@system-service"),
    ("SystemCallErrorNumber", "EPERM"),
    ("UMask", "0077"),
)

#: what every daemon waits for: the seed's files, the network, a clock that is right
_BASE_AFTER = ("network-online.target", "cloud-config.target", "time-sync.target")
_BASE_WANTS = ("network-online.target", "time-sync.target")


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """What sets one daemon's unit apart. ``exec_start`` is a complete value (``arguments.emit_exec_start``).

    ``needs`` are files without which the unit is passed over: a golden image that boots without its seed
    stays quiet instead of failing. ``user`` None means root.
    """

    description: str
    documentation: str
    exec_start: str
    type: str
    user: str | None = None
    after: tuple[str, ...] = ()
    #: started beside this one. Not ``Requires=``: a first start of theirs that fails would end ours for good
    wants: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    environment_files: tuple[str, ...] = ()
    service: Directives = ()
    resources: Directives = ()
    sandbox: Directives = ()
    restart_seconds: int = 5
    wanted_by: str | None = "multi-user.target"
    unit: Directives = field(default=())


def emit_daemon_unit(daemon: Daemon) -> str:
    """The text of the unit. It restarts for ever: no limit of starts can leave a node without its daemon."""
    head = [
        ("Description", daemon.description),
        ("Documentation", daemon.documentation),
        ("Wants", " ".join((*_BASE_WANTS, *daemon.wants))),
        ("After", " ".join((*_BASE_AFTER, *daemon.after))),
    ]
    head += [("ConditionPathExists", path) for path in daemon.needs]
    head += [*daemon.unit, ("StartLimitIntervalSec", "0")]
    service = [("Type", daemon.type)]
    if daemon.user is not None:
        service += [("User", daemon.user), ("Group", daemon.user)]
    service += [("EnvironmentFile", path) for path in daemon.environment_files]
    service += [
        ("ExecStart", daemon.exec_start),
        ("Restart", "always"),
        ("RestartSec", str(daemon.restart_seconds)),
        *daemon.service,
        *daemon.resources,
        *daemon.sandbox,
    ]
    sections = [("Unit", head), ("Service", service)]
    if daemon.wanted_by is not None:
        sections.append(("Install", [("WantedBy", daemon.wanted_by)]))
    return emit_unit(sections)
