"""What Packer needs to know about each operating system: where its images are, how its installer is driven.

Facts of the distributions' own download sites and installers; each may be overridden by a variable.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from imagegen.model.cluster import OperatingSystem


class Installer(enum.StrEnum):
    PRESEED = "preseed"
    AUTOINSTALL = "autoinstall"
    KICKSTART = "kickstart"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One distribution release. Checksums are in Packer's form: ``file:URL`` of the list on the site."""

    cloud_image: str
    cloud_checksum: str
    iso: str
    iso_checksum: str
    installer: Installer
    #: what the installer looks for: the CD's label, and the files on it
    label: str
    files: tuple[str, ...]
    boot_command: tuple[str, ...]
    virtualbox_type: str
    vmware_type: str
    gce_project: str
    gce_family: str
    #: of the packages that Anaconda installs
    environment: str = ""


_HTTP = "http://{{ .HTTPIP }}:{{ .HTTPPort }}"
_PRESEED = (
    "<esc><wait>",
    f"install auto=true priority=critical url={_HTTP}/preseed.cfg hostname=build domain= ",
    "console=tty0 console=ttyS0,115200 --- <enter>",
)
# Subiquity finds the CD labelled cidata by itself; `autoinstall` answers its only question.
_AUTOINSTALL = (
    "<wait>c<wait>",
    "linux /casper/vmlinuz autoinstall ds=nocloud console=tty0 console=ttyS0,115200 ---<enter><wait>",
    "initrd /casper/initrd<enter><wait>",
    "boot<enter>",
)
# Anaconda reads ks.cfg from a volume labelled OEMDRV by itself; naming it makes a missing one an error.
_KICKSTART = (
    "<up><wait><tab><wait>",
    " inst.text inst.ks=hd:LABEL=OEMDRV:/ks.cfg console=tty0 console=ttyS0,115200<enter>",
)


def _debian(number: int, codename: str, iso: str) -> System:
    images = f"https://cloud.debian.org/images/cloud/{codename}/latest"
    isos = "https://cdimage.debian.org/cdimage/archive"
    return System(
        # "generic", not "genericcloud": it runs on hypervisors that show other devices than virtio, too
        cloud_image=f"{images}/debian-{number}-generic-amd64.qcow2",
        cloud_checksum=f"file:{images}/SHA512SUMS",
        iso=f"{isos}/{iso}/amd64/iso-cd/debian-{iso}-amd64-netinst.iso",
        iso_checksum=f"file:{isos}/{iso}/amd64/iso-cd/SHA512SUMS",
        installer=Installer.PRESEED,
        label="PRESEED",
        files=("preseed.cfg",),
        boot_command=_PRESEED,
        virtualbox_type="Debian_64",
        vmware_type="debian12-64",
        gce_project="debian-cloud",
        gce_family=f"debian-{number}",
    )


def _ubuntu(release: str, codename: str, point: str) -> System:
    images = f"https://cloud-images.ubuntu.com/releases/{codename}/release"
    isos = f"https://releases.ubuntu.com/{release}"
    return System(
        cloud_image=f"{images}/ubuntu-{release}-server-cloudimg-amd64.img",
        cloud_checksum=f"file:{images}/SHA256SUMS",
        iso=f"{isos}/ubuntu-{point}-live-server-amd64.iso",
        iso_checksum=f"file:{isos}/SHA256SUMS",
        installer=Installer.AUTOINSTALL,
        label="cidata",
        files=("user-data", "meta-data"),
        boot_command=_AUTOINSTALL,
        virtualbox_type="Ubuntu_64",
        vmware_type="ubuntu-64",
        gce_project="ubuntu-os-cloud",
        gce_family=f"ubuntu-{release.replace('.', '')}-lts" + ("-amd64" if release >= "24" else ""),
    )


def _oracle(
    release: int,
    *,
    cloud: tuple[str, str],
    iso: tuple[str, str],
    vmware_type: str,
    gce: tuple[str, str],
    environment: str,
) -> System:
    """Oracle publishes sums in prose, so each image comes with the one read there."""
    base = "https://yum.oracle.com"
    return System(
        cloud_image=f"{base}/templates/OracleLinux/OL{release}/{cloud[0]}",
        cloud_checksum=cloud[1],
        iso=f"{base}/ISOS/OracleLinux/OL{release}/{iso[0]}",
        iso_checksum=iso[1],
        installer=Installer.KICKSTART,
        label="OEMDRV",
        files=("ks.cfg",),
        boot_command=_KICKSTART,
        virtualbox_type="Oracle_64",
        vmware_type=vmware_type,
        gce_project=gce[0],
        gce_family=gce[1],
        environment=environment,
    )


SYSTEMS: Mapping[OperatingSystem, System] = {
    OperatingSystem.DEBIAN_12: _debian(12, "bookworm", "12.12.0"),
    OperatingSystem.DEBIAN_13: _debian(13, "trixie", "13.2.0"),
    OperatingSystem.UBUNTU_2204: _ubuntu("22.04", "jammy", "22.04.5"),
    OperatingSystem.UBUNTU_2404: _ubuntu("24.04", "noble", "24.04.3"),
    OperatingSystem.ORACLELINUX_7: _oracle(
        7,
        cloud=("u9/x86_64/OL7U9_x86_64-kvm-b145.qcow", ""),
        iso=("u9/x86_64/OracleLinux-R7-U9-Server-x86_64-dvd.iso", ""),
        vmware_type="oraclelinux7-64",
        gce=("", ""),
        environment="minimal",
    ),
    OperatingSystem.ORACLELINUX_9: _oracle(
        9,
        cloud=("u6/x86_64/OL9U6_x86_64-kvm-b265.qcow2", ""),
        iso=("u6/x86_64/OracleLinux-R9-U6-x86_64-dvd.iso", ""),
        vmware_type="oraclelinux9-64",
        gce=("oracle-linux-cloud", "oracle-linux-9"),
        environment="minimal-environment",
    ),
}
