"""``imagegen scan``: secrets and identities in images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagegen.cli.check import count
from imagegen.cli.options import format_option
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import printable
from imagegen.emit import emit_json

if TYPE_CHECKING:
    from imagegen.verify.scan import Finding, ScanResult


@click.command("scan", cls=Verb)
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path)
)
@click.option(
    "--node-image",
    is_flag=True,
    help="The image has its node's seed inside: keys are expected there. A manifest says so by itself.",
)
@format_option()
@click.pass_context
def command(ctx: click.Context, images: tuple[Path, ...], node_image: bool, form: str) -> None:
    """Look for secrets in each IMAGE: a disk image, ISO, archive, folder or file.

    Finds private keys, tokens, password hashes, credentials, SSH host keys, machine ids, cloud-init state
    and shell histories in files of any format, also wrapped in base64, compression, archives or UTF-16. Says
    where, never what. In the image of one node (image.pki: baked) they are expected in its seed, and only
    there. Exit code 1 when something is found or could not be read.
    """
    from imagegen.run import Runner
    from imagegen.verify.ownseed import expects_seed
    from imagegen.verify.scan import scan_image

    terminal: Terminal = ctx.obj
    runner = Runner(log=terminal.detail)
    progress = terminal.progress()
    results = []
    for image in images:
        has_seed = expects_seed(image, said=node_image)
        if has_seed:
            terminal.say(f"{image}: a secret: the image of one node, with its seed inside")
        result = scan_image(runner, image, has_seed=has_seed, progress=progress)
        results.append(result)
        # at once: the next image may be one that cannot be opened
        if form == "text":
            terminal.data(_render(result))
        terminal.say(_summarise(result, has_seed=has_seed))
    if form == "json":
        terminal.data(emit_json({"images": [_as_dict(result) for result in results]}))
    ctx.exit(0 if all(result.is_clean for result in results) else 1)


def _summarise(result: ScanResult, *, has_seed: bool) -> str:
    from imagegen.verify.ownseed import REASON

    expected = sum(reason == REASON for _, reason in result.allowed)
    counts = [count(result.files, "file"), count(len(result.findings), "finding")]
    counts += [f"{expected:,} expected in its seed"] if has_seed else []
    counts += [f"{len(result.allowed) - expected:,} allowed", f"{len(result.unread):,} unread"]
    return f"{result.image}: {', '.join(counts)}"


def _render(result: ScanResult) -> str:
    lines = [
        f"{result.image}: {printable(found.path)}: {found.where}: {_tell_kind(found)}"
        for found in result.findings
    ]
    lines += [
        f"{result.image}: {printable(trouble.path)}: not read: {printable(trouble.reason)}"
        for trouble in result.unread
    ]
    return "".join(f"{line}\n" for line in lines)


def _tell_kind(found: Finding) -> str:
    return f"{found.kind} in {', in '.join(reversed(found.wrapped))}" if found.wrapped else found.kind


def _as_dict(result: ScanResult) -> dict[str, object]:
    return {
        "image": result.image,
        "files": result.files,
        "size": result.size_bytes,
        "findings": [_finding(found) for found in result.findings],
        "allowed": [{**_finding(found), "reason": reason} for found, reason in result.allowed],
        "unread": [{"path": trouble.path, "reason": trouble.reason} for trouble in result.unread],
    }


def _finding(found: Finding) -> dict[str, object]:
    return {"path": found.path, "where": found.where, "kind": found.kind, "wrapped": list(found.wrapped)}
