"""``imagegen build --with packer``: the Packer builds that ``render`` writes, prepared and run."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagegen.cli.inputs import find_output, read_plan_aloud
from imagegen.cli.options import require_known
from imagegen.cli.terminal import Terminal
from imagegen.cli.tree import format_size
from imagegen.errors import UsageError

if TYPE_CHECKING:
    from imagegen.backends.packer.folder import PackerFolder
    from imagegen.backends.packer.versions import PackerStyle
    from imagegen.plan.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PackerOrder:
    """One run, as the command line asks for it. No ``roles``: all."""

    cluster: Path
    out: Path
    roles: tuple[str, ...]
    profile_dirs: tuple[Path, ...]
    mirror: str | None
    offline: bool
    force: bool
    words: PackerWords


@dataclass(frozen=True, slots=True, kw_only=True)
class PackerWords:
    """The options of ``build`` that are about Packer, as they were given."""

    is_wanted: bool
    builder: str | None
    variables: tuple[str, ...]
    compat: bool
    prepare_only: bool


def packer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of Packer to a command, which gets them as one argument, ``packer``."""

    @click.option(
        "--with", "tool", type=click.Choice(("packer",)), help="Build inside a virtual machine, by Packer."
    )
    @click.option(
        "--builder",
        metavar="NAME",
        help="With Packer: qemu.cloud, qemu.installer, …; by default that of the first target.",
    )
    @click.option(
        "--var",
        "variables",
        multiple=True,
        metavar="NAME=VALUE",
        help="With Packer: a variable of the build, such as base_image; may be repeated.",
    )
    @click.option(
        "--packer-compat", "compat", is_flag=True, help="With Packer: write builds for Packer 1.6.6."
    )
    @click.option("--prepare-only", is_flag=True, help="With Packer: bring every part, but do not start it.")
    @functools.wraps(command)
    def collect(
        *args: Any,
        tool: str | None,
        builder: str | None,
        variables: tuple[str, ...],
        compat: bool,
        prepare_only: bool,
        **rest: Any,
    ) -> Any:
        words = PackerWords(
            is_wanted=tool is not None,
            builder=builder,
            variables=variables,
            compat=compat,
            prepare_only=prepare_only,
        )
        if not words.is_wanted and (builder or variables or compat or prepare_only):
            raise UsageError("--builder, --var, --packer-compat and --prepare-only need --with packer")
        return command(*args, packer=words, **rest)

    return collect


def parse_variables(words: Sequence[str]) -> Mapping[str, str]:
    """``NAME=VALUE`` words; raises UsageError for anything else."""
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"wanted NAME=VALUE after --var, got {word[:60]!r}")
        values[name] = value
    return values


def build_with_packer(order: PackerOrder, terminal: Terminal) -> None:
    """Write the builds with every part in place; run Packer, unless only the preparation is wanted."""
    from imagegen.backends.packer.build import (
        TOOLS,
        PackerJob,
        check_place,
        choose_builder,
        read_style,
        run_packer,
    )
    from imagegen.backends.packer.versions import PackerStyle
    from imagegen.run import Runner, require_tools

    find_output(order.out)
    check_place(order.out)
    plan = read_plan_aloud(order.cluster, order.profile_dirs, terminal)
    for role in order.roles:
        require_known("set of roles", role, [role_plan.name for role_plan in plan.role_plans])
    if plan.cluster.image.mode.value != "golden":
        raise UsageError("image.mode is stock: there is no golden image to build")
    builder = choose_builder(order.words.builder, plan.cluster.targets)
    runner = Runner(log=terminal.detail)
    style = PackerStyle.COMPAT if order.words.compat else PackerStyle.CURRENT
    if not order.words.prepare_only:
        require_tools(TOOLS)
        style = style if order.words.compat else read_style(runner)
    builds = _prepare(order, plan, style, terminal)
    if order.words.prepare_only:
        for build in builds:
            place = shlex.quote(str(order.out / build.path))
            init = "" if style is PackerStyle.COMPAT else f"packer init {place} && "
            terminal.say(f"sh {place}/new-key.sh && {init}packer build -only='*.{builder}' {place}")
        return
    job = PackerJob(
        builder=builder,
        variables=parse_variables(order.words.variables),
        out=order.out,
        cluster=plan.cluster.name,
        force=order.force,
    )
    for build in builds:
        result = run_packer(runner, build, job, style, terminal.progress())
        if result.path is None:
            terminal.data(f"the image of {result.roles} is in the cloud: see {result.manifest}\n")
        else:
            terminal.data(f"{format_size(result.size_bytes):>10}  {result.path}\n")


def _prepare(order: PackerOrder, plan: Plan, style: PackerStyle, terminal: Terminal) -> list[PackerFolder]:
    """Fetch what the images need, pin it, and write the builds with it."""
    from imagegen.backends.output import OutputFolder
    from imagegen.backends.packer.build import put_downloads
    from imagegen.backends.packer.folder import lower_packer, write_packer
    from imagegen.fetch import lock_path, read_lock
    from imagegen.fetch.everything import fetch_everything
    from imagegen.plan.items import Binary, ContainerImage
    from imagegen.plan.parts import list_parts, make_download

    chosen = [one for one in plan.role_plans if not order.roles or one.name in order.roles]
    items = [item for role_plan in chosen for item in role_plan.items]
    parts = {(part.name, part.version): part for part in list_parts(plan)}
    needed = {(item.part, item.version) for item in items if isinstance(item, Binary)}
    progress = terminal.progress()
    result = fetch_everything(
        [make_download(part) for key, part in parts.items() if key in needed],
        [item.reference for item in items if isinstance(item, ContainerImage)],
        lock=read_lock(lock_path(order.cluster)),
        mirror=order.mirror or None,
        offline=order.offline,
        progress=progress,
    )
    checksums = read_lock(lock_path(order.cluster)).checksums
    with OutputFolder(order.out, cluster=plan.cluster.name, force=order.force) as folder:
        with progress.step("writing Packer builds"):
            write_packer(folder, plan, checksums, style)
            builds = [lower_packer(plan, role_plan, checksums, style) for role_plan in chosen]
            for build in builds:
                put_downloads(folder, build, parts, result, checksums)
        wanted = tuple(f"packer/{one.name}/" for one in plan.role_plans)
        prepared = tuple(f"{build.path}/downloads/" for build in builds)
        folder.commit(
            lambda path: (
                path.startswith("packer/")
                and ("/downloads/" not in path or path.startswith(prepared) or not path.startswith(wanted))
            )
        )
    return builds
