"""The source documents as data: what each of the five hand-built systems consists of, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
NAMES = ("s0", "s1", "s2", "s3", "s4")


@cache
def read_document(name: str) -> dict[str, Any]:
    """The facts of one document."""
    document: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    return document


@cache
def list_flags(name: str) -> dict[tuple[str, str], str]:
    """(component, flag without dashes) → value, of every daemon in one document."""
    flags = read_document(name).get("flags", {})
    return {
        (component, flag): str(value) for component, values in flags.items() for flag, value in values.items()
    }


@cache
def list_lines(name: str) -> tuple[str, ...]:
    """Every line of one document, in its order."""
    document = read_document(name)
    return tuple(dict.fromkeys(line for key, value in document.items() for line in _LISTERS[key](value)))


def _list_facts(values: dict[str, Any]) -> Iterator[str]:
    yield from (f"fact {key}: {value}" for key, value in values.items())


def _list_paths(kind: str, paths: dict[str, dict[str, str]]) -> Iterator[str]:
    for path, about in paths.items():
        yield f"{kind} {path}"
        yield from (f"{kind} {path} {key} {value}" for key, value in about.items())


def _list_users(users: dict[str, dict[str, str]]) -> Iterator[str]:
    for name, about in users.items():
        yield f"user {name}"
        yield from (f"user {name} {key} {value}" for key, value in about.items())


def _list_certificates(certificates: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, about in certificates.items():
        yield f"certificate {name}"
        for key, value in about.items():
            match key:
                case "usages" | "names":
                    yield from (f"certificate {name} {key[:-1]} {each}" for each in value)
                case "critical":
                    yield f"certificate {name} critical"
                case _:
                    yield f"certificate {name} {key} {value}"


def _list_units(units: dict[str, dict[str, str]]) -> Iterator[str]:
    for name, directives in units.items():
        yield f"unit {name}"
        for key, value in directives.items():
            words = value.split() if key in ORDERING else [value]
            yield from (f"unit {name} {key}={word}" for word in words)


def _list_flags(flags: dict[str, dict[str, str]]) -> Iterator[str]:
    for component, values in flags.items():
        yield from (f"flag {component} --{flag}={value}" for flag, value in values.items())


def _list_settings(settings: dict[str, str]) -> Iterator[str]:
    for key, value in settings.items():
        words = key.split()
        # the order of rules is judged by people
        yield f"setting {' '.join(words[:-1]) if words[:2] == ['audit', 'rule'] else key}: {value}"


def _list_objects(objects: dict[str, str]) -> Iterator[str]:
    for name, about in objects.items():
        if not name.startswith("manifest "):
            yield f"object {name}"
        yield f"object {name}: {about}"


ORDERING = frozenset({"After", "Before", "Wants", "Requires", "WantedBy", "RequiredBy"})
_LISTERS: dict[str, Callable[[Any], Iterator[str]]] = {
    "title": lambda _: iter(()),
    "clusters": lambda _: iter(()),
    "facts": _list_facts,
    "releases": lambda values: (f"release {part}: {version}" for part, version in values.items()),
    "host": lambda values: (f"host {value}" for value in values),
    "modules": lambda values: (f"module {value}" for value in values),
    "sysctls": lambda values: (f"sysctl {key} = {value}" for key, value in values.items()),
    "groups": lambda values: (f"group {value}" for value in values),
    "users": _list_users,
    "directories": lambda values: _list_paths("directory", values),
    "files": lambda values: _list_paths("file", values),
    "certificates": _list_certificates,
    "kubeconfigs": lambda values: (f"kubeconfig {path}: {about}" for path, about in values.items()),
    "units": _list_units,
    "flags": _list_flags,
    "settings": _list_settings,
    "objects": _list_objects,
    "ports": lambda values: (f"port {where} {port}" for where, ports in values.items() for port in ports),
    "logs": lambda values: (f"log {path}" for path in values),
    "kubeadm makes": lambda values: (f"kubeadm makes {value}" for value in values),
}
