"""The build of golden images, readable from top to bottom: base, role, disk, formats, evidence.

Each step decides itself whether it applies and says so when it does not; each result is a layer of the cache
or a file of the output folder, named by the hash of everything that affects it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from imagegen.backends.image import bootloader, disk, iso, nodeseed, rootfs, sbom
from imagegen.backends.image.formats import gce, writers
from imagegen.backends.image.imageplan import ImagePlan, format_key, list_sources
from imagegen.backends.image.layers import LayerCache, hash_inputs
from imagegen.backends.image.partitions import plan_layout
from imagegen.backends.image.payload import FindSource, Payload, write_payload
from imagegen.backends.output import OutputFolder
from imagegen.model.cluster import DiskFormat
from imagegen.plan.items import File, Origin, Phase
from imagegen.progress import SILENT, Progress
from imagegen.run import Runner, Tool, require_tools

_ORIGIN = Origin("component image", reason="the disk's own identifiers")
_RAW = "disk.raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What every step needs. ``epoch`` is the latest time in any image, in seconds since 1970."""

    runner: Runner
    cache: LayerCache
    find_source: FindSource
    epoch: int
    progress: Progress = SILENT


def list_tools(formats: Iterable[DiskFormat]) -> tuple[Tool, ...]:
    """The programs that a build of these formats starts, images with a node's seed inside included."""
    tools = [*rootfs.TOOLS, *bootloader.TOOLS, *disk.TOOLS, *nodeseed.TOOLS]
    wanted = set(formats)
    if wanted - {DiskFormat.RAW, DiskFormat.GCE, DiskFormat.ISO}:
        tools += writers.TOOLS
    if DiskFormat.GCE in wanted:
        tools += gce.TOOLS
    if DiskFormat.ISO in wanted:
        tools += iso.TOOLS
    return tuple(tools)


def build_base_layer(shop: Workshop, image: ImagePlan) -> Path:
    """The base system that all roles share, as ``base.tar``."""

    def build(folder: Path) -> None:
        with shop.progress.step(f"base system {image.base.suite}"):
            rootfs.build_base(shop.runner, image.base, folder / "base.tar", epoch=shop.epoch)

    if shop.cache.find("base", image.base_key):
        shop.progress.skip(f"base system {image.base.suite}", "cached")
    return shop.cache.get_or_build("base", image.base_key, build) / "base.tar"


def build_system_layer(shop: Workshop, image: ImagePlan) -> Path:
    """The base system with the packages of one role, as ``base.tar``; the base itself when there are none."""
    if not image.packages:
        shop.progress.skip(f"packages {image.role_plan.name}", "none beyond the base system")
        return build_base_layer(shop, image)

    def build(folder: Path) -> None:
        base_tar = build_base_layer(shop, image)
        with shop.progress.step(f"packages {image.role_plan.name}") as step:
            step.note = " ".join(image.packages)
            tar = folder / "base.tar"
            rootfs.add_packages(shop.runner, image.base, image.packages, base_tar, tar, epoch=shop.epoch)

    if shop.cache.find("system", image.system_key):
        shop.progress.skip(f"packages {image.role_plan.name}", "cached")
    return shop.cache.get_or_build("system", image.system_key, build) / "base.tar"


def build_role_layer(shop: Workshop, image: ImagePlan) -> Path:
    """One role's root file system and what boots it, as a folder."""
    step = f"root file system {image.role_plan.name}"

    def build(folder: Path) -> None:
        layout = plan_layout(image.role_key, image.cluster.image.size_mib)
        system_tar = build_system_layer(shop, image)
        with shop.progress.step(step):
            tar = folder / "payload.tar"
            entries = (*image.payload.entries, *_list_disk_files(layout.root_uuid))
            payload = Payload(
                packages=image.payload.packages,
                sysusers=image.payload.sysusers,
                units=image.payload.units,
                entries=entries,
            )
            write_payload(payload, shop.find_source, tar, epoch=shop.epoch)
            role = rootfs.RoleSystem(
                suite=image.base,
                payload=tar,
                sysusers=payload.sysusers,
                units=payload.units,
                root_uuid=layout.root_uuid,
                root_bytes=layout.root.size_bytes,
                squashfs=DiskFormat.ISO in image.formats,
            )
            rootfs.build_role(shop.runner, role, system_tar, folder, epoch=shop.epoch)
            tar.unlink()

    if shop.cache.find("role", image.role_key):
        shop.progress.skip(step, "cached")
    return shop.cache.get_or_build("role", image.role_key, build)


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


def build_disk_layer(shop: Workshop, image: ImagePlan, role: Path) -> Path:
    """The raw disk ``disk.raw``; nothing to do when only ISOs are wanted."""
    step = f"disk {image.role_plan.name}"

    def build(folder: Path) -> None:
        layout = plan_layout(image.role_key, image.cluster.image.size_mib)
        with shop.progress.step(step):
            disk.build_disk(shop.runner, layout, role / "root.ext4", folder / _RAW, epoch=shop.epoch)

    if shop.cache.find("disk", image.disk_key):
        shop.progress.skip(step, "cached")
    return shop.cache.get_or_build("disk", image.disk_key, build) / _RAW


def build_format(shop: Workshop, image: ImagePlan, disk_format: DiskFormat, role: Path, target: Path) -> None:
    """Write one format to ``target``."""
    step = image.file_name(disk_format)
    with shop.progress.step(step), tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        if disk_format is DiskFormat.ISO:
            files = image.seed.files if image.seed is not None else None
            iso.build_iso(shop.runner, role, image.image_id, target, work, epoch=shop.epoch, seed=files)
            return
        raw = build_disk_layer(shop, image, role)
        if image.seed is not None:
            raw = put_seed_in(shop, image, image.seed, raw, work)
        writers.write_format(shop.runner, disk_format, raw, target, work, image, epoch=shop.epoch)


def put_seed_in(shop: Workshop, image: ImagePlan, seed: nodeseed.NodeSeed, raw: Path, work: Path) -> Path:
    """A copy of the role's disk with a node's seed inside, in ``work``: keys do not enter the cache."""
    copy = work / _RAW
    copy.touch(mode=0o600)
    shop.runner.run(["cp", "--sparse=always", "--reflink=auto", str(raw), str(copy)])
    layout = plan_layout(image.role_key, image.cluster.image.size_mib)
    nodeseed.write_seed(shop.runner, seed, copy, layout.root.offset_bytes, work, epoch=shop.epoch)
    return copy


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """One artifact below OUT. ``seconds`` is None when it was there already, made from the same input."""

    path: str
    size_bytes: int
    seconds: float | None


def build_images(
    shop: Workshop, images: Sequence[ImagePlan], out: Path, *, force: bool = False
) -> list[BuiltImage]:
    """Build every image in every format into ``out/images``; what was made from the same input is kept.

    Raises MissingToolError before any work when a program is missing, UsageError when ``out`` cannot be an
    output folder, CommandError when a program fails.
    """
    require_tools(list_tools({f for image in images for f in image.formats}))
    bootloader.check_grub_modules()
    rootfs.choose_mode()
    shop.cache.sweep()
    with OutputFolder(out, cluster=images[0].cluster.name, force=force) as folder:
        wanted = [(image, disk_format) for image in images for disk_format in image.formats]
        missing = [
            (image, disk_format)
            for image, disk_format in wanted
            if not folder.keep(_path(image, disk_format), format_key(image, disk_format))
        ]
        for image in {id(image): image for image, _ in missing}.values():
            build_role_layer(shop, image)
        times: dict[str, float] = {}
        with ThreadPoolExecutor(max_workers=max(1, min(len(missing), os.cpu_count() or 1))) as pool:
            jobs = [pool.submit(_build_into, shop, folder, image, kind, times) for image, kind in missing]
            for job in jobs:
                job.result()
        for image in images:
            build_bill(shop, folder, image)
        folder.commit(lambda path: any(path.startswith(_stem(image)) for image in images))
    sizes = [(path, (out / path).stat().st_size) for path in (_path(*pair) for pair in wanted)]
    return [BuiltImage(path=path, size_bytes=size, seconds=times.get(path)) for path, size in sizes]


def _stem(image: ImagePlan) -> str:
    return f"images/{image.name}."


def _path(image: ImagePlan, disk_format: DiskFormat) -> str:
    return f"images/{image.file_name(disk_format)}"


def _build_into(
    shop: Workshop, folder: OutputFolder, image: ImagePlan, disk_format: DiskFormat, times: dict[str, float]
) -> None:
    start = time.monotonic()
    role = build_role_layer(shop, image)
    path = _path(image, disk_format)
    is_secret = image.seed is not None
    with folder.make_file(path, inputs=format_key(image, disk_format), secret=is_secret) as target:
        build_format(shop, image, disk_format, role, target)
    times[path] = time.monotonic() - start


def build_bill(shop: Workshop, folder: OutputFolder, image: ImagePlan) -> None:
    """Write the bill of materials beside the image, as ``NAME-ROLES.cdx.json``; one for all its formats."""
    path = f"{_stem(image)}cdx.json"
    name = image.name
    key = hash_inputs({"role": image.role_key, "name": name, "epoch": shop.epoch, "bill": sbom.VERSION})
    if folder.keep(path, key):
        return
    role = build_role_layer(shop, image)
    bill = sbom.Bill(
        name=name,
        image_id=image.role_key,
        distribution=image.cluster.image.os.value,
        packages=sbom.parse_dpkg_status((role / "dpkg-status").read_text(encoding="utf-8")),
        sources={source: shop.find_source(source) for source in list_sources([image])},
        epoch=shop.epoch,
    )
    folder.write(path, sbom.emit_bill(bill), inputs=key)


def render_outlook(images: Sequence[ImagePlan], cache: LayerCache) -> str:
    """What a build would do, and which layers are cached; one line each."""
    lines = []
    for image in images:
        lines.append(image.name if image.seed is not None else image.role_plan.name)
        for kind, key in (
            ("base", image.base_key),
            ("system", image.system_key),
            ("role", image.role_key),
            ("disk", image.disk_key),
        ):
            lines.append(f"  {kind:5} {key}  {'cached' if cache.has(kind, key) else 'to build'}")
        lines += [f"  {kind:5} {_path(image, kind)}" for kind in image.formats]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def render_summary(built: Sequence[BuiltImage]) -> str:
    """Sizes and times of a build."""
    rows = []
    for image in built:
        spent = "unchanged" if image.seconds is None else f"{image.seconds:.1f} s"
        rows.append(f"{image.size_bytes / (1 << 20):9.1f} MiB  {spent:>9}  {image.path}\n")
    return "".join(rows)
