"""``imagegen build``: golden images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagegen.cli.check import count
from imagegen.cli.inputs import find_output, read_cluster
from imagegen.cli.nodeimages import choose_formats, choose_images, lower_seeds
from imagegen.cli.options import (
    cluster_argument,
    complete_roles,
    force_option,
    mirror_option,
    node_option,
    offline_option,
    output_option,
    profiles_option,
    secrets_option,
)
from imagegen.cli.packer import PackerOrder, PackerWords, build_with_packer, packer_options
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import Report
from imagegen.emit import emit_json
from imagegen.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imagegen.backends.image.batch import Batch
    from imagegen.backends.image.imageplan import ImagePlan
    from imagegen.backends.image.layers import LayerCache
    from imagegen.backends.image.nodeseed import NodeSeed
    from imagegen.backends.image.recipe import Workshop
    from imagegen.backends.image.sources import Source
    from imagegen.plan.plan import Plan, RolePlan


def _read_limit(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """The value of --cache-limit in bytes."""
    import re

    match = re.fullmatch(r"([0-9]{1,6}) ?(MiB|GiB|TiB)", value)
    if match is None:
        raise click.BadParameter(f"wanted a size such as 20GiB, got {value!r}", ctx, param)
    return int(match[1]) << {"MiB": 20, "GiB": 30, "TiB": 40}[match[2]]


_FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhd", "ova", "gce", "iso")


@click.command("build", cls=Verb)
@cluster_argument()
@click.option(
    "-r",
    "--role",
    "roles",
    multiple=True,
    metavar="ROLE",
    shell_complete=complete_roles,
    help="Only this set of roles, such as worker or etcd+master, or the base system; may be repeated.",
)
@node_option(multiple=True)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(_FORMATS),
    help="Instead of image.formats of the cluster file; may be repeated.",
)
@output_option
@secrets_option
@profiles_option
@force_option
@mirror_option
@offline_option
@click.option("--dry-run", is_flag=True, help="Show what would be done and what is cached.")
@click.option(
    "--summary",
    "form",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="How to say what was, or would be, done; json is for machines.",
)
@click.option(
    "--cache-limit",
    metavar="SIZE",
    envvar="IMAGEGEN_CACHE_LIMIT",
    show_envvar=True,
    default="20GiB",
    show_default=True,
    callback=_read_limit,
    help="What the cache of layers may take; beyond, those that were not used for longest are removed.",
)
@packer_options
@click.pass_obj
def command(
    terminal: Terminal,
    cluster: Path,
    roles: tuple[str, ...],
    nodes: tuple[str, ...],
    formats: tuple[str, ...],
    out: Path,
    secrets_dir: Path | None,
    profile_dirs: tuple[Path, ...],
    force: bool,
    mirror: str | None,
    offline: bool,
    dry_run: bool,
    form: str,
    cache_limit: int,
    packer: PackerWords,
) -> None:
    """Build the golden images of CLUSTER, one for each set of roles, into OUT/images.

    An image holds what all nodes with these roles share and no secret; with a node's seed it becomes that
    node. What did not change since the last run is taken from the cache.

    With image.pki: baked, and with --node for bootable ISOs, an image has the seed of its one node inside and
    the name of that node: it is a secret.

    With --with packer, a virtual machine is brought to the same state by Packer, which must be installed.
    """
    if packer.is_wanted:
        build_with_packer(
            PackerOrder(
                cluster=cluster,
                out=out,
                roles=roles,
                profile_dirs=profile_dirs,
                mirror=mirror,
                offline=offline,
                force=force,
                words=packer,
            ),
            terminal,
        )
        return
    order = BuildOrder(
        cluster=cluster,
        roles=roles,
        nodes=nodes,
        formats=formats,
        out=out,
        secrets_dir=secrets_dir,
        profile_dirs=profile_dirs,
        force=force,
        mirror=mirror,
        offline=offline,
        cache_limit=cache_limit,
    )
    if dry_run:
        terminal.data(show_outlook(order, terminal, form))
        return

    from imagegen.backends.image import batch

    done = run_build(order, terminal).batch
    terminal.data(batch.render_summary_json(done) if form == "json" else batch.render_summary(done))
    if done.pruned:
        freed = sum(layer.size_bytes for layer in done.pruned)
        terminal.say(
            f"{count(len(done.pruned), 'layer')} that were not used for longest: removed, {freed >> 20:,} MiB"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """What to build, as the command line asks for it; no roles, nodes and formats mean the cluster's own."""

    cluster: Path
    out: Path
    roles: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    secrets_dir: Path | None = None
    profile_dirs: tuple[Path, ...] = ()
    force: bool = False
    mirror: str | None = None
    offline: bool = False
    #: what the cache of layers may take afterwards, in bytes; None: whatever it takes
    cache_limit: int | None = None
    #: whether the files of everything that the images hold are wanted even when no image is to be made
    with_sources: bool = False
    #: SSH keys that may log in besides those of the cluster file, where a seed is in the image
    authorized_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildDone:
    """The images, and the file on this machine of everything that they hold besides packages."""

    batch: Batch
    sources: dict[Source, Path]


def show_outlook(order: BuildOrder, terminal: Terminal, form: str) -> str:
    """What a build would do, and which layers are cached; nothing is written or removed."""
    from imagegen.backends.image import outlook
    from imagegen.backends.image.layers import LayerCache, default_layer_root

    plan, base = _read(order, terminal)
    images, cache = _plan_images(order, plan, base), LayerCache(root=default_layer_root())
    ahead = outlook.look_ahead(images, cache, order.out)
    if form == "json":
        return emit_json({"images": outlook.outline(ahead)})
    return outlook.render_outlook(ahead)


def run_build(order: BuildOrder, terminal: Terminal) -> BuildDone:
    """Fetch what the images need and build them. Raises as ``fetch_everything`` and ``build_images`` do."""
    find_output(order.out)
    plan, base = _read(order, terminal)

    from imagegen.backends.epoch import read_epoch
    from imagegen.backends.image import batch, recipe
    from imagegen.backends.image.layers import LayerCache, default_layer_root
    from imagegen.run import Runner

    choices = choose_images(plan, base, order.roles, order.nodes, choose_formats(plan.cluster, order.formats))
    batch.check_ready(_plan_images(order, plan, base))
    seeds = lower_seeds(plan, choices, order.cluster, order.secrets_dir, order.out, terminal)
    images = _plan_images(order, plan, base, seeds)
    files: dict[Source, Path] = {}
    shop = recipe.Workshop(
        runner=Runner(log=terminal.detail),
        cache=LayerCache(root=default_layer_root(), tell=terminal.say),
        find_source=files.__getitem__,
        epoch=read_epoch(os.environ),
        progress=terminal.progress(),
    )
    try:
        missing = batch.find_missing(images, order.out, force=order.force)
        if order.with_sources or missing:
            _prepare(order, plan, images, shop, files, terminal, with_base=bool(missing))
            # planned again, because now the lock file pins every source
            images = _plan_images(order, plan, base, seeds)
        done = batch.build_images(shop, images, order.out, force=order.force, cache_limit=order.cache_limit)
    except BaseException as error:
        shop.cache.release()
        if not isinstance(error, Exception) and shop.finished:
            kept = ", ".join(shop.finished)
            terminal.say_always(f"kept for the next run, in {shop.cache.root}: {kept}")
        raise
    return BuildDone(batch=done, sources=files)


def _prepare(
    order: BuildOrder,
    plan: Plan,
    images: list[ImagePlan],
    shop: Workshop,
    files: dict[Source, Path],
    terminal: Terminal,
    *,
    with_base: bool,
) -> None:
    """Put the files of all that the images hold into ``files``; meanwhile make the base system if it is
    missing.
    """
    from imagegen.backends.image import batch
    from imagegen.backends.image.parallel import run_jobs

    def fetch() -> None:
        files.update(_fetch_sources(order, plan, images, shop.cache, terminal))

    jobs: list[Callable[[], object]] = [fetch]
    if with_base and not shop.cache.has("base", images[0].base_key):
        jobs.append(lambda: batch.build_base(shop, images))
    run_jobs(jobs, stop=shop.runner.end_all, is_hasty=True)


def _fetch_sources(
    order: BuildOrder, plan: Plan, images: list[ImagePlan], cache: LayerCache, terminal: Terminal
) -> dict[Source, Path]:
    from imagegen.backends.image import imageplan, sources
    from imagegen.fetch import lock_path, read_lock
    from imagegen.fetch.everything import fetch_everything
    from imagegen.plan.items import ContainerImage
    from imagegen.plan.parts import list_parts, make_download

    every_part = {(part.name, part.version): part for part in list_parts(plan)}
    needed = imageplan.list_sources(images)
    parts = {key: every_part[key] for key in sources.list_part_keys(needed)}
    result = fetch_everything(
        [make_download(part) for part in parts.values()],
        [source.reference for source in needed if isinstance(source, ContainerImage)],
        lock=read_lock(lock_path(order.cluster)),
        mirror=order.mirror or None,
        offline=order.offline,
        progress=terminal.progress(),
    )
    return sources.unpack_sources(needed, parts, result, cache)


def _plan_images(
    order: BuildOrder, plan: Plan, base: RolePlan, seeds: Mapping[str, NodeSeed] | None = None
) -> list[ImagePlan]:
    """The chosen images; without ``seeds``, those of nodes are planned as far as is known without keys."""
    from imagegen.backends.epoch import read_epoch
    from imagegen.backends.image import imageplan, sources
    from imagegen.backends.image.nodeseed import NodeSeed
    from imagegen.fetch import lock_path, read_lock
    from imagegen.plan.parts import list_images, list_parts

    formats = choose_formats(plan.cluster, order.formats)
    parts = {(part.name, part.version): part for part in list_parts(plan)}
    digests = sources.read_pinned(parts, list_images(plan), read_lock(lock_path(order.cluster)))
    epoch = read_epoch(os.environ)
    base_packages = imageplan.list_base_packages(base)
    images = []
    for choice in choose_images(plan, base, order.roles, order.nodes, formats):
        seed = (seeds or {}).get(choice.node, NodeSeed(node=choice.node)) if choice.node else None
        images.append(
            imageplan.plan_image(
                plan.cluster,
                choice.role_plan,
                base_packages,
                formats,
                digests=digests,
                epoch=epoch,
                seed=seed,
            )
        )
    return images


def _read(order: BuildOrder, terminal: Terminal) -> tuple[Plan, RolePlan]:
    """The plan, and that of a machine without a role."""
    from imagegen.plan.build import build_plan, plan_base
    from imagegen.plan.profiles import load_profiles

    report = Report()
    model = read_cluster(order.cluster, order.profile_dirs, report).admit(*order.authorized_keys)
    profiles = load_profiles(model.profile_dirs, report)
    plan = None if report.has_errors else build_plan(model, profiles, report)
    if plan is None or report.has_errors:
        raise InputError(report)
    terminal.show_report(report)
    return plan, plan_base(model, profiles)
