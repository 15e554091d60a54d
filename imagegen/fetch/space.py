"""Free space on a disk, checked before it runs out."""

from __future__ import annotations

import shutil
from pathlib import Path

from imagegen.fetch.failures import NO_SPACE, TransferError


def check_space(path: Path, needed: int) -> None:
    """Raise TransferError when the file system of ``path`` has less than ``needed`` bytes left."""
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise TransferError(
            f"{path.parent}: {needed} bytes needed, {free} free", code=NO_SPACE, permanent=True
        )
