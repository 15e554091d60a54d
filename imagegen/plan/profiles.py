"""Loads profile files: what is on a machine, as data. One file a role, never templated, all findings at once.

Shipped profiles lie in ``profiles/``. A file of the user's own folder adds to the shipped profile of the same
name; any other name must be reached by ``extends``. ``imagegen.plan.merge`` settles disagreements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from imagegen.diagnostics import Report, Span, register_code
from imagegen.model.cluster import Cluster, Role
from imagegen.plan.merge import Opinion
from imagegen.plan.profile_entries import ProfileFile, read_profile
from imagegen.plan.profile_format import PROFILE_NAME
from imagegen.resources import find_resource
from imagegen.source import display_name, parse_yaml, read_source
from imagegen.yamltree import MappingNode

FOLDER = register_code(
    "IMG210",
    "a profile folder cannot be used",
    "A profile folder holds files named after a role (base, etcd, master, worker, lb) or after a "
    "profile that another one extends, each ending in .yaml, and at most 200 of them. Literal file "
    "bodies lie beside them or below.",
)
EXTENDS = register_code(
    "IMG211",
    "a profile extends what does not exist, or itself",
    "`extends` names other profiles of imagegen or of your own folders. The chain must end: a profile "
    "cannot extend itself, not even by way of others.",
)
UNUSED = register_code(
    "IMG212",
    "a profile that nothing uses",
    "The file is neither named after a role (base, etcd, master, worker, lb) nor extended by a profile "
    "that is, so nothing in it reaches a machine. Rename it, or extend it.",
)

_MAX_FILES = 200
_ROLES = tuple(role.value for role in Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """Every profile file, shipped ones first; ``order``: profile → what it stands on, deepest first."""

    files: tuple[ProfileFile, ...]
    order: dict[str, tuple[str, ...]]

    def opinions(self, cluster: Cluster, roles: Sequence[Role]) -> Iterator[Opinion]:
        """What the profiles want on a machine with ``roles``, by the package names of its system.

        A master that runs pods stands on what imagegen ships for workers, too, but not on the user's files.
        """
        family = cluster.image.os.family
        names = dict.fromkeys(name for role in roles for name in self.order.get(role.value, ()))
        runs_pods = cluster.has_kubelet(tuple(roles))
        shipped = dict.fromkeys(self.order.get(Role.WORKER.value, ()) if runs_pods else ())
        for name in names | shipped:
            for file in self.files:
                if file.name == name and (name in names or file.shipped):
                    yield from file.opinions_for(family)


def load_profiles(dirs: Sequence[str], report: Report) -> Profiles:
    """The shipped profiles and those of ``dirs``; faults are findings in ``report``."""
    files = list(_read_folder(find_resource("profiles"), report, shipped=True))
    for folder in dict.fromkeys(dirs):
        files += _read_folder(Path(folder), report, shipped=False)
    order = _order_profiles(files, report)
    _report_unused(files, order, report)
    return Profiles(files=tuple(files), order=order)


def _read_folder(folder: Path, report: Report, *, shipped: bool) -> Iterator[ProfileFile]:
    shown = display_name(folder)
    try:
        paths = sorted(
            p for p in folder.iterdir() if p.suffix in {".yaml", ".yml"} and not p.name.startswith(".")
        )
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        report.error(FOLDER, f"the profile folder {shown} cannot be read: {reason}")
        return
    if not paths:
        report.warning(FOLDER, f"the profile folder {shown} holds no .yaml file")
    if len(paths) > _MAX_FILES:
        report.error(
            FOLDER, f"the profile folder {shown} holds {len(paths)} profiles, wanted at most {_MAX_FILES}"
        )
        return
    for path in paths:
        file = f"profiles/{path.name}" if shipped else display_name(path)
        if path.suffix == ".yml" or not PROFILE_NAME.fullmatch(path.stem):
            report.error(
                FOLDER,
                f"{path.name!r} is no name of a profile",
                Span(file, 1, 1),
                hint="use lower-case letters, digits and dashes, ending in .yaml",
            )
            continue
        text = read_source(path, report)
        root = parse_yaml(text, file, report) if text is not None else None
        if root is None:
            continue
        if not isinstance(root, MappingNode):
            report.error(FOLDER, f"wanted a mapping, got a {root.kind}", root.span)
            continue
        where = f"imagegen's {file}" if shipped else f"{folder.name}/{path.name}"
        yield read_profile(root, name=path.stem, where=where, folder=folder, shipped=shipped, report=report)


def _order_profiles(files: Sequence[ProfileFile], report: Report) -> dict[str, tuple[str, ...]]:
    """Name → everything it stands on, deepest first, itself last. Unknown names and circles are reported."""
    known = {file.name for file in files}
    for file in files:
        for name, span in file.extends:
            if name not in known:
                close = get_close_matches(name, sorted(known), 1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
                report.error(EXTENDS, f"no profile is named {name!r}", span, hint=hint)
    order: dict[str, tuple[str, ...]] = {}
    for name in sorted(known):
        _visit(name, files, order, [], report)
    return order


def _visit(
    name: str,
    files: Sequence[ProfileFile],
    order: dict[str, tuple[str, ...]],
    path: list[str],
    report: Report,
) -> tuple[str, ...]:
    if name in order:
        return order[name]
    below: list[str] = []
    for file in files:
        if file.name != name:
            continue
        for other, span in file.extends:
            if other in [*path, name]:
                circle = " → ".join([*path, name, other])
                report.error(EXTENDS, f"profiles extend each other in a circle: {circle}", span)
            else:
                below += _visit(other, files, order, [*path, name], report)
    result = tuple(dict.fromkeys([*below, name]))
    order[name] = result
    return result


def _report_unused(files: Sequence[ProfileFile], order: dict[str, tuple[str, ...]], report: Report) -> None:
    used = {name for role in _ROLES for name in order.get(role, ())}
    for file in files:
        if not file.shipped and file.name not in used:
            close = get_close_matches(file.name, _ROLES, 1)
            hint = (
                f"did you mean {close[0]}?"
                if close
                else "name it after a role, or extend it from such a profile"
            )
            report.warning(UNUSED, f"nothing uses the profile {file.name}", file.span, hint=hint)
