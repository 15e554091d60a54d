"""The build of golden images, readable from top to bottom: base, packages, role, formats, evidence.

Each step decides itself whether it applies and says so when it does not; each result is a layer of the cache
or a file of the output folder, named by the hash of everything that affects it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from imagegen.backends.ahead import start_ahead
from imagegen.backends.image import bootloader, debianpackages, disk, iso, nodeseed, rootfs, sbom
from imagegen.backends.image.formats import gce, writers
from imagegen.backends.image.imageplan import ImagePlan, list_sources
from imagegen.backends.image.layers import LayerCache, hash_inputs
from imagegen.backends.image.licences import read_licences
from imagegen.backends.image.partitions import plan_layout
from imagegen.backends.image.payload import FindSource, write_payload
from imagegen.backends.output import OutputFolder
from imagegen.model.cluster import DiskFormat
from imagegen.plan.items import File, Origin, Phase
from imagegen.progress import SILENT, Progress
from imagegen.run import Runner, Tool

_ORIGIN = Origin("component image", reason="the disk's own identifiers")
#: the raw disk, in a role's layer
RAW = "disk.raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What every step needs. ``epoch`` is the latest time in any image, in seconds since 1970; ``finished``
    are the layers that this run has made.
    """

    runner: Runner
    cache: LayerCache
    find_source: FindSource
    epoch: int
    progress: Progress = SILENT
    finished: list[str] = field(default_factory=list)

    def make_layer(self, kind: str, key: str, step: str, build: Callable[[Path], None]) -> Path:
        """A layer of the cache, made when it is not there."""
        if found := self.cache.find(kind, key):
            self.progress.skip(step, "cached")
            return found

        def build_and_note(folder: Path) -> None:
            build(folder)
            self.finished.append(step)

        return self.cache.get_or_build(kind, key, build_and_note)


def list_tools(images: Sequence[ImagePlan]) -> tuple[Tool, ...]:
    """The programs that a build of these images starts, each once."""
    tools = [*rootfs.TOOLS, *bootloader.TOOLS, *disk.TOOLS, *nodeseed.TOOLS]
    wanted = {disk_format for image in images for disk_format in image.formats}
    if any(image.has_squashfs for image in images):
        tools.append(iso.MKSQUASHFS)
    if wanted - {DiskFormat.RAW, DiskFormat.GCE, DiskFormat.ISO}:
        tools += writers.TOOLS
    if DiskFormat.GCE in wanted:
        tools += gce.TOOLS
    if DiskFormat.ISO in wanted:
        tools += iso.TOOLS
    return tuple(dict.fromkeys(tools))


def build_base_layer(shop: Workshop, image: ImagePlan) -> Path:
    """The base system that all roles share, as a folder."""

    step = f"base system {image.base.suite}"

    def build(folder: Path) -> None:
        with shop.progress.step(step):
            rootfs.build_base(shop.runner, image.base, folder, epoch=shop.epoch)

    return shop.make_layer("base", image.base_key, step, build)


def build_system_layer(shop: Workshop, image: ImagePlan) -> Path:
    """The base system with the packages of one role, as a folder; that of the base when there are none."""
    step = f"packages {image.role_plan.name}"
    if not image.packages:
        shop.progress.skip(step, "none beyond the base system")
        return build_base_layer(shop, image)

    def build(folder: Path) -> None:
        base = build_base_layer(shop, image)
        with shop.progress.step(step) as under_way:
            under_way.note = " ".join(image.packages)
            rootfs.add_packages(shop.runner, image.base, image.packages, base, folder, epoch=shop.epoch)
            later = folder / rootfs.LISTS
            debianpackages.save_sums(folder, [base / rootfs.LISTS, *([later] if later.exists() else ())])
            later.unlink(missing_ok=True)

    return shop.make_layer("system", image.system_key, step, build)


def build_role_layer(shop: Workshop, image: ImagePlan) -> Path:
    """One role's disk, and what boots it from elsewhere, as a folder."""
    step = f"disk {image.role_plan.name}"

    def build(folder: Path) -> None:
        layout = plan_layout(image.role_key, image.cluster.image.size_mib)
        tar = folder / "payload.tar"
        entries = (*image.payload.entries, *_list_disk_files(layout.root_uuid))
        payload = replace(image.payload, entries=entries)
        written = start_ahead(partial(write_payload, payload, shop.find_source, tar, epoch=shop.epoch))
        system = build_system_layer(shop, image)
        with shop.progress.step(step):
            written.result()
            role = rootfs.RoleSystem(
                suite=image.base,
                payload=tar,
                sysusers=payload.sysusers,
                units=payload.units,
                layout=layout,
                squashfs=image.has_squashfs,
            )
            rootfs.build_role(shop.runner, role, system / rootfs.BASE_TAR, folder, epoch=shop.epoch)
            tar.unlink()
            if image.packages:
                shutil.copyfile(system / debianpackages.SUMS, folder / debianpackages.SUMS)
            else:
                debianpackages.save_sums(folder, [system / rootfs.LISTS])
            disk.complete_disk(shop.runner, layout, folder / RAW, epoch=shop.epoch)

    return shop.make_layer("role", image.role_key, step, build)


def _list_disk_files(root_uuid: str) -> tuple[File, ...]:
    """The two files that name the disk's own identifiers; not part of the Plan because they follow from
    its hash.
    """
    texts = {
        "/boot/grub/grub.cfg": bootloader.write_grub_config(root_uuid),
        "/etc/fstab": f"UUID={root_uuid} / ext4 defaults,errors=remount-ro 0 1\n",
    }
    return tuple(
        File(phase=Phase.BAKE, origin=_ORIGIN, path=path, content=(text,)) for path, text in texts.items()
    )


def build_format(shop: Workshop, image: ImagePlan, disk_format: DiskFormat, role: Path, target: Path) -> None:
    """Write one format to ``target``."""
    step = image.file_name(disk_format)
    with shop.progress.step(step), tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        if disk_format is DiskFormat.ISO:
            files = image.seed.files if image.seed is not None else None
            iso.build_iso(shop.runner, role, image.image_id, target, work, epoch=shop.epoch, seed=files)
            return
        raw = role / RAW
        if image.seed is not None:
            raw = put_seed_in(shop, image, image.seed, raw, work)
        writers.write_format(shop.runner, disk_format, raw, target, work, image, epoch=shop.epoch)


def put_seed_in(shop: Workshop, image: ImagePlan, seed: nodeseed.NodeSeed, raw: Path, work: Path) -> Path:
    """A copy of the role's disk with a node's seed inside, in ``work``: keys do not enter the cache."""
    # formats make files of their own in there, and one of them is called disk.raw
    copy = work / "seeded.raw"
    copy.touch(mode=0o600)
    disk.copy_disk(shop.runner, raw, copy)
    layout = plan_layout(image.role_key, image.cluster.image.size_mib)
    nodeseed.write_seed(shop.runner, seed, copy, layout.root.offset_bytes, work, epoch=shop.epoch)
    return copy


def bill_path(image: ImagePlan) -> str:
    """Where an image's bill of materials lies in OUT; one for all its formats."""
    return f"images/{image.name}.cdx.json"


def bill_key(image: ImagePlan) -> str:
    """The id of a bill's inputs, as the manifest records it."""
    return hash_inputs({"role": image.role_key, "name": image.name, "bill": sbom.VERSION})


def build_bill(shop: Workshop, folder: OutputFolder, image: ImagePlan) -> None:
    """Write the bill of materials beside the image, as ``NAME-ROLES.cdx.json``; one for all its formats."""
    path, key = bill_path(image), bill_key(image)
    if folder.keep(path, key):
        return
    role = build_role_layer(shop, image)
    bill = sbom.Bill(
        name=image.name,
        image_id=image.role_key,
        distribution=image.cluster.image.os.value,
        packages=debianpackages.read_packages(role),
        sources={source: shop.find_source(source) for source in list_sources([image])},
        epoch=shop.epoch,
        licences=read_licences(role / "copyrights.tar"),
    )
    folder.write(path, sbom.emit_bill(bill), inputs=key)
