"""Everything about a golden image that is known before anything is built: its layers and what names them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagegen.backends.image import bootloader, debianpackages, rootfs
from imagegen.backends.image.hygiene import render_table
from imagegen.backends.image.layers import hash_inputs
from imagegen.backends.image.nodeseed import NodeSeed
from imagegen.backends.image.payload import Entry, Payload, plan_payload
from imagegen.backends.image.sources import Digests, Source
from imagegen.model.cluster import Cluster, DiskFormat
from imagegen.plan.items import Binary, ContainerImage, Package
from imagegen.plan.plan import RolePlan

#: raised when the recipe changes in a way that the hashed inputs do not show
RECIPE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """Everything about one golden image that is known before anything is built; the keys name the layers."""

    cluster: Cluster
    role_plan: RolePlan
    base: rootfs.BaseSystem
    payload: Payload
    formats: tuple[DiskFormat, ...]
    base_key: str
    #: the base with the role's packages; the same as ``base_key`` when there are none
    system_key: str
    #: what the system layer holds beyond the base
    packages: tuple[str, ...]
    #: also the id from which the UUIDs on the disk are derived
    role_key: str
    #: whether the role layer holds what an ISO starts from; the cluster file says so, not ``formats``: one
    #: more of them must find the layer that the others were made from
    has_squashfs: bool
    #: what each layer's key is the hash of, by kind of layer
    inputs: Mapping[str, Mapping[str, object]] = field(repr=False, compare=False)
    #: the one node that this image is for, whose seed is inside; None: an image of all nodes with these roles
    seed: NodeSeed | None = None

    @property
    def name(self) -> str:
        """``quickstart-etcd+master``, or ``quickstart-master-0`` for an image of one node."""
        return f"{self.cluster.name}-{self.role_plan.name if self.seed is None else self.seed.node}"

    @property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """Kind and key of every layer, the lowest first."""
        system = (("system", self.system_key),) if self.packages else ()
        return (("base", self.base_key), *system, ("role", self.role_key))

    @property
    def image_id(self) -> str:
        """From which identifiers outside of the disk are derived; two images never have the same."""
        return self.role_key if self.seed is None else _hash_seed(self.role_key, self.seed)

    def file_name(self, disk_format: DiskFormat) -> str:
        """``NAME.qcow2``; for Compute Engine ``NAME.gce.tar.gz``."""
        extension = "gce.tar.gz" if disk_format is DiskFormat.GCE else disk_format.value
        return f"{self.name}.{extension}"


def _hash_seed(key: str, seed: NodeSeed) -> str:
    return hash_inputs({"image": key, "node": seed.node, "seed": seed.digest})


def plan_image(
    cluster: Cluster,
    role_plan: RolePlan,
    base_packages: Iterable[str],
    formats: tuple[DiskFormat, ...],
    *,
    digests: Digests,
    epoch: int,
    seed: NodeSeed | None = None,
) -> ImagePlan:
    """Work out the layers of one golden image; pure. ``base_packages`` are what every role's base layer
    holds; ``seed`` makes it the image of one node.
    """
    base = rootfs.BaseSystem(
        os=cluster.image.os, packages=tuple(sorted(base_packages)), snapshot=cluster.image.snapshot
    )
    common = {"recipe": RECIPE, "epoch": epoch, "suite": base.suite, "hygiene": render_table()}
    of_base = {
        **common,
        "packages": base.packages,
        "snapshot": base.snapshot or "latest",
        "prepare": _hash_file(rootfs.PREPARE),
    }
    base_key = hash_inputs(of_base)
    payload = plan_payload(role_plan.items)
    packages = tuple(name for name in payload.packages if name not in base.packages)
    of_system = {**common, "base": base_key, "packages": packages, "sums": debianpackages.VERSION}
    system_key = hash_inputs(of_system) if packages else base_key
    has_squashfs = DiskFormat.ISO in cluster.image.formats
    entries = [_describe(entry, digests) for entry in payload.entries]
    of_role = {
        **common,
        "system": system_key,
        "sysusers": payload.sysusers,
        "units": payload.units,
        "customize": _hash_file(rootfs.CUSTOMIZE),
        "entries": entries,
        "size_mib": cluster.image.size_mib,
        "squashfs": has_squashfs,
        "arguments": bootloader.KERNEL_ARGUMENTS,
        "sums": debianpackages.VERSION,
    }
    role_key = hash_inputs(of_role)
    named = {_name_entry(entry): text for entry, text in zip(payload.entries, entries, strict=True)}
    inputs = {"base": of_base, "role": {**of_role, "entries": named}}
    if packages:
        inputs["system"] = of_system
    return ImagePlan(
        cluster=cluster,
        role_plan=role_plan,
        base=base,
        payload=payload,
        formats=formats,
        base_key=base_key,
        system_key=system_key,
        packages=packages,
        role_key=role_key,
        has_squashfs=has_squashfs,
        inputs=inputs,
        seed=seed,
    )


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _describe(entry: Entry, digests: Digests) -> str:
    """An entry for hashing: every field but its origin, and the sum of what it brings."""
    fields = [(f.name, getattr(entry, f.name)) for f in dataclasses.fields(entry) if f.name != "origin"]
    source = digests.of(entry) if isinstance(entry, Binary | ContainerImage) else ""
    return repr((type(entry).__name__, fields, source))


def _name_entry(entry: Entry) -> str:
    return entry.reference if isinstance(entry, ContainerImage) else entry.path


def format_key(image: ImagePlan, disk_format: DiskFormat) -> str:
    """The id of a format's inputs, as the manifest records it."""
    inputs: dict[str, object] = {
        "image": image.image_id,
        "format": disk_format.value,
        "name": image.cluster.name,
        "recipe": RECIPE,
    }
    if disk_format is DiskFormat.OVA:
        wanted = image.cluster.image
        inputs["machine"] = [wanted.cpus, wanted.memory_mib, *wanted.firmware]
        inputs["kubernetes"] = str(image.cluster.kubernetes.version)
    return hash_inputs(inputs)


def list_base_packages(role_plan: RolePlan) -> tuple[str, ...]:
    """The packages of the plan for role ``base``: what every image's base layer holds."""
    return tuple(sorted(item.name for item in role_plan.items if isinstance(item, Package)))


def list_sources(images: Iterable[ImagePlan]) -> tuple[Source, ...]:
    """Every executable and container image that some golden image holds."""
    entries = (entry for image in images for entry in image.payload.entries)
    return tuple(dict.fromkeys(entry for entry in entries if isinstance(entry, Binary | ContainerImage)))
