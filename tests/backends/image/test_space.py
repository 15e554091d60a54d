"""Room is asked for before the work, a disk at a time; a full disk is told in the same words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from imagegen.backends.image.space import Need, check_space, tell_full_disk
from imagegen.errors import ImagegenError
from imagegen.run import CommandError


def test_what_lies_on_one_disk_counts_together(tmp_path: Path) -> None:
    free = Need(tmp_path, 0, "").free()
    half = free // 2 + (64 << 20)
    check_space([Need(tmp_path / "not/there/yet", half, "the base system")])
    with pytest.raises(ImagegenError) as caught:
        check_space([Need(tmp_path / "a", half, "the base system"), Need(tmp_path / "b", half, "x.qcow2")])
    text = str(caught.value)
    assert f"no space left in {tmp_path / 'a'}: about {2 * half:,} bytes are needed" in text
    assert "for the base system, x.qcow2, " in text
    assert "are free" in text


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        CommandError(
            "failed with status 1: qemu-img convert\n  error while writing: No space left on device"
        ),
    ],
)
def test_a_full_disk_is_told_with_its_place(tmp_path: Path, failure: Exception) -> None:
    needs = [Need(tmp_path / "out", 1000, "x")]
    with (
        pytest.raises(ImagegenError, match=r"no space left in .*/out: about 1,000 bytes"),
        tell_full_disk(needs),
    ):
        raise failure


def test_other_failures_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="broken"), tell_full_disk([Need(tmp_path, 1, "x")]):
        raise CommandError("broken")
