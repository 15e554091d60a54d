"""What a machine has before imagegen adds anything: users, groups, units of the base system and of packages.

Facts of Debian 12 and 13 (base-passwd, systemd 252 to 257) and of the RPM family; names, never contents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_USERS = _words(
    """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc nobody _apt
    systemd-network systemd-timesync systemd-resolve messagebus
    """
)
_GROUPS = _words(
    """
    root daemon bin sys adm tty disk lp mail news uucp man proxy kmem dialout fax voice cdrom floppy
    tape sudo wheel audio dip www-data backup operator list irc src shadow utmp video sasl plugdev staff
    games users nogroup systemd-journal systemd-network systemd-timesync systemd-resolve crontab input
    kvm render netdev messagebus
    """
)
#: users that a package creates, each with a group of the same name
_PACKAGE_USERS = {
    "chrony": ("_chrony", "chrony"),
    "haproxy": ("haproxy",),
    "openssh-server": ("sshd", "_ssh", "ssh"),
    "tcpdump": ("tcpdump",),
}
_UNITS = _words(
    """
    basic.target bluetooth.target boot-complete.target cloud-config.service cloud-config.target
    cloud-final.service cloud-init.service cloud-init.target cloud-init-local.service
    cloud-init-network.service cryptsetup.target ctrl-alt-del.target dbus.service dbus.socket
    default.target emergency.service emergency.target final.target getty.target getty@.service
    graphical.target halt.target hibernate.target initrd.target kexec.target kmod-static-nodes.service
    local-fs-pre.target local-fs.target logrotate.service logrotate.timer machine.slice
    multi-user.target network-online.target network-pre.target network.target nss-lookup.target
    nss-user-lookup.target paths.target poweroff.target reboot.target remote-fs-pre.target
    remote-fs.target rescue.service rescue.target rpcbind.target serial-getty@.service shutdown.target
    sigpwr.target slices.target sockets.target swap.target sysinit.target syslog.service syslog.socket
    system.slice systemd-binfmt.service systemd-coredump.socket systemd-coredump@.service
    systemd-growfs@.service systemd-hostnamed.service systemd-journald.service systemd-journald.socket
    systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-logind.service
    systemd-modules-load.service systemd-networkd.service systemd-networkd-wait-online.service
    systemd-pstore.service systemd-random-seed.service systemd-resolved.service systemd-sysctl.service
    systemd-sysusers.service systemd-timesyncd.service systemd-tmpfiles-setup.service
    systemd-udev-settle.service systemd-udev-trigger.service systemd-udevd.service
    systemd-update-utmp.service systemd-user-sessions.service time-set.target time-sync.target
    timers.target apt-daily.service apt-daily.timer apt-daily-upgrade.service apt-daily-upgrade.timer
    dpkg-db-backup.timer e2scrub_all.timer fstrim.service fstrim.timer man-db.timer motd-news.timer
    unattended-upgrades.service firewalld.service dnf-makecache.timer umount.target user.slice
    sshd.service sshd.socket cron.service rsyslog.service polkit.service debug-shell.service ufw.service
    console-getty.service container-getty@.service snapd.service snapd.socket multipathd.service
    iscsid.service
    """
)
_PACKAGE_UNITS = {
    "chrony": ("chrony.service", "chronyd.service", "chrony-wait.service", "chronyd-restricted.service"),
    **dict.fromkeys(("docker.io", "docker-ce"), ("docker.service", "docker.socket", "containerd.service")),
    "docker-engine": ("docker.service",),
    "haproxy": ("haproxy.service",),
    "nftables": ("nftables.service",),
    "openssh-server": ("ssh.service", "ssh.socket", "sshd.service", "sshd-keygen.target"),
}
#: suffixes whose units the system makes by itself (mounts and swaps of fstab, devices of udev)
_GENERATED = (".mount", ".swap", ".device", ".automount")

#: units that imagegen makes on some set of roles; naming them in ``After=`` or ``Before=`` is fine anywhere
OUR_UNITS = _words(
    """
    containerd.service csr-approver.service docker.service etcd.service flanneld.service haproxy.service
    imagegen-await-api.service imagegen-first-boot.service imagegen-flannel-network.service
    kube-apiserver.service
    kube-controller-manager.service
    kube-proxy.service kube-scheduler.service kubelet.service nftables.service chrony.service
    chronyd.service
    """
)


def known_users(packages: Collection[str]) -> frozenset[str]:
    """Users of the base system and of ``packages``."""
    return _USERS | _of_packages(_PACKAGE_USERS, packages)


def known_groups(packages: Collection[str]) -> frozenset[str]:
    """Groups of the base system and of ``packages``."""
    return _GROUPS | _of_packages(_PACKAGE_USERS, packages)


def known_units(packages: Collection[str]) -> frozenset[str]:
    """Units of the base system and of ``packages``."""
    return _UNITS | _of_packages(_PACKAGE_UNITS, packages)


def is_known_unit(name: str, units: Collection[str]) -> bool:
    """Whether ``name`` is among ``units``, an instance of a template there, or made by the system itself."""
    if name in units or name.endswith(_GENERATED) or "%" in name:
        return True
    stem, at, rest = name.partition("@")
    return bool(at) and f"{stem}@.{rest.rpartition('.')[2]}" in units


def _of_packages(table: dict[str, tuple[str, ...]], packages: Iterable[str]) -> frozenset[str]:
    return frozenset(name for package in packages for name in table.get(package, ()))
