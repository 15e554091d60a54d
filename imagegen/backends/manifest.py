"""``manifest.json``: every file that imagegen made in an output folder, and what it was made from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from imagegen.errors import UsageError

NAME = "manifest.json"
_FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file. ``path`` is relative to the output folder, ``size`` in bytes.

    ``inputs`` is the same for the same inputs, so a file whose inputs have not changed need not be made
    again.
    """

    path: str
    sha256: str
    size: int
    inputs: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """The artifacts of one output folder by path. ``cluster`` is the name of the cluster that it belongs
    to.
    """

    cluster: str
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)


def is_safe_path(path: str) -> bool:
    """Whether ``path`` is relative, stays below the folder and names a file in the plainest way."""
    return bool(path) and "\0" not in path and all(part not in {"", ".", ".."} for part in path.split("/"))


def emit_manifest(cluster: str, artifacts: Iterable[Artifact]) -> bytes:
    """Canonical JSON, one artifact a line, sorted by path."""
    rows = []
    for artifact in sorted(artifacts, key=lambda a: a.path):
        row: dict[str, object] = {
            "path": artifact.path,
            "sha256": artifact.sha256,
            "size": artifact.size,
            "inputs": artifact.inputs,
        }
        if artifact.secret:
            row["secret"] = True
        rows.append("    " + json.dumps(row, ensure_ascii=False))
    head = f'{{\n  "generator": "imagegen",\n  "format": {_FORMAT},\n  "cluster": {json.dumps(cluster)},\n'
    return (head + '  "artifacts": [\n' + ",\n".join(rows) + "\n  ]\n}\n").encode()


def parse_manifest(data: bytes, place: str) -> Manifest:
    """Read what ``emit_manifest`` wrote; raises UsageError when it is anything else. ``place`` is for the
    message.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("generator") != "imagegen":
            raise ValueError("it was not made by imagegen")
        if document.get("format") != _FORMAT:
            raise ValueError(f"wanted format {_FORMAT}, got {document.get('format')!r}")
        if not isinstance(document.get("cluster"), str) or not isinstance(document.get("artifacts"), list):
            raise ValueError("wanted a cluster name and a list of artifacts")
        artifacts = {a.path: a for a in map(_read_artifact, document["artifacts"])}
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{place} is not a manifest of imagegen: {error}",
            hint="choose another folder with -o OUT, or move that file away",
        ) from error
    return Manifest(document["cluster"], artifacts)


def _read_artifact(row: object) -> Artifact:
    if not isinstance(row, dict):
        raise ValueError("an artifact is not an object")
    path, sha256, size, inputs = (row.get(key) for key in ("path", "sha256", "size", "inputs"))
    if not isinstance(path, str) or not is_safe_path(path):
        raise ValueError(f"it names a file outside the folder: {path!r}")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"the entry of {path} holds no SHA-256 sum")
    if not isinstance(size, int) or not isinstance(inputs, str):
        raise ValueError(f"the entry of {path} lacks its size or inputs")
    return Artifact(path, sha256, size, inputs, row.get("secret") is True)
