"""What a profile file may say: sections, keys, the rule of each value; for the loader and the JSON schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Literal

from imagegen.plan.check import find_mode_fault, find_path_fault
from imagegen.plan.items import UnitState

#: returns what is wrong with a text, or None
Rule = Callable[[str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of an entry. ``pattern`` is the rule for editors; ``rule`` is the one that decides."""

    kind: Literal["text", "number", "switch", "texts"] = "text"
    rule: Rule | None = None
    required: bool = False
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    quoted: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One list of entries. ``short`` is the key that an entry means when it is a single text."""

    text: str
    keys: Mapping[str, Key] = field(repr=False)
    short: str | None = None


def _match(pattern: str, wanted: str) -> Rule:
    compiled = re.compile(pattern)
    return lambda text: None if compiled.fullmatch(text) else f"wanted {wanted}, got {text!r}"


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _line(text: str) -> str | None:
    if not text or len(text) > 1024:
        return "wanted one line of text of at most 1,024 characters"
    return "wanted one line without control characters" if _CONTROL.search(text) else None


def _gecos(text: str) -> str | None:
    # the last three mean something in sysusers.d(5)
    return 'wanted none of : , " % and \\' if re.search(r'[:,"%\\]', text) else _line(text)


def _cidr(text: str) -> str | None:
    try:
        ip_network(text)
    except ValueError:
        return f"wanted a network such as 10.0.0.0/8, got {text!r}"
    return None


def _port(text: str) -> str | None:
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2] or match[1]) <= 65535:
        return f"wanted a port such as 9100 or a range such as 9100-9110, got {text!r}"
    return None


#: a word of passwd(5) and of sysusers.d(5)
_PLACE = r"/[A-Za-z0-9._+@/-]*"
_ACCOUNT = r"[a-z_][a-z0-9_-]{0,30}"
_PACKAGE = r"[A-Za-z0-9][A-Za-z0-9+._-]{0,127}"
_UNIT = r"[A-Za-z0-9:_.@\\-]{1,200}\.(service|socket|timer|path|mount|automount|target|slice|swap)"
_MODULE = r"[A-Za-z0-9_-]{1,63}"
_SYSCTL = r"[a-z0-9_]+(\.[A-Za-z0-9_*-]+){1,8}"
_IMAGE = r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?"
_PURPOSE = r"[A-Za-z0-9][A-Za-z0-9 ._/()+,:-]{0,79}"

_REASON = Key(rule=_line, text="one sentence on why the entry exists, shown by `imagegen explain`")
_REPLACE = Key(kind="switch", text="win over what imagegen ships on the same path, name or key")
_EXTRA = {"reason": _REASON, "replace": _REPLACE}
_OWNED = {
    "mode": Key(
        rule=lambda t: find_mode_fault(t, is_directory=False), pattern="[0-7]{4}", quoted=True, text="'0644'"
    ),
    "owner": Key(rule=_match(_ACCOUNT, "a user name"), pattern=_ACCOUNT, text="a user, root by default"),
    "group": Key(rule=_match(_ACCOUNT, "a group name"), pattern=_ACCOUNT, text="a group, root by default"),
}
_PATH = Key(rule=find_path_fault, required=True, pattern="/.+", text="absolute, without `..`")
_CONTENT = {
    "content": Key(text="the text, byte for byte; nothing in it is ever expanded"),
    "source": Key(text="a file inside the folder of this profile whose bytes are taken"),
}


def _account(what: str, *, required: bool = False) -> Key:
    return Key(
        rule=_match(_ACCOUNT, f"a {what} name"), pattern=_ACCOUNT, required=required, text=f"a {what} name"
    )


def _name(pattern: str, wanted: str) -> Key:
    return Key(rule=_match(pattern, wanted), pattern=pattern, required=True, text=wanted)


SECTIONS: Mapping[str, Section] = {
    "packages": Section(
        text="packages of the distribution; a mapping gives another name on rpm systems, or none",
        short="name",
        keys={
            "name": Key(rule=_match(_PACKAGE, "a package name"), pattern=_PACKAGE, text="on every system"),
            "debian": Key(
                rule=_match(_PACKAGE, "a package name"), pattern=_PACKAGE, text="on Debian and Ubuntu"
            ),
            "rpm": Key(rule=_match(_PACKAGE, "a package name"), pattern=_PACKAGE, text="on rpm systems"),
            "reason": _REASON,
        },
    ),
    "files": Section(text="regular files", keys={"path": _PATH, **_OWNED, **_CONTENT, **_EXTRA}),
    "directories": Section(
        text="folders",
        keys={
            "path": _PATH,
            **_OWNED,
            "mode": Key(
                rule=lambda t: find_mode_fault(t, is_directory=True),
                pattern="[0-7]{4}",
                quoted=True,
                text="'0755'",
            ),
            **_EXTRA,
        },
    ),
    "symlinks": Section(
        text="symbolic links", keys={"path": _PATH, "target": Key(rule=_line, required=True), **_EXTRA}
    ),
    "modules": Section(
        text="kernel modules, loaded now and at boot",
        short="name",
        keys={"name": _name(_MODULE, "a kernel module"), "reason": _REASON},
    ),
    "units": Section(
        text="systemd units: with content, or only the state of one that a package brings",
        keys={
            "name": _name(_UNIT, "a unit name such as node-exporter.service"),
            "state": Key(choices=tuple(state.value for state in UnitState), text="enabled by default"),
            **_CONTENT,
            **_EXTRA,
        },
    ),
    "masks": Section(
        text="units that must never start",
        short="name",
        keys={"name": _name(_UNIT, "a unit name such as apt-daily.timer"), **_EXTRA},
    ),
    "groups": Section(
        text="system groups",
        short="name",
        keys={"name": _account("group", required=True), "gid": Key(kind="number"), **_EXTRA},
    ),
    "users": Section(
        text="users without a password; system users by default",
        short="name",
        keys={
            "name": _account("user", required=True),
            "group": _account("group"),
            "uid": Key(kind="number"),
            "groups": Key(kind="texts", rule=_match(_ACCOUNT, "a group name"), pattern=_ACCOUNT),
            "home": Key(
                rule=_match(_PLACE, "an absolute path of letters, digits and . _ + @ -"),
                pattern=_PLACE,
                text="/nonexistent by default",
            ),
            "shell": Key(
                rule=_match(_PLACE, "an absolute path of letters, digits and . _ + @ -"),
                pattern=_PLACE,
                text="/usr/sbin/nologin by default",
            ),
            "system": Key(kind="switch", text="true by default"),
            "gecos": Key(rule=_gecos),
            **_EXTRA,
        },
    ),
    "ports": Section(
        text="ports that the packet filter opens",
        keys={
            "port": Key(rule=_port, required=True, pattern=r"\d{1,5}(-\d{1,5})?", text="9100 or 9100-9110"),
            "protocol": Key(choices=("tcp", "udp"), text="tcp by default"),
            "purpose": Key(rule=_match(_PURPOSE, "a short plain text"), required=True, pattern=_PURPOSE),
            "sources": Key(kind="texts", rule=_cidr, text="networks that may connect; none means anyone"),
            **_EXTRA,
        },
    ),
    "container_images": Section(
        text="container images that are on the machine before it has a network",
        short="reference",
        keys={
            "reference": _name(_IMAGE, "a full reference such as registry.k8s.io/pause:3.10.2"),
            "reason": _REASON,
        },
    ),
}

#: sysctls are a mapping: the key, and its value or a mapping of these
SYSCTL_RULE = _match(_SYSCTL, "a sysctl key such as net.ipv4.ip_forward")
SYSCTL_KEYS: Mapping[str, Key] = {"value": Key(rule=_line, required=True), **_EXTRA}
PROFILE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
TOP_KEYS = ("description", "extends", *SECTIONS, "sysctls")


def profile_schema() -> dict[str, object]:
    """JSON Schema (2020-12) of a profile file, for editors."""
    sections: dict[str, object] = {}
    for name, section in SECTIONS.items():
        entry = _entry_schema(section.keys)
        if section.short:
            entry = {"anyOf": [_key_schema(section.keys[section.short]), entry]}
        sections[name] = {"description": section.text, "type": "array", "items": entry}
    value = {"type": ["string", "number", "integer"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "imagegen profile",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "description": {"type": "string"},
            "extends": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            **sections,
            "sysctls": {
                "description": "kernel settings",
                "type": "object",
                "propertyNames": {"pattern": f"^{_SYSCTL}$"},
                "additionalProperties": {"anyOf": [value, _entry_schema({**SYSCTL_KEYS})]},
            },
        },
    }


def _entry_schema(keys: Mapping[str, Key]) -> dict[str, object]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _key_schema(key) for name, key in keys.items()},
        "required": [name for name, key in keys.items() if key.required],
    }


def _key_schema(key: Key) -> dict[str, object]:
    out: dict[str, object] = {"description": key.text} if key.text else {}
    if key.kind == "number":
        return {**out, "type": "integer", "minimum": 1, "maximum": 65533}
    if key.kind == "switch":
        return {**out, "type": "boolean"}
    text: dict[str, object] = {"type": "string"} if key.quoted else {"type": ["string", "number", "boolean"]}
    if key.choices:
        text = {"enum": list(key.choices)}
    elif key.pattern:
        text["pattern"] = f"^{key.pattern}$"
    return {**out, "type": "array", "items": text} if key.kind == "texts" else {**out, **text}
