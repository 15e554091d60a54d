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
    from collections.abc import Callable

    from imagegen.backends.image.layers import LayerCache
    from imagegen.backends.image.recipe import ImagePlan
    from imagegen.plan.items import Binary
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
    from imagegen.backends.image import recipe
    from imagegen.backends.image.layers import LayerCache, default_layer_root
    from imagegen.model.cluster import DiskFormat
    from imagegen.run import Runner

    epoch = read_epoch(os.environ)
    wanted = tuple(DiskFormat(name) for name in dict.fromkeys(formats)) or plan.cluster.image.formats
    images = [
        recipe.plan_image(plan.cluster, role_plan, base_packages, wanted, epoch=epoch)
        for role_plan in plan.role_plans
        if not roles or role_plan.name in roles
    ]
    cache = LayerCache(root=default_layer_root())
    if dry_run:
        terminal.data(recipe.render_outlook(images, cache))
        return
    find_binary = _bring_binaries(cluster, plan, images, cache, mirror, offline, terminal)
    runner = Runner(log=terminal.detail)
    shop = recipe.Workshop(
        runner=runner, cache=cache, find_binary=find_binary, epoch=epoch, progress=terminal.progress()
    )
    built = recipe.build_images(shop, images, out, force=force)
    terminal.data(recipe.render_summary(built))


def _read(cluster: Path, profile_dirs: tuple[Path, ...], terminal: Terminal) -> tuple[Plan, tuple[str, ...]]:
    from imagegen.backends.image.recipe import list_base_packages
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


def _bring_binaries(
    cluster: Path,
    plan: Plan,
    images: list[ImagePlan],
    cache: LayerCache,
    mirror: str | None,
    offline: bool,
    terminal: Terminal,
) -> Callable[[Binary], Path]:
    """Fetch the parts of these images, verified against the lock file, and unpack their archives."""
    from imagegen.backends.image.binaries import unpack_binaries
    from imagegen.backends.image.recipe import list_binaries
    from imagegen.fetch import lock_path, read_lock
    from imagegen.fetch.engine import fetch_downloads
    from imagegen.plan.parts import list_parts, make_download

    binaries = list_binaries(images)
    needed = {(binary.part, binary.version) for binary in binaries}
    downloads = [make_download(part) for part in list_parts(plan) if (part.name, part.version) in needed]
    result = fetch_downloads(
        downloads,
        lock=read_lock(lock_path(cluster)),
        mirror=mirror or None,
        offline=offline,
        progress=terminal.progress(),
    )
    archives = {
        (download.name, download.version): (fetched.path, fetched.sha256)
        for download in downloads
        for fetched in (result.of(download),)
    }
    return unpack_binaries(binaries, archives, cache)
