"""The user's own profile folders: they exist, and those of the cluster file stay below its folder."""

from __future__ import annotations

import os
from pathlib import Path

from imagegen.diagnostics import Report, register_code
from imagegen.model.draft import Draft
from imagegen.model.refusals import closest, show

BAD_FOLDER = register_code(
    "IMG150",
    "a profile folder cannot be used",
    "profiles: names folders relative to the cluster file. They must exist and lie below its folder, "
    "also after symbolic links are followed, so that a cluster file from elsewhere cannot pull in "
    "other files of yours. --profiles DIR takes any folder.",
)


def find_profile_dirs(draft: Draft, path: Path, extra: tuple[str, ...], report: Report) -> tuple[str, ...]:
    """Absolute paths of all profile folders, those of the file first. What cannot be used is reported."""
    base = Path(os.path.realpath(path.parent))
    found: list[str] = []
    for number, name in enumerate(draft.document.profiles):
        where = f"profiles[{number}]"
        folder = os.path.realpath(base / name) if _is_path(name) else ""
        problem, hint = _judge_folder(name, folder, base)
        if problem:
            report.error(BAD_FOLDER, problem, draft.spans[where], hint=hint, path=where)
        elif folder in found:
            report.error(
                BAD_FOLDER, f"the folder {show(name)} is given twice", draft.spans[where], path=where
            )
        else:
            found.append(folder)
    return (*found, *(os.path.abspath(name) for name in extra))


def _is_path(name: str) -> bool:
    return bool(name) and name.isprintable() and not os.path.isabs(name)


def _judge_folder(name: str, folder: str, base: Path) -> tuple[str, str | None]:
    if not _is_path(name):
        return f"wanted a relative path, got {show(name)}", "--profiles takes any folder"
    if not Path(folder).is_relative_to(base):
        return f"{show(name)} traverses outside the folder of the cluster file", "--profiles takes any folder"
    try:
        if os.path.isdir(folder):
            os.listdir(folder)
            return "", None
    except OSError as error:
        return f"the folder {show(name)} cannot be read: {(error.strerror or str(error)).lower()}", None
    if os.path.lexists(folder):
        return f"wanted a folder, got the file {show(name)}", "name the folder that the profiles are in"
    try:
        beside = [entry.name for entry in os.scandir(base) if entry.is_dir()]
    except OSError:
        beside = []
    return f"there is no folder {show(name)}", closest(name, beside)
