"""A node's seed inside its own image: the files of NoCloud's seed folder, written into a finished disk.

Such an image is a secret. It never enters the cache of layers: the seed is put into a copy of the role's
disk, inside the output folder's private staging.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from imagegen.backends.cloudinit import Seed
from imagegen.errors import ImagegenError
from imagegen.run import Runner, Tool

TOOLS = (
    Tool(
        name="debugfs",
        package="e2fsprogs",
        purpose="put a node's seed into its image",
        version_arguments=("-V",),
    ),
)

#: where cloud-init's NoCloud source looks first (DataSourceNoCloud.seed_dirs)
SEED_FOLDER = "/var/lib/cloud/seed/nocloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeed:
    """The seed of one node, for its own image. ``files`` are empty as long as nobody has asked for keys."""

    node: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    #: SHA-256 over names and bodies, hexadecimal: part of the image's id
    digest: str = ""


def make_node_seed(seed: Seed) -> NodeSeed:
    """The files of a node's seed, as they lie in its image. No platform's limit of size is in the way."""
    digest = hashlib.sha256()
    for name, body in sorted(seed.files().items()):
        digest.update(f"{name} {len(body)}\n".encode() + body)
    return NodeSeed(node=seed.node.name, files=seed.files(), digest=digest.hexdigest())


def write_seed(runner: Runner, seed: NodeSeed, disk: Path, offset: int, work: Path, *, epoch: int) -> None:
    """Write the seed into the ext4 file system at ``offset`` bytes of ``disk``, readable by root alone.

    ``work`` is a private folder. ``epoch`` (seconds since 1970) is every time stamp. Raises ImagegenError
    when debugfs could not do it; a file system with state of cloud-init in it is one such case.
    """
    folder = work / "seed"
    folder.mkdir(mode=0o700)
    # debugfs takes "@" for a plain number of seconds; without it a long number is read as a date
    commands = [f"set_current_time @{epoch}"]
    for place in _list_new_folders():
        commands += [f"mkdir {place}", f"set_inode_field {place} mode 040755"]
    commands.append(f"set_inode_field {SEED_FOLDER} mode 040700")
    for name, body in sorted(seed.files.items()):
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(body)
        commands += [
            f"write {name} {SEED_FOLDER}/{name}",
            f"set_inode_field {SEED_FOLDER}/{name} mode 0100600",
        ]
    script = work / "seed.debugfs"
    script.write_text("".join(f"{line}\n" for line in commands))
    try:
        done = runner.run(
            ["debugfs", "-w", "-f", str(script.absolute()), f"{disk.absolute()}?offset={offset}"], cwd=folder
        )
    finally:
        for path in (*folder.iterdir(), script):
            path.unlink()
        folder.rmdir()
    # It ends with 0 whatever happened. Its first line is its version.
    problems = done.stderr.splitlines()[1:]
    if problems:
        raise ImagegenError(f"debugfs could not put the seed of {seed.node} into its image: {problems[0]}")


def _list_new_folders() -> list[str]:
    """The folders from ``/var/lib`` down: hygiene has taken ``/var/lib/cloud`` out of the image."""
    parts = PurePosixPath(SEED_FOLDER).relative_to("/var/lib").parts
    return ["/var/lib/" + "/".join(parts[: depth + 1]) for depth in range(len(parts))]
