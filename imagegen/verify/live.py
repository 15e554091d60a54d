"""Checks of one running node, made from its Plan: what the image holds, what the seed brought, and what runs.

A node is asked once: ``emit_probe`` is the program that goes there, ``check_node`` judges its answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagegen.backends.image.payload import Entry, entry_path
from imagegen.backends.settings import lower_settings
from imagegen.content import Content
from imagegen.errors import ImagegenError
from imagegen.plan.items import (
    Binary,
    ContainerImage,
    Directory,
    File,
    Group,
    Item,
    KernelModule,
    Login,
    Package,
    Port,
    Symlink,
    Sysctl,
    Unit,
    User,
)
from imagegen.plan.plan import NodePlan
from imagegen.verify import livestate
from imagegen.verify.outcomes import Outcome

_PROBE = Path(__file__).with_name("nodeprobe.py")
_SHARED = "the node shares this machine's kernel"
_UNREAD = "its content is not compared: the secret store is not here"

#: the bytes of a file's body, or None when a secret in it cannot be had here
Resolve = Callable[[Content], bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What the judge knows besides the plan. ``digests``: SHA-256 sums of executables by path, as far as
    known; ``excused``: why a path differs from the plan on this engine; ``shares_kernel``: the node has none
    of its own.
    """

    resolve: Resolve
    digests: Mapping[str, str] = field(default_factory=dict)
    excused: Mapping[str, str] = field(default_factory=dict)
    shares_kernel: bool = False


def list_items(plan: NodePlan) -> list[Item]:
    """Everything that a running node must have."""
    return [*plan.role_plan.items, *plan.items]


def _list_entries(items: Iterable[Item]) -> list[Entry]:
    items = list(items)
    own = [item for item in items if isinstance(item, Directory | File | Symlink | Binary | ContainerImage)]
    return [*own, *lower_settings(items)]


def emit_probe(plan: NodePlan) -> str:
    """The Python program that collects what ``check_node`` wants to know; it holds no secret."""
    items = list_items(plan)
    questions = {
        "paths": [entry_path(entry) for entry in _list_entries(items)],
        "units": [item.name for item in items if isinstance(item, Unit)],
        "sysctls": [item.key for item in items if isinstance(item, Sysctl)],
        "modules": [item.name for item in items if isinstance(item, KernelModule)],
    }
    return f"{_PROBE.read_text(encoding='utf-8')}\nQUESTIONS = {json.dumps(questions)!r}\nmain()\n"


def parse_answer(text: str) -> dict[str, Any]:
    """The probe's answer. Raises ImagegenError when it is not one."""
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise ImagegenError(f"the node's answer is not JSON: {text[:200]!r}") from error
    if not isinstance(answer, dict) or "paths" not in answer:
        raise ImagegenError(f"the node's answer lacks what was asked for: {text[:200]!r}")
    return answer


def check_node(plan: NodePlan, answer: Mapping[str, Any], expect: Expectations) -> Iterator[Outcome]:
    """Every check of one node, in a stable order."""
    place, items = plan.node.name, list_items(plan)
    for entry in sorted(_list_entries(items), key=entry_path):
        yield _check_entry(place, entry, answer, expect)
    for item in items:
        outcome = _check_item(place, item, items, answer, expect)
        if outcome is not None:
            yield outcome
    for name, problem in livestate.check_state(items, answer):
        yield Outcome(place=place, name=name, problem=problem)


def _check_item(
    place: str, item: Item, items: list[Item], answer: Mapping[str, Any], expect: Expectations
) -> Outcome | None:
    name, skipped = " ".join(item.identity), ""
    match item:
        case Unit():
            problem = livestate.check_unit(item, items, answer)
        case Sysctl():
            problem = livestate.check_sysctl(item, answer)
            if item.key in answer["stand_ins"]:
                skipped = f"{_SHARED}, and sees a file of its own in its place"
            elif expect.shares_kernel and answer["sysctls"].get(item.key) is None:
                skipped = f"{_SHARED}, which does not show it"
        case KernelModule():
            problem = livestate.check_module(item, answer)
            if expect.shares_kernel:
                skipped = _SHARED
        case Package():
            problem = "" if item.name in answer["packages"] else "not installed"
        case User():
            problem = livestate.check_user(item, answer)
        case Group():
            problem = livestate.check_group(item, answer)
        case Login():
            name = f"login {item.name}"
            problem = "" if any(row[0] == item.name for row in answer["users"]) else "there is no such user"
        case Port() if item.first == item.last and not item.by_pod:
            problem = livestate.check_port(item, answer)
        case _:
            return None
    return Outcome(place=place, name=name, problem="" if skipped else problem, skipped=skipped)


def _check_entry(place: str, entry: Entry, answer: Mapping[str, Any], expect: Expectations) -> Outcome:
    path = entry_path(entry)
    kind = {Directory: "directory", Symlink: "link", Binary: "executable"}.get(type(entry), "file")
    name = f"{kind} {path}"
    if isinstance(entry, ContainerImage):
        there = entry.reference in answer["images"]
        name = f"container image {entry.reference}"
        return Outcome(place=place, name=name, problem="" if there else "the runtime does not have it")
    if path in expect.excused:
        return Outcome(place=place, name=name, skipped=f"differs on this engine: {expect.excused[path]}")
    found = answer["paths"].get(path)
    if found is None:
        return Outcome(place=place, name=name, problem="there is nothing")
    wanted = {Directory: "directory", Symlink: "link"}.get(type(entry), "file")
    if found["type"] != wanted:
        return Outcome(place=place, name=name, problem=f"wanted a {wanted}, got a {found['type']}")
    if isinstance(entry, Symlink):
        problem = "" if found["target"] == entry.target else f"leads to {found['target']}, not {entry.target}"
        return Outcome(place=place, name=name, problem=problem)
    problem = _check_owner(entry, found)
    if problem or isinstance(entry, Directory):
        return Outcome(place=place, name=name, problem=problem)
    return _check_content(place, name, entry, found["sha256"], expect)


def _check_owner(entry: Directory | File | Binary, found: Mapping[str, Any]) -> str:
    mode = "0755" if isinstance(entry, Binary) else entry.mode
    owner = "root:root" if isinstance(entry, Binary) else f"{entry.owner}:{entry.group}"
    got = f"{found['owner']}:{found['group']}"
    wrong = [] if found["mode"] == int(mode, 8) else [f"wanted mode {mode}, got {found['mode']:04o}"]
    wrong += [] if got == owner else [f"wanted owner {owner}, got {got}"]
    return ", ".join(wrong)


def _check_content(place: str, name: str, entry: File | Binary, got: str, expect: Expectations) -> Outcome:
    if isinstance(entry, Binary):
        wanted = expect.digests.get(entry.path, got)
    else:
        body = expect.resolve(entry.content)
        if body is None:
            return Outcome(place=place, name=name, skipped=_UNREAD)
        wanted = hashlib.sha256(body).hexdigest()
    # only the beginning: a sum of a short secret would give it away
    problem = "" if got == wanted else f"wanted content with sum {wanted[:12]}, got {got[:12]}"
    return Outcome(place=place, name=name, problem=problem)
