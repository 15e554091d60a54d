"""``imagegen build``: golden images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagegen.cli.inputs import find_output, read_cluster
from imagegen.cli.nodeimages import choose_formats, choose_images, lower_seeds
from imagegen.cli.options import (
    cluster_argument,
    complete_roles,
    force_option,
    node_option,
    output_option,
    profiles_option,
    secrets_option,
)
from imagegen.cli.packer import PackerOrder, PackerWords, build_with_packer, packer_options
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import Report
from imagegen.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagegen.backends.image.imageplan import ImagePlan
    from imagegen.backends.image.nodeseed import NodeSeed
    from imagegen.backends.image.recipe import BuiltImage
    from imagegen.backends.image.sources import Source
    from imagegen.plan.plan import Plan

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
    help="Only this set of roles, such as worker or etcd+master; may be repeated.",
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
@click.option(
    "--mirror",
    metavar="URL|DIR",
    envvar="IMAGEGEN_MIRROR",
    show_envvar=True,
    help="A folder or URL laid out like the official release sites; asked before them.",
)
@click.option("--offline", is_flag=True, help="Ask no release site: cache and mirror only.")
@click.option("--dry-run", is_flag=True, help="Show what would be done and what is cached.")
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
    )
    if dry_run:
        terminal.data(show_outlook(order, terminal))
        return

    from imagegen.backends.image import recipe

    terminal.data(recipe.render_summary(run_build(order, terminal).images))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildDone:
    """The images, and the file on this machine of everything that they hold besides packages."""

    images: list[BuiltImage]
    sources: dict[Source, Path]


def show_outlook(order: BuildOrder, terminal: Terminal) -> str:
    """What a build would do, and which layers are cached."""
    from imagegen.backends.image import recipe
    from imagegen.backends.image.layers import LayerCache, default_layer_root

    plan, base_packages = _read(order, terminal)
    return recipe.render_outlook(
        _plan_images(order, plan, base_packages), LayerCache(root=default_layer_root())
    )


def run_build(order: BuildOrder, terminal: Terminal) -> BuildDone:
    """Fetch what the images need and build them. Raises as ``fetch_everything`` and ``build_images`` do."""
    find_output(order.out)
    plan, base_packages = _read(order, terminal)

    from imagegen.backends.epoch import read_epoch
    from imagegen.backends.image import imageplan, recipe, sources
    from imagegen.backends.image.layers import LayerCache, default_layer_root
    from imagegen.fetch import lock_path, read_lock
    from imagegen.fetch.everything import fetch_everything
    from imagegen.plan.items import ContainerImage
    from imagegen.plan.parts import list_parts, make_download
    from imagegen.run import Runner

    cache = LayerCache(root=default_layer_root())
    every_part = {(part.name, part.version): part for part in list_parts(plan)}
    needed = imageplan.list_sources(_plan_images(order, plan, base_packages))
    parts = {key: every_part[key] for key in sources.list_part_keys(needed)}
    result = fetch_everything(
        [make_download(part) for part in parts.values()],
        [source.reference for source in needed if isinstance(source, ContainerImage)],
        lock=read_lock(lock_path(order.cluster)),
        mirror=order.mirror or None,
        offline=order.offline,
        progress=terminal.progress(),
    )
    # planned again, because now the lock file pins every source
    choices = choose_images(plan, order.roles, order.nodes, choose_formats(plan.cluster, order.formats))
    seeds = lower_seeds(plan, choices, order.cluster, order.secrets_dir, order.out, terminal)
    images = _plan_images(order, plan, base_packages, seeds)
    files = sources.unpack_sources(needed, parts, result, cache)
    shop = recipe.Workshop(
        runner=Runner(log=terminal.detail),
        cache=cache,
        find_source=files.__getitem__,
        epoch=read_epoch(os.environ),
        progress=terminal.progress(),
    )
    built = recipe.build_images(shop, images, order.out, force=order.force)
    return BuildDone(images=built, sources=files)


def _plan_images(
    order: BuildOrder, plan: Plan, base_packages: tuple[str, ...], seeds: Mapping[str, NodeSeed] | None = None
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
    images = []
    for choice in choose_images(plan, order.roles, order.nodes, formats):
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


def _read(order: BuildOrder, terminal: Terminal) -> tuple[Plan, tuple[str, ...]]:
    from imagegen.backends.image.imageplan import list_base_packages
    from imagegen.plan.build import build_plan, plan_base
    from imagegen.plan.profiles import load_profiles

    report = Report()
    model = read_cluster(order.cluster, order.profile_dirs, report)
    profiles = load_profiles(model.profile_dirs, report)
    plan = None if report.has_errors else build_plan(model, profiles, report)
    if plan is None or report.has_errors:
        raise InputError(report)
    terminal.show_report(report)
    return plan, list_base_packages(plan_base(model, profiles))
