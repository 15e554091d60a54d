"""``imagegen fetch``: bring every release part of a cluster into the cache and pin its checksum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagegen.cli.check import count
from imagegen.cli.inputs import read_plan_aloud
from imagegen.cli.options import (
    cluster_argument,
    format_option,
    mirror_option,
    offline_option,
    profiles_option,
)
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb

if TYPE_CHECKING:
    from imagegen.fetch import FetchedPart, FetchResult


@click.command("fetch", cls=Verb)
@cluster_argument()
@mirror_option
@click.option(
    "--cache",
    "cache_dir",
    metavar="DIR",
    envvar="IMAGEGEN_CACHE",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where parts are kept; default ~/.cache/imagegen/parts.",
)
@offline_option
@format_option()
@profiles_option
@click.pass_context
def command(
    ctx: click.Context,
    cluster: Path,
    mirror: str | None,
    cache_dir: Path | None,
    offline: bool,
    form: str,
    profile_dirs: tuple[Path, ...],
) -> None:
    """Fetch the binaries and container images that the nodes of the cluster file CLUSTER need.

    Each is verified and kept in the cache. Its checksum is pinned in imagegen.lock beside CLUSTER at the
    first fetch and binds from then on. When something is missing, everything that is missing is listed.
    """
    terminal: Terminal = ctx.obj
    plan = read_plan_aloud(cluster, profile_dirs, terminal)

    from imagegen.fetch import lock_path, read_lock
    from imagegen.fetch.everything import fetch_everything
    from imagegen.plan.parts import list_images, list_parts, make_download

    lock = read_lock(lock_path(cluster))
    result = fetch_everything(
        [make_download(part) for part in list_parts(plan)],
        list_images(plan),
        lock=lock,
        mirror=mirror or None,
        cache_dir=cache_dir,
        offline=offline,
        progress=terminal.progress(),
    )
    terminal.data(_render_json(result) if form == "json" else _render_text(result))
    origins = ", ".join(
        f"{number} from the {origin}"
        for origin in ("cache", "mirror", "release site")
        if (number := result.count(origin))
    )
    what = f"{count(len(result.parts), 'part')}, {count(len(result.images), 'image')}"
    terminal.say(f"{what}, {result.size >> 20} MiB: {origins}; pinned in {lock.path}")


def _render_text(result: FetchResult) -> str:
    rows = [(p.download.name, p.download.version, p.size, p.sha256) for p in result.all]
    if not rows:
        return ""
    name_width = max(len(row[0]) for row in rows)
    version_width = max(len(row[1]) for row in rows)
    return "".join(
        f"{name:{name_width}}  {version:{version_width}}  {size / (1 << 20):7.1f} MiB  {sha256}\n"
        for name, version, size, sha256 in rows
    )


def _render_json(result: FetchResult) -> str:
    parts = [_describe(part) | {"name": part.download.name} for part in result.parts.values()]
    images = [_describe(part) | {"reference": text} for text, part in result.images.items()]
    return json.dumps({"parts": parts, "images": images}, indent=2) + "\n"


def _describe(part: FetchedPart) -> dict[str, object]:
    return {
        "version": part.download.version,
        "url": part.download.url,
        "path": str(part.path),
        "sha256": part.sha256,
        "size": part.size,
        "origin": part.origin,
    }
