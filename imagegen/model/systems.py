"""What differs between the operating systems: kernels, versions of daemons, names of packages and files.

Data only, and the one place for it: whoever needs a fact asks the table and does not ask for the family.
Sources: the distributions' own packages and image builds (Oracle's oracle-linux-image-tools, RHEL 7's systemd
219 and its sshd 7.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from imagegen.model.cluster import OperatingSystem, Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A package repository that the system leaves switched off; its own files use another name."""

    name: str
    title: str
    url: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFacts:
    """One release as its cloud image is.

    ``kernel`` is the oldest that it boots, ``cgroup`` the version that it boots with, ``cloud_init`` major
    and minor. ``packages``: from the names that components use (Debian's) to those here, None for nothing.
    """

    kernel: tuple[int, int]
    cgroup: int
    systemd: int
    cloud_init: tuple[int, int]
    time_pool: str
    #: its ``iptables`` writes nftables rules (iptables 1.8 and newer, by default)
    has_iptables_nft: bool = True
    ssh_unit: str = "ssh.service"
    #: sorted before cloud-init's 50-cloud-init.conf, because sshd keeps the first value that it reads;
    #: before OpenSSH 8.2, which has no drop-ins, the one file is ours
    sshd_config: str = "/etc/ssh/sshd_config.d/00-imagegen.conf"
    sshd_head: tuple[str, ...] = ()
    time_unit: str = "chrony.service"
    time_config: str = "/etc/chrony/chrony.conf"
    time_user: str = "_chrony"
    #: chrony reads time servers of DHCP out of a folder (``sourcedir``, chrony 4.0)
    has_time_folder: bool = True
    #: the file with the real name servers: where systemd-resolved runs, its own list
    resolv_conf: str = "/run/systemd/resolve/resolv.conf"
    #: kernel, network (networkd) and cloud-init of golden images are of our choosing, not the installer's
    has_own_base: bool = True
    #: apart from the package's own haproxy.cfg, so that installing it never asks whose file it is; before
    #: haproxy 2.0 the unit knows no other
    haproxy_config: str = "/etc/haproxy/imagegen.cfg"
    #: haproxy 2.2: ``http-check send``, and options of checks for all servers at once
    has_http_check_send: bool = True
    #: its OpenSSL, which our programs speak with, is 1.1.1 or newer
    has_tls_1_3: bool = True
    #: nft knows names of priorities (0.9.1)
    has_named_priorities: bool = True
    #: the file that says what SELinux does; None where there is none
    selinux: str | None = None
    #: what runs our programs, which need Python 3.8
    python: str = "/usr/bin/python3"
    #: a software collection with its own Python, when the system's is too old: its prefix
    python_prefix: str | None = None
    packages: Mapping[str, str | None] = field(default_factory=dict)
    repositories: tuple[Repository, ...] = ()
    #: where Docker comes from, when none of the others has it
    docker_repository: Repository | None = None

    def list_repositories(self, runtime: Runtime) -> tuple[Repository, ...]:
        """What has to be switched on for this container runtime."""
        docker = self.docker_repository if runtime is Runtime.DOCKER else None
        return (*self.repositories, *([docker] if docker is not None else []))

    @property
    def has_resolved(self) -> bool:
        """systemd-resolved asks the name servers, and does so for names without a dot when told (246)."""
        return self.resolv_conf.startswith("/run/systemd/resolve/")

    @property
    def defers_files(self) -> bool:
        """``write_files`` knows ``defer``: files of users that do not exist yet (cloud-init 21.4)."""
        return self.cloud_init >= (21, 4)


#: RHEL 9 and its relatives
_RPM = SystemFacts(
    kernel=(5, 14),
    cgroup=2,
    systemd=252,
    cloud_init=(23, 4),
    time_pool="pool.ntp.org",
    ssh_unit="sshd.service",
    time_unit="chronyd.service",
    time_config="/etc/chrony.conf",
    time_user="chrony",
    resolv_conf="/etc/resolv.conf",
    has_own_base=False,
    selinux="/etc/selinux/config",
    packages={"python3-yaml": "python3-pyyaml", "conntrack": "conntrack-tools"},
)

SYSTEMS: Mapping[OperatingSystem, SystemFacts] = {
    OperatingSystem.DEBIAN_12: SystemFacts(
        kernel=(6, 1), cgroup=2, systemd=252, cloud_init=(22, 4), time_pool="2.debian.pool.ntp.org"
    ),
    OperatingSystem.DEBIAN_13: SystemFacts(
        kernel=(6, 12), cgroup=2, systemd=257, cloud_init=(25, 1), time_pool="2.debian.pool.ntp.org"
    ),
    OperatingSystem.UBUNTU_2204: SystemFacts(
        kernel=(5, 15), cgroup=2, systemd=249, cloud_init=(22, 1), time_pool="2.ubuntu.pool.ntp.org"
    ),
    OperatingSystem.UBUNTU_2404: SystemFacts(
        kernel=(6, 8), cgroup=2, systemd=255, cloud_init=(24, 1), time_pool="2.ubuntu.pool.ntp.org"
    ),
    OperatingSystem.ORACLELINUX_7: replace(
        _RPM,
        kernel=(3, 10),
        cgroup=1,
        systemd=219,
        has_iptables_nft=False,
        cloud_init=(19, 4),
        sshd_config="/etc/ssh/sshd_config",
        sshd_head=("UsePAM yes", "Subsystem sftp /usr/libexec/openssh/sftp-server"),
        has_time_folder=False,
        has_tls_1_3=False,
        has_named_priorities=False,
        haproxy_config="/etc/haproxy/haproxy.cfg",
        has_http_check_send=False,
        # the system's own is 3.6; the one of the software collections lies apart
        python="/usr/local/lib/imagegen/python3",
        python_prefix="/opt/rh/rh-python38/root/usr",
        packages={
            "python3": "rh-python38-python",
            "python3-yaml": "rh-python38-PyYAML",
            "python3-cryptography": "rh-python38-python-cryptography",
            "conntrack": "conntrack-tools",
        },
        repositories=(
            Repository(
                name="imagegen_ol7_addons",
                title="Add-ons for Oracle Linux 7, with docker-engine",
                url="https://yum.oracle.com/repo/OracleLinux/OL7/addons/$basearch/",
                key="file:///etc/pki/rpm-gpg/RPM-GPG-KEY-oracle",
            ),
            Repository(
                name="imagegen_ol7_software_collections",
                title="Software collections for Oracle Linux 7",
                url="https://yum.oracle.com/repo/OracleLinux/OL7/SoftwareCollections/$basearch/",
                key="file:///etc/pki/rpm-gpg/RPM-GPG-KEY-oracle",
            ),
        ),
    ),
    OperatingSystem.ORACLELINUX_9: replace(
        _RPM,
        docker_repository=Repository(
            name="imagegen_docker",
            title="Docker",
            url="https://download.docker.com/linux/rhel/9/$basearch/stable",
            key="https://download.docker.com/linux/rhel/gpg",
        ),
    ),
}
