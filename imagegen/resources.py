"""Finds the data folders (profiles, packer, cloud-init, examples) in the checkout or in the wheel."""

from __future__ import annotations

from pathlib import Path

from imagegen.errors import ImagegenError

_PACKAGE = Path(__file__).resolve().parent


def find_resource(*parts: str) -> Path:
    """The file or folder that ships with imagegen, such as ``find_resource("profiles", "base.yaml")``.

    In a wheel the folders lie in ``imagegen/data``, in a checkout beside the package. Raises ImagegenError
    when the resource is in neither, ValueError for a part that would lead out of the data folders.
    """
    for part in parts:
        if part in {"", ".", ".."} or "/" in part or "\\" in part or "\0" in part:
            raise ValueError(f"not the name of a resource: {part!r}")
    for base in (_PACKAGE / "data", _PACKAGE.parent):
        path = base.joinpath(*parts)
        if path.exists():
            return path
    raise ImagegenError(
        f"imagegen's own file {'/'.join(parts)} is missing",
        hint="install imagegen again; its files are incomplete",
    )
