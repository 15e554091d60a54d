"""Images that are secrets on purpose, with the seed of their one node inside, as the manifest tells.

In such an image keys are expected in the seed, and nowhere else.
"""

from __future__ import annotations

import re
from pathlib import Path

from imagegen.backends import manifest
from imagegen.backends.image import iso, nodeseed
from imagegen.errors import UsageError
from imagegen.verify.roots import Root, tell_type

#: every folder that a seed lies in, as paths of an image's files tell it
FOLDERS = (nodeseed.SEED_FOLDER, iso.SEED_FOLDER)
_FILES = re.compile(
    rf"(?:[^!/]+\.vmdk!)?(?:partition \d+:)?(?:{'|'.join(map(re.escape, FOLDERS))})"
    r"/(?:user-data|meta-data|network-config)"
)
REASON = "the seed of the one node that this image is for"


def is_seed_file(path: str) -> bool:
    """Whether a path of ``list_entries`` is a file of an image's own seed, not of something wrapped in it."""
    return _FILES.fullmatch(path) is not None


def expects_seed(image: Path, *, said: bool) -> bool:
    """Whether an image has its node's seed inside: the user said so, or its output folder's manifest does.

    A file of another size than the manifest's is not the one that it describes. Raises UsageError when the
    manifest is damaged, or when it knows the image and contradicts the user.
    """
    artifact = _find_artifact(image)
    known = artifact is not None and artifact.size == image.stat().st_size
    if said and known and artifact is not None and not artifact.secret:
        raise UsageError(f"{image.name} has no seed inside, says its manifest", hint="leave --node-image out")
    return said or (known and artifact is not None and artifact.secret)


def _find_artifact(image: Path) -> manifest.Artifact | None:
    place = image.resolve()
    path = place.parent.parent / manifest.NAME
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return manifest.parse_manifest(data, str(path)).artifacts.get(f"{place.parent.name}/{place.name}")


def check_own_seed(root: Root) -> str:
    """Whether the seed is complete and root's alone, and nothing else of cloud-init is there."""
    problems = []
    for folder, wanted in (("/var/lib/cloud", ["seed"]), ("/var/lib/cloud/seed", ["nocloud"])):
        if root.list_names(folder) != wanted:
            got = ", ".join(root.list_names(folder)) or "nothing"
            problems.append(f"wanted {wanted[0]} alone in {folder}, got {got}")
    status = root.status(nodeseed.SEED_FOLDER)
    if status is None or tell_type(status) != "directory" or status.st_mode & 0o077:
        problems.append(f"wanted the folder {nodeseed.SEED_FOLDER} with mode 0700")
    names = root.list_names(nodeseed.SEED_FOLDER)
    if names != ["meta-data", "network-config", "user-data"]:
        problems.append(
            f"wanted meta-data, network-config and user-data, got {', '.join(names) or 'nothing'}"
        )
    for name in names:
        found = root.status(f"{nodeseed.SEED_FOLDER}/{name}")
        if found is None or tell_type(found) != "file" or found.st_mode & 0o077 or not found.st_size:
            problems.append(f"wanted {name} with mode 0600 and a content")
    return ", ".join(problems)
