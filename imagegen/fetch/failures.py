"""What can go wrong with a download, and the one error that lists all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imagegen.diagnostics import printable, register_code
from imagegen.errors import ImagegenError
from imagegen.fetch.download import Download

MISSING = register_code(
    "IMG601",
    "a release part could not be fetched",
    "The part is in neither the cache nor the mirror, and the release site did not give it. Each line names "
    "a place that was tried and what it answered. Without the release sites, fill a mirror elsewhere "
    "(or with `make mirror`) and give it with --mirror or IMAGEGEN_MIRROR.",
)
MISMATCH = register_code(
    "IMG602",
    "a checksum does not match",
    "The bytes that came are not the ones that imagegen.lock or the release site's checksum file promises. "
    "Nothing was kept. If the release was replaced on purpose, remove the part's entry from imagegen.lock.",
)
NO_CHECKSUM = register_code(
    "IMG603",
    "a checksum could not be read",
    "The release site's checksum file is missing, unreadable, or does not name the part. Without a sum "
    "nothing is fetched.",
)
REFUSED = register_code(
    "IMG604",
    "a redirect was refused",
    "The server sent the download from https to another scheme, or in a circle. Downloads never leave https.",
)
NO_SPACE = register_code(
    "IMG605",
    "the disk is full",
    "The part does not fit on the file system of the cache. Free the named number of bytes or move the cache "
    "with IMAGEGEN_CACHE. Nothing unfinished was kept.",
)
BAD_LOCK = register_code(
    "IMG606",
    "the lock file cannot be read",
    "imagegen.lock pins every part's checksum. Restore it from version control, or remove it to pin anew.",
)


class TransferError(Exception):
    """One place did not give a file. ``permanent`` means that another try at the same place is useless."""

    def __init__(
        self, message: str, *, code: str = MISSING, permanent: bool = False, absent: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.permanent = permanent
        #: the place answered, and does not have the file
        self.absent = absent


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchFailure:
    """Why one part is missing: a line for each place that was tried."""

    download: Download
    code: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.download}: {self.download.url}"]
        lines += [f"  - {printable(reason)}" for reason in self.reasons]
        return "\n".join(lines)


class FetchError(ImagegenError):
    """Not everything could be fetched; ``failures`` has one entry for every missing part."""

    def __init__(self, failures: Sequence[FetchFailure], asked: int) -> None:
        self.failures = tuple(failures)
        head = f"{len(failures)} of {asked} parts could not be fetched"
        super().__init__("\n".join([head, *map(str, failures)]))
        if any(failure.code == MISMATCH for failure in failures):
            self.hint = "remove a part's entry from imagegen.lock only if the release was replaced on purpose"
        elif any(failure.code == NO_SPACE for failure in failures):
            self.hint = "free some space, or move the cache with IMAGEGEN_CACHE"
        else:
            self.hint = "fetch on a machine that reaches the release sites, or give a mirror with --mirror"
