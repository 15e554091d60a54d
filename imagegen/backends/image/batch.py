"""A whole build: checks before any work, what is missing, roles and formats side by side, summary."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from imagegen.backends.image import bootloader, changes, rootfs
from imagegen.backends.image.imageplan import ImagePlan, format_key, list_sources
from imagegen.backends.image.layers import Layer, LayerCache
from imagegen.backends.image.parallel import count_processors, run_jobs
from imagegen.backends.image.recipe import (
    Workshop,
    bill_key,
    bill_path,
    build_base_layer,
    build_bill,
    build_format,
    build_role_layer,
    list_tools,
)
from imagegen.backends.image.space import (
    BASE_ROOT_BYTES,
    BASE_TAR_BYTES,
    Need,
    check_space,
    format_bytes,
    layer_bytes,
    tell_full_disk,
)
from imagegen.backends.image.staging import staging_root, sweep_staging
from imagegen.backends.manifest import Artifact
from imagegen.backends.output import OutputFolder
from imagegen.model.cluster import DiskFormat
from imagegen.run import Runner, require_tools

#: seconds to wait for another build that writes into the same folder
_LOCK_SECONDS = 1800.0

Job = tuple[ImagePlan, DiskFormat]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """One artifact below OUT. ``seconds`` is None when it was there already, made from the same input."""

    path: str
    sha256: str
    size_bytes: int
    seconds: float | None
    is_secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a build did; ``pruned`` are layers that were removed to keep the cache within its limit."""

    images: list[BuiltImage]
    pruned: list[Layer] = field(default_factory=list)
    seconds: float = 0.0


def check_ready(images: Sequence[ImagePlan]) -> None:
    """Raise MissingToolError that names every missing program and its package, before any work."""
    require_tools(list_tools(images))
    bootloader.check_grub_modules()
    rootfs.choose_mode()


def find_missing(images: Sequence[ImagePlan], out: Path, *, force: bool = False) -> list[Job]:
    """The formats that are not in OUT, or not made from the same input; an image whose bill is missing counts
    with its first format.

    Raises UsageError when ``out`` cannot be an output folder.
    """
    with OutputFolder(out, cluster=images[0].cluster.name, force=force, lock_timeout=_LOCK_SECONDS) as folder:
        return _list_missing(images, folder)


def _list_missing(images: Sequence[ImagePlan], folder: OutputFolder) -> list[Job]:
    return [
        (image, disk_format)
        for image in images
        for disk_format in image.formats
        if not folder.keep(path_of(image, disk_format), format_key(image, disk_format))
        or (disk_format is image.formats[0] and not folder.keep(bill_path(image), bill_key(image)))
    ]


def build_images(
    shop: Workshop,
    images: Sequence[ImagePlan],
    out: Path,
    *,
    force: bool = False,
    cache_limit: int | None = None,
) -> Batch:
    """Build every image in every format into ``out/images``; what was made from the same input is kept.

    ``cache_limit`` in bytes is what all layers may take afterwards. Raises UsageError when ``out`` cannot be
    an output folder, CommandError when a program fails, ImagegenError when a disk is or gets full.
    """
    start = time.monotonic()
    clean_up(shop.runner, shop.cache)
    try:
        missing = find_missing(images, out, force=force)
        needs = estimate_needs(shop, missing, out)
        check_space(needs)
        with tell_full_disk(needs or [Need(out, 0, "the manifest")]):
            _build_layers(shop, [image for image, _ in missing])
            changes.keep_inputs(shop.cache.root, images)
            times = _write_formats(shop, images, out, force=force)
        built = _describe_built(images, out, times)
    finally:
        shop.cache.release()
    pruned = [] if cache_limit is None else shop.cache.prune(cache_limit)
    return Batch(images=built, pruned=pruned, seconds=time.monotonic() - start)


def build_base(shop: Workshop, images: Sequence[ImagePlan]) -> None:
    """The base system of all ``images``, ahead of ``build_images``: it needs nothing that is fetched."""
    clean_up(shop.runner, shop.cache)
    needs = _estimate_base(shop, images)
    check_space(needs)
    with tell_full_disk(needs):
        build_base_layer(shop, images[0])


def clean_up(runner: Runner, cache: LayerCache) -> None:
    """Remove what killed runs left behind."""
    cache.sweep()
    sweep_staging(runner, rootfs.choose_mode())


def _build_layers(shop: Workshop, images: Iterable[ImagePlan]) -> None:
    wanted = list({image.role_key: image for image in images}.values())
    if not wanted:
        return
    if not all(shop.cache.has("role", image.role_key) for image in wanted):
        build_base_layer(shop, wanted[0])
    run_jobs([partial(build_role_layer, shop, image) for image in wanted], stop=shop.runner.end_all)


def _write_formats(
    shop: Workshop, images: Sequence[ImagePlan], out: Path, *, force: bool
) -> dict[str, float]:
    times: dict[str, float] = {}
    with OutputFolder(out, cluster=images[0].cluster.name, force=force, lock_timeout=_LOCK_SECONDS) as folder:
        jobs: list[Callable[[], None]] = [
            partial(_write_format, shop, folder, image, disk_format, times)
            for image, disk_format in _list_missing(images, folder)
            if not folder.keep(path_of(image, disk_format), format_key(image, disk_format))
        ]
        # beside the formats, for which other programs work
        jobs += [partial(build_bill, shop, folder, image) for image in images]
        run_jobs(jobs, stop=shop.runner.end_all)
        folder.commit(lambda path: any(path.startswith(f"images/{image.name}.") for image in images))
    return times


def _write_format(
    shop: Workshop, folder: OutputFolder, image: ImagePlan, disk_format: DiskFormat, times: dict[str, float]
) -> None:
    start = time.monotonic()
    role = build_role_layer(shop, image)
    path = path_of(image, disk_format)
    is_secret = image.seed is not None
    with folder.make_file(path, inputs=format_key(image, disk_format), secret=is_secret) as target:
        build_format(shop, image, disk_format, role, target)
    times[path] = time.monotonic() - start


def path_of(image: ImagePlan, disk_format: DiskFormat) -> str:
    """Where a format lies below OUT."""
    return f"images/{image.file_name(disk_format)}"


def read_artifacts(images: Sequence[ImagePlan], out: Path) -> Mapping[str, Artifact]:
    """What OUT's manifest says of its files. Raises UsageError when ``out`` cannot be an output folder."""
    with OutputFolder(out, cluster=images[0].cluster.name, lock_timeout=_LOCK_SECONDS) as folder:
        return folder.former.artifacts


def _describe_built(images: Sequence[ImagePlan], out: Path, times: dict[str, float]) -> list[BuiltImage]:
    artifacts = read_artifacts(images, out)
    paths = [path_of(image, disk_format) for image in images for disk_format in image.formats]
    return [
        BuiltImage(
            path=path,
            sha256=artifacts[path].sha256,
            size_bytes=artifacts[path].size,
            seconds=times.get(path),
            is_secret=artifacts[path].secret,
        )
        for path in paths
    ]


def estimate_needs(shop: Workshop, missing: Sequence[Job], out: Path) -> list[Need]:
    """The room that the missing formats and the layers below them need."""
    cache, staging = shop.cache.root, staging_root()
    needs: list[Need] = []
    images = {image.role_key: image for image, _ in missing}
    contents = {key: _estimate_contents(shop, image) for key, image in images.items()}
    needs += _estimate_base(shop, images.values())
    systems = {image.system_key: image for image in images.values() if image.packages}
    for key, image in systems.items():
        if not shop.cache.has("system", key):
            needs.append(Need(cache, BASE_TAR_BYTES, f"the packages of {image.role_plan.name}"))
    for key, image in images.items():
        what = f"the disk of {image.role_plan.name}"
        size = layer_bytes(contents[key], squashfs=image.has_squashfs)
        if not shop.cache.has("role", key):
            needs += [Need(cache, size, what), Need(staging, size, what)]
    for image, disk_format in missing:
        size = format_bytes(contents[image.role_key], disk_format)
        needs.append(Need(out, size, image.file_name(disk_format)))
    return needs


def _estimate_base(shop: Workshop, images: Iterable[ImagePlan]) -> list[Need]:
    if all(shop.cache.has("base", image.base_key) for image in images):
        return []
    what = "the base system"
    return [Need(shop.cache.root, BASE_TAR_BYTES, what), Need(staging_root(), BASE_ROOT_BYTES, what)]


def _estimate_contents(shop: Workshop, image: ImagePlan) -> int:
    tar = shop.cache.root / f"{'system' if image.packages else 'base'}-{image.system_key}" / "base.tar"
    base = tar.stat().st_size if tar.exists() else BASE_TAR_BYTES
    return base + sum(shop.find_source(source).stat().st_size for source in list_sources([image]))


def render_summary(batch: Batch) -> str:
    """Sizes and times of a build."""
    rows = []
    for image in batch.images:
        spent = "unchanged" if image.seconds is None else f"{image.seconds:.1f} s"
        mark = "  secret: its node's keys are inside" if image.is_secret else ""
        rows.append(f"{image.size_bytes / (1 << 20):9.1f} MiB  {spent:>9}  {image.path}{mark}\n")
    return "".join(rows)


def render_summary_json(batch: Batch) -> str:
    """The same for machines."""
    rows = [
        {
            "path": image.path,
            "sha256": image.sha256,
            "size": image.size_bytes,
            "seconds": None if image.seconds is None else round(image.seconds, 2),
        }
        | ({"secret": True} if image.is_secret else {})
        for image in batch.images
    ]
    document = {
        "images": rows,
        "seconds": round(batch.seconds, 2),
        "processors": count_processors(),
        "pruned": [{"layer": layer.name, "size": layer.size_bytes} for layer in batch.pruned],
    }
    return json.dumps(document, indent=2) + "\n"
