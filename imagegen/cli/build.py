"""``imagegen build``: golden images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagegen.cli.inputs import find_output, read_cluster
from imagegen.cli.options import (
    cluster_argument,
    complete_roles,
    force_option,
    output_option,
    profiles_option,
    require_known,
)
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import Report
from imagegen.errors import InputError

if TYPE_CHECKING:
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
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(_FORMATS),
    help="Instead of image.formats of the cluster file; may be repeated.",
)
@output_option
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
@click.pass_obj
def command(
    terminal: Terminal,
    cluster: Path,
    roles: tuple[str, ...],
    formats: tuple[str, ...],
    out: Path,
    profile_dirs: tuple[Path, ...],
    force: bool,
    mirror: str | None,
    offline: bool,
    dry_run: bool,
) -> None:
    """Build the golden images of CLUSTER, one for each set of roles, into OUT/images.

    An image holds what all nodes with these roles share and no secret; with a node's seed it becomes that
    node. What did not change since the last run is taken from the cache.
    """
    find_output(out)
    plan, base_packages = _read(cluster, profile_dirs, terminal)
    names = [role_plan.name for role_plan in plan.role_plans]
    for role in roles:
        require_known("set of roles", role, names)

    from imagegen.backends.epoch import read_epoch
    from imagegen.backends.image import imageplan, recipe, sources
    from imagegen.backends.image.layers import LayerCache, default_layer_root
    from imagegen.fetch import lock_path, read_lock
    from imagegen.fetch.everything import fetch_everything
    from imagegen.model.cluster import DiskFormat
    from imagegen.plan.items import ContainerImage
    from imagegen.plan.parts import list_images, list_parts, make_download
    from imagegen.run import Runner

    wanted = tuple(DiskFormat(name) for name in dict.fromkeys(formats)) or plan.cluster.image.formats
    chosen = [role_plan for role_plan in plan.role_plans if not roles or role_plan.name in roles]
    epoch, cache = read_epoch(os.environ), LayerCache(root=default_layer_root())

    every_part = {(part.name, part.version): part for part in list_parts(plan)}

    def plan_images() -> list[imageplan.ImagePlan]:
        digests = sources.read_pinned(every_part, list_images(plan), read_lock(lock_path(cluster)))
        return [
            imageplan.plan_image(plan.cluster, one, base_packages, wanted, digests=digests, epoch=epoch)
            for one in chosen
        ]

    if dry_run:
        terminal.data(recipe.render_outlook(plan_images(), cache))
        return
    needed = imageplan.list_sources(plan_images())
    parts = {key: every_part[key] for key in sources.list_part_keys(needed)}
    result = fetch_everything(
        [make_download(part) for part in parts.values()],
        [source.reference for source in needed if isinstance(source, ContainerImage)],
        lock=read_lock(lock_path(cluster)),
        mirror=mirror or None,
        offline=offline,
        progress=terminal.progress(),
    )
    # planned again, because now the lock file pins every source
    images = plan_images()
    files = sources.unpack_sources(needed, parts, result, cache)
    shop = recipe.Workshop(
        runner=Runner(log=terminal.detail),
        cache=cache,
        find_source=files.__getitem__,
        epoch=epoch,
        progress=terminal.progress(),
    )
    terminal.data(recipe.render_summary(recipe.build_images(shop, images, out, force=force)))


def _read(cluster: Path, profile_dirs: tuple[Path, ...], terminal: Terminal) -> tuple[Plan, tuple[str, ...]]:
    from imagegen.backends.image.imageplan import list_base_packages
    from imagegen.plan.build import build_plan, plan_base
    from imagegen.plan.profiles import load_profiles

    report = Report()
    model = read_cluster(cluster, profile_dirs, report)
    profiles = load_profiles(model.profile_dirs, report)
    plan = None if report.has_errors else build_plan(model, profiles, report)
    if plan is None or report.has_errors:
        raise InputError(report)
    terminal.show_report(report)
    return plan, list_base_packages(plan_base(model, profiles))
