"""What is taken out of a golden image last, as data: identities, leftovers of the build, and everything
that logs.

The same list drives the clean-up, the generated image tests and ``imagegen scan``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Action(enum.StrEnum):
    #: the path (a shell pattern below the root) does not exist in an image
    REMOVE = "remove"
    #: the file exists and is empty
    EMPTY = "empty"
    #: an empty file is made when there is none
    CREATE = "create"


@dataclass(frozen=True, slots=True)
class Hygiene:
    action: Action
    pattern: str
    why: str


_R, _E, _C = Action.REMOVE, Action.EMPTY, Action.CREATE

HYGIENE: tuple[Hygiene, ...] = (
    # An empty file, not a missing one: systemd then makes an id on first boot and still sees a first boot
    # (machine-id(5), "First Boot Semantics").
    Hygiene(_C, "etc/machine-id", "every machine makes its own id on first boot"),
    Hygiene(_R, "var/lib/dbus/machine-id", "a second copy of the machine id"),
    Hygiene(_R, "etc/ssh/ssh_host_*", "clones must not share host keys"),
    Hygiene(_R, "var/lib/systemd/random-seed", "a shared seed makes random numbers predictable"),
    Hygiene(
        _R, "var/lib/systemd/credential.secret", "the key of encrypted credentials belongs to one machine"
    ),
    Hygiene(_R, "var/lib/systemd/timers/*", "time stamps of the build machine"),
    Hygiene(_R, "var/lib/cloud", "cloud-init must see its first boot"),
    Hygiene(_R, "var/log/cloud-init*.log", "log of the build"),
    Hygiene(_R, "etc/netplan/50-cloud-init.yaml", "network of another machine"),
    Hygiene(_R, "etc/hostname", "the host name comes with the seed"),
    Hygiene(_R, "etc/resolv.conf.dpkg-*", "leftover of a package"),
    Hygiene(_R, "etc/.resolv.conf.systemd-resolved.bak", "name servers of the build machine"),
    Hygiene(_R, "var/lib/dhcp/*", "leases of another machine"),
    Hygiene(_R, "var/lib/NetworkManager/*", "leases of another machine"),
    Hygiene(_R, "run/systemd/netif/leases/*", "leases of another machine"),
    Hygiene(_R, "var/log/journal/*", "journal of the build"),
    Hygiene(_R, "var/log/apt/*", "log of the build"),
    Hygiene(_R, "var/log/*.log", "log of the build"),
    Hygiene(_R, "var/log/dmesg*", "log of the build"),
    Hygiene(_E, "var/log/wtmp", "logins of the build"),
    Hygiene(_E, "var/log/btmp", "logins of the build"),
    Hygiene(_E, "var/log/lastlog", "logins of the build"),
    Hygiene(_R, "var/lib/apt/lists/*", "package lists age; the machine fetches its own"),
    Hygiene(_R, "var/cache/apt/*", "downloads of the build"),
    Hygiene(_R, "var/cache/debconf/*-old", "backup of a database"),
    Hygiene(_R, "var/cache/man/*", "made again when somebody wants it"),
    # The linker cache holds times of files and is made by ldconfig; its auxiliary twin only speeds ldconfig
    # up.
    Hygiene(_R, "var/cache/ldconfig/aux-cache", "differs between two builds of the same system"),
    Hygiene(_R, "var/lib/dpkg/*-old", "backup of a database"),
    Hygiene(
        _R, "etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid-", "backup of a database"
    ),
    Hygiene(_R, "etc/.pwd.lock", "lock of a finished program"),
    Hygiene(_R, "root/.bash_history root/.ssh root/.cache root/.wget-hsts", "traces of a person"),
    Hygiene(_R, "home/*", "accounts are made on first boot"),
    Hygiene(_R, "tmp/* tmp/.[!.]* var/tmp/*", "temporary files"),
    Hygiene(_R, "etc/apt/apt.conf.d/99mmdebstrap", "setting of the build"),
    Hygiene(_R, "etc/dpkg/dpkg.cfg.d/unsafe-io", "setting of the build"),
    Hygiene(_R, "usr/sbin/policy-rc.d", "services may start on the machine, though not during the build"),
    Hygiene(_R, "var/spool/cron/crontabs/*", "nobody's jobs"),
)


def render_table() -> str:
    """The list as ``customize.sh`` reads it: one ``ACTION PATTERN`` a line."""
    return "".join(f"{entry.action} {entry.pattern}\n" for entry in HYGIENE)
