"""Container images without a container engine: layer, configuration, manifest, as registries serve them."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagegen.emit import emit_json
from imagegen.fetch.images import ImageReference, parse_reference
from mirror.layout import Mirror, replace_text

_OCI = "application/vnd.oci.image"
#: a file capability (vfs_cap_data, revision 2, effective) that lets a non-root program bind port 53
BIND_SERVICE = "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFile:
    """A regular file, or a symlink when ``link`` is set. ``path`` has no slash in front."""

    path: str
    body: bytes = b""
    mode: int = 0o755
    link: str = ""
    capability: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """``settings`` are those of the OCI image configuration: Entrypoint, User, WorkingDir …"""

    reference: str
    files: Sequence[LayerFile]
    settings: Mapping[str, object] = field(default_factory=dict)


def has_image(mirror: Mirror, reference: str, origin: str) -> bool:
    """Whether the image is there and was made from what it would be made from now."""
    return mirror.has_manifest(reference) and mirror.origin_of(reference) == origin


def add_image(mirror: Mirror, image: Image, origin: str) -> None:
    """Write blobs first, then the manifest under its digest, then under its tag, then its origin."""
    reference = parse_reference(image.reference)
    layer = _pack_layer(image.files)
    packed = gzip.compress(layer, 6, mtime=0)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": dict(image.settings),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _add_blob(mirror, reference, emit_json(config).encode(), f"{_OCI}.config.v1+json"),
        "layers": [_add_blob(mirror, reference, packed, f"{_OCI}.layer.v1.tar+gzip")],
    }
    text = emit_json(manifest)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    replace_text(mirror.path(f"{reference.base}/manifests/sha256:{sha256}"), text)
    replace_text(mirror.path(reference.download.url), text)
    mirror.note_origin(image.reference, {"sha256": sha256, "made_from": origin})


def _add_blob(mirror: Mirror, reference: ImageReference, body: bytes, media_type: str) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    path = mirror.path(f"{reference.base}/blobs/{digest}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(body)
    partial.replace(path)
    return {"mediaType": media_type, "digest": digest, "size": len(body)}


def _pack_layer(files: Sequence[LayerFile]) -> bytes:
    """A tar with every folder before what lies in it; the same bytes for the same files."""
    folders = {
        str(parent)
        for file in files
        for parent in Path(file.path).parents
        if str(parent) != "." and not any(f.path == str(parent) for f in files)
    }
    entries = {folder: LayerFile(path=folder) for folder in folders} | {file.path: file for file in files}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(entries):
            file, entry = entries[path], tarfile.TarInfo(path)
            entry.mode = file.mode
            if path in folders:
                entry.type = tarfile.DIRTYPE
            elif file.link:
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, file.link, 0o777
            else:
                entry.size = len(file.body)
            if file.capability:
                entry.pax_headers = {"SCHILY.xattr.security.capability": file.capability}
            archive.addfile(entry, io.BytesIO(file.body))
    return packed.getvalue()


def list_files(root: Path, *folders: str) -> list[LayerFile]:
    """What lies below ``folders`` of an unpacked package, with ``/bin`` and the like merged into ``/usr``."""
    found = []
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            name = str(path.relative_to(root))
            if name.split("/")[0] in {"bin", "sbin", "lib", "lib64"}:
                name = f"usr/{name}"
            if path.is_symlink():
                found.append(LayerFile(path=name, link=str(path.readlink())))
            elif path.is_file():
                found.append(LayerFile(path=name, body=path.read_bytes(), mode=path.stat().st_mode & 0o755))
    return found
