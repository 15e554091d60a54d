"""Members of release archives, taken out without trusting the archive: no links, no paths, bounded sizes."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from imagegen.errors import ImagegenError

#: one executable; the largest of today has 130 MB
MAX_MEMBER_SIZE = 1 << 30
#: bytes read from one archive in all, so that a bomb ends
MAX_ARCHIVE_SIZE = 4 << 30


def extract_members(archive: Path, members: Mapping[str, Path], *, name: str = "", mode: int = 0o755) -> None:
    """Write regular files of a tar archive, packed or not, to the given paths; each appears only when
    complete.

    A key is the path that ``tar`` lists, with or without ``./`` in front. Nothing else of the archive is
    looked at: links, devices and names that lead elsewhere are never followed. ``name`` stands for the
    archive in messages. Raises ImagegenError when a member is missing, is not a regular file or is too large,
    and when the archive is broken.
    """
    shown = name or str(archive)
    wanted = {_normal(member): target for member, target in members.items()}
    total = 0
    try:
        with tarfile.open(archive, "r|*") as stream:
            for entry in stream:
                total += entry.size
                if total > MAX_ARCHIVE_SIZE:
                    raise ImagegenError(f"{shown}: unpacks to more than {MAX_ARCHIVE_SIZE} bytes")
                target = wanted.pop(_normal(entry.name), None)
                if target is None:
                    continue
                if not entry.isreg():
                    raise ImagegenError(f"{shown}: wanted {entry.name} to be a regular file")
                if entry.size > MAX_MEMBER_SIZE:
                    raise ImagegenError(f"{shown}: {entry.name} is larger than {MAX_MEMBER_SIZE} bytes")
                _write_member(stream, entry, target, mode)
                if not wanted:
                    break
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ImagegenError(f"{shown}: not a readable archive: {error}") from error
    if wanted:
        raise ImagegenError(f"{shown}: does not hold {', '.join(sorted(wanted))}")


def _normal(member: str) -> str:
    return member.removeprefix("./")


def _write_member(stream: tarfile.TarFile, entry: tarfile.TarInfo, target: Path, mode: int) -> None:
    source = stream.extractfile(entry)
    assert source is not None
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with source, partial.open("xb") as writer:
            shutil.copyfileobj(source, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        partial.chmod(mode)
        partial.replace(target)
    except OSError as error:
        raise ImagegenError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
