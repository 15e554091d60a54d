"""What makes a golden image a machine: kernel, cloud-init and its data sources, network, for the chosen
targets.

A stock cloud image has all this already, so in that mode there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator

from imagegen.emit import emit_unit, emit_yaml
from imagegen.model.cluster import (
    Cluster,
    DiskFormat,
    ImageMode,
    ImagePki,
    Node,
    OperatingSystem,
    Role,
    Target,
)
from imagegen.model.systems import SYSTEMS
from imagegen.plan.component import Context
from imagegen.plan.items import File, Fragment, Item, Origin, Package, Phase, Symlink, Unit, UnitState

_NOTHING = Fragment()

#: eth0, ens3, enp0s3, eno1; never the interfaces that a CNI plug-in makes (cni0, cali…, flannel.1, veth…)
ANY_ETHERNET = "e*"

_PACKAGES = (
    ("systemd-sysv", "the init system"),
    ("udev", "devices get their names"),
    ("initramfs-tools", "the kernel finds its root file system"),
    ("zstd", "the initial RAM disk is packed with it"),
    ("e2fsprogs", "the root file system is checked and grows on first boot"),
    ("cloud-guest-utils", "growpart: the root partition grows on first boot"),
    ("cloud-init", "the seed is read on first boot"),
    ("systemd-resolved", "name servers of DHCP and of the seed end in one place"),
)

#: The cloud kernel has virtio and Compute Engine's devices only; other hypervisors show SATA, LSI and E1000.
_CLOUD_KERNEL_TARGETS = frozenset({Target.QEMU, Target.GCE})

_KERNELS = {
    ("debian", True): "linux-image-cloud-amd64",
    ("debian", False): "linux-image-amd64",
    ("ubuntu", True): "linux-image-virtual",
    ("ubuntu", False): "linux-image-generic",
}

#: Which data sources cloud-init asks, by target; ds-identify reads one-line lists only.
_DATA_SOURCES = {
    Target.QEMU: ("NoCloud",),
    Target.VIRTUALBOX: ("NoCloud",),
    Target.VMWARE: ("NoCloud", "VMware", "OVF"),
    Target.GCE: ("GCE",),
}

# Modules that a node needs, in cloud-init's own order; leaving the rest out saves nine seconds of a boot in
# emulation.
_MODULES: dict[str, tuple[str, ...]] = {
    "cloud_init_modules": (
        "seed_random", "bootcmd", "write_files", "growpart", "resizefs", "disk_setup", "mounts",
        "set_hostname", "update_hostname", "ca_certs", "users_groups", "ssh",
    ),
    # not set_passwords: there are none, and it restarts the SSH server to say so
    "cloud_config_modules": ("timezone", "runcmd"),
    "cloud_final_modules": (
        "write_files_deferred", "scripts_per_boot", "scripts_per_instance", "scripts_user",
        "ssh_authkey_fingerprints", "final_message",
    ),
}  # fmt: skip


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    cluster = ctx.cluster
    if cluster.image.mode is not ImageMode.GOLDEN or not SYSTEMS[cluster.image.os].has_own_base:
        return _NOTHING
    return Fragment((*_plan_packages(cluster), *_plan_cloud_init(cluster), *_plan_network()))


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _origin(reason: str) -> Origin:
    return Origin("component platform", reason=reason)


def _plan_packages(cluster: Cluster) -> Iterator[Item]:
    for name, reason in _PACKAGES:
        # there, it is part of systemd
        if (cluster.image.os, name) != (OperatingSystem.UBUNTU_2204, "systemd-resolved"):
            yield Package(phase=Phase.BAKE, origin=_origin(reason), name=name)
    is_cloud = _CLOUD_KERNEL_TARGETS.issuperset(cluster.targets)
    vendor = cluster.image.os.value.partition("-")[0]
    yield Package(
        phase=Phase.BAKE, origin=_origin("the kernel for these targets"), name=_KERNELS[vendor, is_cloud]
    )
    if Target.VMWARE in cluster.targets:
        reason = "cloud-init reads guestinfo with it, and vSphere sees the machine's addresses"
        yield Package(phase=Phase.BAKE, origin=_origin(reason), name="open-vm-tools")
    if DiskFormat.ISO in cluster.image.formats:
        reason = "the initial RAM disk can start from read-only media"
        yield Package(phase=Phase.BAKE, origin=_origin(reason), name="live-boot")
    for name in cluster.image.packages:
        where = cluster.span_of("image.packages")
        origin = Origin(where.file, where.line, "image.packages") if where else _origin("image.packages")
        yield Package(phase=Phase.BAKE, origin=origin, name=name)


def list_data_sources(cluster: Cluster) -> tuple[str, ...]:
    """cloud-init's data sources for the cluster's targets; ``None`` last lets a machine without a seed
    boot. With ``image.pki: baked`` the seed is in the image, and no platform is asked.
    """
    if cluster.image.pki is ImagePki.BAKED:
        return ("NoCloud", "None")
    wanted = [source for target in cluster.targets for source in _DATA_SOURCES[target]]
    return (*dict.fromkeys(wanted), "None")


def _plan_cloud_init(cluster: Cluster) -> Iterator[Item]:
    sources = ", ".join(list_data_sources(cluster))
    # Written by hand because ds-identify(8) does not read YAML: the list must be on one line.
    yield _file(
        "/etc/cloud/cloud.cfg.d/90-imagegen-sources.cfg",
        f"datasource_list: [{sources}]\n",
        "no other source of configuration is believed",
    )
    if cluster.image.pki is ImagePki.BAKED:
        yield _file(
            "/etc/cloud/cloud.cfg.d/92-imagegen-seed.cfg",
            emit_yaml({"datasource": {"NoCloud": {"fs_label": None}}}),
            "the seed is in the image; a disk that somebody attaches must not replace it",
        )
    yield _file(
        "/etc/cloud/cloud.cfg.d/91-imagegen-modules.cfg",
        emit_yaml(
            {
                **{stage: list(modules) for stage, modules in _MODULES.items()},
                # A new network card must not rewrite the network under a running pod network.
                "updates": {"network": {"when": ["boot-new-instance"]}},
                "disable_root": True,
                # straight to networkd: netplan would reload systemd in the middle of a first boot
                "system_info": {"network": {"renderers": ["networkd"]}},
                "users": [],
            }
        ),
        "only the modules that a node needs run; nothing changes when hardware is plugged in",
    )


def _plan_network() -> Iterator[Item]:
    why = "the network comes from the seed, through cloud-init and networkd"
    for name in ("systemd-networkd.service", "systemd-resolved.service"):
        yield Unit(phase=Phase.BAKE, origin=_origin(why), name=name, content=None, state=UnitState.ENABLED)
    yield _file(
        DROP_IN,
        emit_unit([(section, list(keys.items())) for section, keys in _LEFT_OUT.items()]),
        "no waiting for link-local addresses; leases follow the hardware address",
    )
    yield Symlink(
        phase=Phase.BAKE,
        origin=_origin("programs ask resolved"),
        path="/etc/resolv.conf",
        target="/run/systemd/resolve/stub-resolv.conf",
    )


#: what cloud-init's renderer leaves out of the seed's network-config, beside the file that it makes of it
DROP_IN = f"/etc/systemd/network/10-cloud-init-{ANY_ETHERNET}.network.d/10-imagegen.conf"
_LEFT_OUT = {
    "Network": {"LinkLocalAddressing": "no", "IPv6AcceptRA": "no"},
    "DHCPv4": {"ClientIdentifier": "mac"},
}


def _file(path: str, text: str, reason: str) -> File:
    return File(phase=Phase.BAKE, origin=_origin(reason), path=path, content=(text,))
