"""Fits what components ask for to the operating system: names of packages, Python, units for an old systemd.

Components write for the systems of golden images; what differs elsewhere is in ``imagegen.model.systems``.
What users ask for in profiles of their own stays as they wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from imagegen.model.systems import SystemFacts
from imagegen.plan.items import Directory, File, Item, Origin, Package, Phase, Unit
from imagegen.plan.oldunits import fit_unit, needs_fitting

#: the reason of packages that the cluster file names
_USERS_OWN = "image.packages"
_DROP_INS = "/etc/systemd/system/"
_PYTHON = "#!/usr/bin/python3 "
_ORIGIN = Origin("component fitting", reason="the system's own Python is too old for our programs")


def fit_items(items: Iterable[Item], facts: SystemFacts) -> tuple[Item, ...]:
    """``items`` as this system takes them; on the systems of golden images, ``items`` themselves."""
    if not (facts.packages or facts.python_prefix or needs_fitting(facts.systemd)):
        return tuple(items)
    fitted: list[Item] = []
    for item in items:
        fitted += _fit(item, facts)
    return tuple(dict.fromkeys(fitted))


def _fit(item: Item, facts: SystemFacts) -> Iterator[Item]:
    match item:
        case Package() if item.name in facts.packages and not item.origin.reason.startswith(_USERS_OWN):
            name = facts.packages[item.name]
            if name is not None:
                yield replace(item, name=name)
        case Unit() if item.content is not None and needs_fitting(facts.systemd):
            text, directories = fit_unit(item.content)
            yield replace(item, content=text)
            for path, mode, owner in directories:
                yield Directory(
                    phase=item.phase, origin=item.origin, path=path, mode=mode, owner=owner, group=owner
                )
        case File() if item.path.startswith(_DROP_INS) and needs_fitting(facts.systemd):
            yield replace(item, content=(fit_unit(str(item.content[0]))[0],))
        case File() if facts.python_prefix is not None and _is_python(item):
            yield _change_python(item, facts.python)
            yield _plan_python(facts.python, facts.python_prefix)
        case _:
            yield item


def _is_python(file: File) -> bool:
    return bool(file.content) and isinstance(file.content[0], str) and file.content[0].startswith(_PYTHON)


def _change_python(file: File, python: str) -> File:
    first = str(file.content[0]).removeprefix(_PYTHON)
    return replace(file, content=(f"#!{python} {first}", *file.content[1:]))


def _plan_python(path: str, prefix: str) -> File:
    """Software collections lie outside of the search path for libraries."""
    text = f'#!/bin/sh\nLD_LIBRARY_PATH={prefix}/lib64 exec {prefix}/bin/python3 "$@"\n'
    return File(phase=Phase.BAKE, origin=_ORIGIN, path=path, content=(text,), mode="0755")
