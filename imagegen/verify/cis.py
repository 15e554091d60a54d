"""The CIS benchmark on one node: which checks its roles call for, and what they say of the facts.

The checks are data (``cis.yaml``); where facts come from is the business of ``cisfacts``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from imagegen.kubernetes.apiserver import TOKEN_FILE
from imagegen.model.cluster import Role
from imagegen.model.version import Version, parse_version
from imagegen.plan.plan import NodePlan

_DATA = Path(__file__).with_name("cis.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFact:
    """What a file's status says. ``owner`` is ``USER:GROUP``."""

    mode: int
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One node: flags and configuration of each program that runs there, and files by path.

    A flag without a value has the value ``true``. ``complete`` is False when files that daemons write
    themselves cannot be there, as in a plan.
    """

    flags: Mapping[str, Mapping[str, str]]
    configurations: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, FileFact]
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CisCheck:
    """One row of the benchmark. ``automated`` is False for what kube-bench leaves to people."""

    id: str
    role: Role
    title: str
    automated: bool
    waiver: str
    since: Version | None
    files: tuple[str, ...]
    mode: int | None
    owner: str
    must_exist: bool
    program: str
    flags: tuple[str, ...]
    fields: tuple[str, ...]
    rule: str
    wanted: str
    unset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``problem`` is empty when the check passes; ``waiver`` says why a problem is none."""

    check: CisCheck
    problem: str

    @property
    def waiver(self) -> str:
        return self.check.waiver if self.problem else ""

    @property
    def passed(self) -> bool:
        return not self.problem or bool(self.waiver)


_TOKENS_WANTED = "bootstrap.method is token-file, and check has warned of it"


def list_cis_checks(node: NodePlan, version: Version) -> tuple[CisCheck, ...]:
    """The checks that the roles of a node call for, in the order of the benchmark.

    A master that runs a kubelet is judged as a worker, too.
    """
    has_kubelet = any(item.identity == ("unit", "kubelet.service") for item in node.role_plan.items)
    roles = {*node.node.roles, *((Role.WORKER,) if has_kubelet else ())}
    has_tokens = any(item.identity == ("path", TOKEN_FILE) for item in node.role_plan.items)
    return tuple(
        replace(check, waiver=_TOKENS_WANTED) if has_tokens and "token-auth-file" in check.flags else check
        for check in load_benchmark()
        if check.role in roles and (check.since is None or version >= check.since)
    )


def judge(check: CisCheck, facts: Facts) -> Verdict:
    """What one check says of one node."""
    find = _check_files if check.files else _check_settings
    return Verdict(check=check, problem="; ".join(find(check, facts)))


def _check_files(check: CisCheck, facts: Facts) -> Iterator[str]:
    found = {p: f for p, f in facts.files.items() if any(fnmatch.fnmatchcase(p, x) for x in check.files)}
    if not found and check.must_exist and facts.complete:
        yield f"there is none of {', '.join(check.files)}"
    for path, fact in sorted(found.items()):
        if check.mode is not None and fact.mode & ~check.mode:
            yield f"{path}: wanted mode {check.mode:04o} or less, got {fact.mode:04o}"
        if check.owner and fact.owner != check.owner:
            yield f"{path}: wanted owner {check.owner}, got {fact.owner}"


def _check_settings(check: CisCheck, facts: Facts) -> Iterator[str]:
    if check.program not in facts.flags:
        yield f"{check.program} does not run"
        return
    for index, flag in enumerate(check.flags):
        field = check.fields[index] if check.fields else ""
        name = f"{check.program} --{flag}" + (f" ({field})" if field else "")
        value = facts.flags[check.program].get(flag)
        if value is None and field:
            value = _read_field(facts.configurations.get(check.program, {}), field)
        problem = _check_value(check, value)
        if problem:
            yield f"{name}: {problem}"


def _read_field(document: Mapping[str, Any], path: str) -> str | None:
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_value(check: CisCheck, value: str | None) -> str:
    if check.unset == "wanted":
        return "" if value is None else f"wanted nothing, got {value}"
    if value is None:
        return "" if check.unset == "fine" else "is not set"
    parts = re.split(r"[,\s]+", value)
    good = {
        "": bool(value),
        "is": value == check.wanted,
        "has": check.wanted in parts,
        "lacks": check.wanted not in parts,
        "at_least": value.isdecimal() and check.rule == "at_least" and int(value) >= int(check.wanted),
    }[check.rule]
    return "" if good else f"wanted {check.rule.replace('_', ' ')} {check.wanted}, got {value}"


@cache
def load_benchmark() -> tuple[CisCheck, ...]:
    """Every check in the order of the file."""
    document = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    waivers = {str(row["id"]): str(row["reason"]) for row in document["waived"]}
    checks = tuple(_read_check(row, waivers) for row in document["checks"])
    unknown = waivers.keys() - {check.id for check in checks}
    if unknown:
        raise ValueError(f"cis.yaml: waivers for checks that do not exist: {', '.join(sorted(unknown))}")
    return checks


_RULES = ("is", "has", "lacks", "at_least")
_KEYS = {
    *("id", "role", "title", "by", "since", "files", "mode", "owner", "must_exist"),
    *("program", "flag", "flags", "field", "fields", "unset", *_RULES),
}


def _read_check(row: Mapping[str, Any], waivers: Mapping[str, str]) -> CisCheck:
    number = str(row["id"])
    rules = [rule for rule in _RULES if rule in row]
    if row.keys() - _KEYS or len(rules) > 1 or ("files" in row) == ("program" in row):
        raise ValueError(f"cis.yaml: check {number} is not well-formed")
    return CisCheck(
        id=number,
        role=Role(row["role"]),
        title=row["title"],
        automated=row.get("by") != "people",
        waiver=waivers.get(number, ""),
        since=parse_version(row["since"]) if "since" in row else None,
        files=tuple(row.get("files", ())),
        mode=int(row["mode"], 8) if "mode" in row else None,
        owner=row.get("owner", ""),
        must_exist=row.get("must_exist", False),
        program=row.get("program", ""),
        flags=tuple(row.get("flags", [row["flag"]] if "flag" in row else ())),
        fields=tuple(row.get("fields", [row["field"]] if "field" in row else ())),
        rule=rules[0] if rules else "",
        wanted=str(row[rules[0]]) if rules else "",
        unset=row.get("unset", ""),
    )
