"""The one date that goes into artifacts: ``SOURCE_DATE_EPOCH``, else a fixed day, never the clock."""

from __future__ import annotations

from collections.abc import Mapping

from imagegen.errors import UsageError

#: 2026-01-01T00:00:00Z, used when SOURCE_DATE_EPOCH is not set, so that plain runs are repeatable as well
DEFAULT_EPOCH = 1_767_225_600

#: ISO 9660 directory records count years from 1900 in one byte, so 2155 is the last
_LAST = 5_869_583_999


def read_epoch(environment: Mapping[str, str]) -> int:
    """Seconds since 1970 for every date inside an artifact.

    Follows https://reproducible-builds.org/specs/source-date-epoch/. Raises UsageError when the variable is
    set to something that is not a whole number of seconds between 1970 and 2155.
    """
    text = environment.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return DEFAULT_EPOCH
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _LAST):
        raise UsageError(
            f"SOURCE_DATE_EPOCH: wanted whole seconds since 1970 and before 2156, got {text[:40]!r}",
            hint="unset it, or take the date of the last commit: git log -1 --format=%ct",
        )
    return int(text)
