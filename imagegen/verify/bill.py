"""Reads the sums of executables from the bill of materials that lies beside an image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from imagegen.errors import ImagegenError


def read_digests(image: Path) -> Mapping[str, str]:
    """SHA-256 by path, from ``NAME-ROLES.cdx.json``; empty when there is none. Raises ImagegenError for
    a bill that is damaged.
    """
    path = image.with_name(f"{image.name.partition('.')[0]}.cdx.json")
    if not path.is_file():
        return {}
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))["components"]
        return {
            part["bom-ref"].removeprefix("file:"): part["hashes"][0]["content"]
            for part in parts
            if part["bom-ref"].startswith("file:")
        }
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ImagegenError(f"{path} is not a bill of materials that imagegen wrote") from error
