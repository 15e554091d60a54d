"""What a build would do: layers that are cached, why the others are made, files to write and their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagegen.backends.image.batch import find_missing, path_of, read_artifacts
from imagegen.backends.image.changes import explain_layers
from imagegen.backends.image.imageplan import ImagePlan
from imagegen.backends.image.layers import LayerCache


@dataclass(frozen=True, slots=True)
class LayerOutlook:
    """``reason`` says why a layer is made; empty for one that is there."""

    kind: str
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class FileOutlook:
    """``size_bytes`` is that of the file in OUT, which may be one of an earlier build; None without one."""

    kind: str
    path: str
    is_unchanged: bool
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class ImageOutlook:
    """One image, with its layers, the lowest first."""

    name: str
    layers: tuple[LayerOutlook, ...]
    files: tuple[FileOutlook, ...]


def look_ahead(images: Sequence[ImagePlan], cache: LayerCache, out: Path) -> list[ImageOutlook]:
    """What a build of ``images`` into ``out`` would do. Writes nothing; a folder that is not there is not
    made for this. Raises UsageError when ``out`` cannot be an output folder.
    """
    if out.is_dir():
        wanted = {path_of(*job) for job in find_missing(images, out)}
        sizes = {path: artifact.size for path, artifact in read_artifacts(images, out).items()}
    else:
        wanted, sizes = {path_of(image, kind) for image in images for kind in image.formats}, {}
    return [
        ImageOutlook(
            name=image.name,
            layers=_list_layers(image, cache),
            files=tuple(
                FileOutlook(kind.value, path, path not in wanted, sizes.get(path))
                for kind in image.formats
                for path in [path_of(image, kind)]
            ),
        )
        for image in images
    ]


def _list_layers(image: ImagePlan, cache: LayerCache) -> tuple[LayerOutlook, ...]:
    reasons = explain_layers(cache.root, image)
    return tuple(
        LayerOutlook(kind, key, "" if cache.has(kind, key) else reasons[kind]) for kind, key in image.layers
    )


def outline(outlook: Sequence[ImageOutlook]) -> list[dict[str, object]]:
    """The same as plain data."""
    return [
        {
            "image": image.name,
            "layers": [
                {"kind": layer.kind, "key": layer.key, "cached": not layer.reason}
                | ({"reason": layer.reason} if layer.reason else {})
                for layer in image.layers
            ],
            "files": [
                {"path": file.path, "unchanged": file.is_unchanged, "size": file.size_bytes}
                for file in image.files
            ],
        }
        for image in outlook
    ]


def render_outlook(outlook: Sequence[ImageOutlook]) -> str:
    """The same for people, one line each."""
    lines = []
    for image in outlook:
        lines.append(image.name)
        for layer in image.layers:
            state = f"to build ({layer.reason})" if layer.reason else "cached"
            lines.append(f"  {layer.kind:6} {layer.key}  {state}")
        lines += [f"  {file.kind:6} {file.path}  {_tell_file(file)}" for file in image.files]
    return "".join(f"{line}\n" for line in lines)


def _tell_file(file: FileOutlook) -> str:
    size = "" if file.size_bytes is None else f"{file.size_bytes / (1 << 20):.1f} MiB"
    if file.is_unchanged:
        return f"unchanged, {size}"
    return f"to write (last time {size})" if size else "to write"
