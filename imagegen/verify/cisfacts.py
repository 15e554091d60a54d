"""Finds the facts that the CIS checks look at: in a plan, or on a running node by one shell script.

The script reads and changes nothing; it wants root, because it looks at what only root can see.
"""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import yaml

from imagegen.content import Content
from imagegen.errors import ImagegenError
from imagegen.kubernetes.kubelet import STATIC_PODS
from imagegen.model.version import Version
from imagegen.plan.items import Directory, File, Unit
from imagegen.plan.plan import NodePlan
from imagegen.verify.cis import CisCheck, Facts, FileFact, Verdict, judge, list_cis_checks
from imagegen.verify.outcomes import Outcome

#: programs with a configuration file, and the flag that names it
_CONFIG_FLAGS = {
    "etcd": "config-file",
    "kubelet": "config",
    "kube-scheduler": "config",
    "kube-proxy": "config",
}
_UNITS = "/etc/systemd/system"


def judge_node(checks: Iterable[CisCheck], run_script: Callable[[str], str]) -> list[Verdict]:
    """Every check on a running node. ``run_script`` runs a shell script there as root and gives its output;
    what it raises is passed on.
    """
    checks = tuple(checks)
    facts = parse_probe(run_script(emit_probe(checks)))
    return [judge(check, facts) for check in checks]


def emit_probe(checks: Iterable[CisCheck]) -> str:
    """The POSIX shell script that prints the facts for these checks; ``parse_probe`` reads it."""
    checks = tuple(checks)
    programs = sorted({check.program for check in checks if check.program})
    patterns = sorted({pattern for check in checks for pattern in check.files})
    lines = ["set -u", "program() {", '  pid=$(pidof -s "$1") || return 0', '  echo "program $1"']
    lines += ["  tr '\\0' '\\n' <\"/proc/$pid/cmdline\" | tail -n +2 | sed 's/^/argument /'", "}"]
    lines += ["configuration() {", '  pid=$(pidof -s "$1") || return 0']
    lines += ["  file=$(tr '\\0' '\\n' <\"/proc/$pid/cmdline\" | sed -n \"s/^--$2=//p\")"]
    lines += ['  [ -f "$file" ] && echo "configuration $1 $(base64 -w 0 "$file")"', "}"]
    lines += [f"program {shlex.quote(program)}" for program in programs]
    lines += [f"configuration {p} {_CONFIG_FLAGS[p]}" for p in programs if p in _CONFIG_FLAGS]
    # patterns are ours and hold no blanks: the shell shall expand them
    lines += [f"for file in {' '.join(patterns)}; do"] if patterns else []
    lines += ['  [ -e "$file" ] && stat -c \'file %a %U:%G %n\' "$file"', "done"] if patterns else []
    return "\n".join([*lines, "echo end"]) + "\n"


def parse_probe(text: str) -> Facts:
    """The output of the script; raises ImagegenError when it is not complete."""
    lines = text.splitlines()
    if not lines or lines[-1] != "end":
        raise ImagegenError("the node did not answer all questions of the CIS checks")
    flags: dict[str, dict[str, str]] = {}
    configurations: dict[str, Mapping[str, Any]] = {}
    files: dict[str, FileFact] = {}
    current: dict[str, str] = {}
    for line in lines[:-1]:
        kind, _, rest = line.partition(" ")
        if kind == "program":
            current = flags.setdefault(rest, {})
        elif kind == "argument" and rest.startswith("--"):
            name, equals, value = rest[2:].partition("=")
            current[name] = value if equals else "true"
        elif kind == "configuration":
            program, _, encoded = rest.partition(" ")
            configurations[program] = _parse_configuration(program, encoded)
        elif kind == "file":
            mode, owner, path = rest.split(" ", 2)
            files[path] = FileFact(mode=int(mode, 8), owner=owner)
    return Facts(flags=flags, configurations=configurations, files=files)


def _parse_configuration(program: str, encoded: str) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(base64.b64decode(encoded, validate=True))
    except (yaml.YAMLError, binascii.Error, ValueError):
        document = None
    if not isinstance(document, dict):
        raise ImagegenError(f"the configuration of {program} cannot be read")
    return document


def read_plan(node: NodePlan) -> Facts:
    """The facts as far as the plan fixes them: units, configuration, modes and owners."""
    files: dict[str, FileFact] = {}
    texts: dict[str, str] = {}
    flags: dict[str, dict[str, str]] = {}
    for item in (*node.role_plan.items, *node.items):
        match item:
            case File() | Directory():
                files[item.path] = FileFact(mode=int(item.mode, 8), owner=f"{item.owner}:{item.group}")
                if isinstance(item, File):
                    texts[item.path] = _plain_text(item.content)
                    if item.path.startswith(f"{STATIC_PODS}/"):
                        flags |= read_pod(texts[item.path])
            case Unit() if item.content is not None:
                files[f"{_UNITS}/{item.name}"] = FileFact(mode=0o644, owner="root:root")
                flags[item.name.removesuffix(".service")] = _read_exec_start(item.content)
    configurations = {
        program: yaml.safe_load(texts[path]) or {}
        for program, flag in _CONFIG_FLAGS.items()
        if (path := flags.get(program, {}).get(flag)) in texts and path is not None
    }
    return Facts(flags=flags, configurations=configurations, files=files, complete=False)


def judge_plan(node: NodePlan, checks: Iterable[CisCheck]) -> list[Verdict]:
    """Every check on a plan; files that daemons write themselves are not looked for."""
    facts = read_plan(node)
    return [judge(check, facts) for check in checks]


def _plain_text(content: Content) -> str:
    return "".join(part if isinstance(part, str) else "secret" for part in content)


def read_pod(text: str) -> dict[str, dict[str, str]]:
    """The flags of each container of a static pod, by its name."""
    containers = yaml.safe_load(text)["spec"]["containers"]
    return {one["name"]: _read_exec_start("\n".join(one["command"])) for one in containers}


def _read_exec_start(text: str) -> dict[str, str]:
    flags: dict[str, str] = {}
    for line in text.replace("\\\n", "\n").splitlines():
        word = line.strip().strip('"')
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            flags[name] = value if equals else "true"
    return flags


def check_benchmark(node: NodePlan, version: Version, run_script: Callable[[str], str]) -> Iterator[Outcome]:
    """The benchmark on a running node as outcomes; a waived check is skipped with its reason.

    ``run_script`` as for ``judge_node``.
    """
    for verdict in judge_node(list_cis_checks(node, version), run_script):
        check = verdict.check
        yield Outcome(
            place=node.node.name,
            name=f"CIS {check.id}: {check.title}",
            problem="" if verdict.passed else verdict.problem,
            skipped=f"waived: {verdict.waiver}" if verdict.waiver else "",
        )
