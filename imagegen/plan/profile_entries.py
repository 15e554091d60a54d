"""One profile file: YAML nodes → opinions. Collects every finding; values are taken literally."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from imagegen.diagnostics import Report, Span, register_code
from imagegen.plan.items import (
    ContainerImage,
    Directory,
    File,
    Group,
    Item,
    KernelModule,
    Origin,
    Package,
    Phase,
    Port,
    Symlink,
    Sysctl,
    Unit,
    UnitState,
    User,
)
from imagegen.plan.merge import Opinion
from imagegen.plan.profile_format import SECTIONS, SYSCTL_KEYS, SYSCTL_RULE, TOP_KEYS, Key, Section
from imagegen.plan.profile_sources import SourceFault, read_profile_source
from imagegen.yamltree import NOTHING, MappingNode, ScalarNode, SequenceNode, YamlNode

UNKNOWN_KEY = register_code(
    "IMG213",
    "an unknown key in a profile",
    "`imagegen schema --profile` lists the keys of a profile. Nothing is ignored, so that a misspelt "
    "key is not a setting that silently does not happen.",
)
VALUE = register_code(
    "IMG214",
    "a value in a profile has the wrong form",
    "The message says what was wanted. Modes are quoted octal strings such as '0640'; paths are "
    "absolute and normalised; names follow the rules of the system that reads them.",
)
SOURCE_FILE = register_code(
    "IMG215",
    "a literal file of a profile cannot be taken",
    "`source:` names a regular file below the folder of its profile. Links may not lead out of that "
    "folder; folders, pipes, devices, setuid files and files that change while they are read are "
    "refused.",
)


@dataclass(slots=True, kw_only=True)
class ProfileFile:
    """One file, read. ``opinions`` come with the OS family that they are for, None for every one."""

    name: str
    span: Span
    shipped: bool
    extends: list[tuple[str, Span]] = field(default_factory=list)
    opinions: list[tuple[str | None, Opinion]] = field(default_factory=list)

    def opinions_for(self, family: str) -> Iterator[Opinion]:
        return (opinion for only, opinion in self.opinions if only in {None, family})


def read_profile(
    root: MappingNode, *, name: str, where: str, folder: Path, shipped: bool, report: Report
) -> ProfileFile:
    """The opinions of one profile. Origins name the file ``where``; ``source:`` looks into ``folder``."""
    profile = ProfileFile(name=name, span=root.span, shipped=shipped)
    reader = _Reader(profile, where, folder, report)
    for key, (key_node, value) in root.entries.items():
        if key == "description":
            reader.reason = reader.read_text(value) or ""
        elif key == "extends":
            reader.read_extends(value)
        elif key == "sysctls":
            reader.read_sysctls(value)
        elif key in SECTIONS:
            reader.read_section(key, value)
        else:
            reader.report_unknown(key_node, TOP_KEYS)
    reader.add_own_groups()
    return profile


#: what an entry said: texts, lists of texts, numbers and switches by key
_Values = dict[str, str | tuple[str, ...] | int | bool]


class _Reader:
    def __init__(self, profile: ProfileFile, where: str, folder: Path, report: Report) -> None:
        self.profile, self.where, self.folder, self.report = profile, where, folder, report
        self.reason = ""

    def report_unknown(self, node: ScalarNode, known: Iterable[str]) -> None:
        known = tuple(known)
        close = get_close_matches(node.text, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        self.report.error(UNKNOWN_KEY, f"unknown key {node.text!r}", node.span, hint=hint)

    def fail(self, node: YamlNode, message: str, hint: str | None = None) -> None:
        self.report.error(VALUE, message, node.span, hint=hint)

    def read_text(self, node: YamlNode) -> str | None:
        if not isinstance(node, ScalarNode):
            self.fail(node, f"wanted a text, got a {node.kind}")
            return None
        if node.is_plain and node.text in NOTHING:
            self.fail(node, "wanted a text, got nothing", 'an empty text is written ""')
            return None
        return node.text

    def read_extends(self, node: YamlNode) -> None:
        for item in node.items if isinstance(node, SequenceNode) else [node]:
            text = self.read_text(item)
            if text is not None:
                self.profile.extends.append((text, item.span))

    def read_sysctls(self, node: YamlNode) -> None:
        if not isinstance(node, MappingNode):
            self.fail(node, f"wanted a mapping of keys and values, got a {node.kind}")
            return
        for key, (key_node, value) in node.entries.items():
            if fault := SYSCTL_RULE(key):
                self.fail(key_node, fault, "write dots, not slashes" if "/" in key else None)
                continue
            if isinstance(value, MappingNode):
                values = self.read_entry(value, SYSCTL_KEYS)
            else:
                text = self.read_value(value, SYSCTL_KEYS["value"])
                values = None if text is None else {"value": text}
            if values is not None:
                item = Sysctl(
                    phase=Phase.BAKE,
                    origin=self.origin(key_node, values),
                    key=key,
                    value=str(values["value"]),
                )
                self.add(item, key_node, values)

    def read_section(self, name: str, node: YamlNode) -> None:
        section = SECTIONS[name]
        if not isinstance(node, SequenceNode):
            self.fail(node, f"wanted a list, got a {node.kind}", f"begin each entry of {name} with a dash")
            return
        for entry in node.items:
            values = self.read_short_or_entry(entry, section)
            if values is None:
                continue
            if name == "packages":
                self.add_packages(entry, values)
            elif (item := self.make_item(name, entry, values)) is not None:
                self.add(item, entry, values)

    def read_short_or_entry(self, node: YamlNode, section: Section) -> _Values | None:
        if isinstance(node, MappingNode):
            return self.read_entry(node, section.keys)
        if section.short is None or not isinstance(node, ScalarNode):
            self.fail(node, f"wanted a mapping, got a {node.kind}")
            return None
        text = self.read_value(node, section.keys[section.short])
        return None if text is None else {section.short: text}

    def read_entry(self, node: MappingNode, keys: Mapping[str, Key]) -> _Values | None:
        """The values of one mapping; None when any is wrong, so that nothing half-right is planned."""
        values: _Values = {}
        fine = True
        for name, (key_node, value) in node.entries.items():
            if name not in keys:
                self.report_unknown(key_node, keys)
                fine = False
                continue
            got = self.read_value(value, keys[name])
            if got is None:
                fine = False
            else:
                values[name] = got
        missing = [name for name, key in keys.items() if key.required and name not in node.entries]
        if missing:
            self.fail(node, f"the entry has no {' and no '.join(missing)}")
        return values if fine and not missing else None

    def read_value(self, node: YamlNode, key: Key) -> str | tuple[str, ...] | int | bool | None:
        if key.kind == "texts":
            if not isinstance(node, SequenceNode):
                self.fail(node, f"wanted a list, got a {node.kind}")
                return None
            single = Key(rule=key.rule, choices=key.choices)
            texts = [self.read_value(item, single) for item in node.items]
            return None if None in texts else tuple(str(text) for text in texts)
        text = self.read_text(node)
        if text is None:
            return None
        assert isinstance(node, ScalarNode)
        return self.read_scalar(node, text, key)

    def read_scalar(self, node: ScalarNode, text: str, key: Key) -> str | int | bool | None:
        if key.kind == "switch":
            if node.is_plain and text in {"true", "false"}:
                return text == "true"
            self.fail(node, f"wanted true or false, got {text!r}")
            return None
        if key.kind == "number":
            if node.is_plain and re.fullmatch(r"[1-9]\d{0,4}", text) and int(text) <= 65533:
                return int(text)
            self.fail(node, f"wanted a number from 1 to 65533, got {text!r}")
            return None
        if key.quoted and node.is_plain:
            shown = f"'{text}'" if len(text) == 4 else "'0644'"
            self.fail(node, f"wanted a quoted mode, got {text} without quotes", f"write {shown}")
            return None
        if key.choices and text not in key.choices:
            close = get_close_matches(text, key.choices, 1)
            hint = f"did you mean {close[0]}?" if close else None
            self.fail(node, f"wanted one of {', '.join(key.choices)}, got {text!r}", hint)
            return None
        fault = key.rule(text) if key.rule else None
        if fault:
            self.fail(node, fault)
            return None
        return text

    def origin(self, node: YamlNode, values: _Values) -> Origin:
        return Origin(self.where, node.line, str(values.get("reason", self.reason)))

    def add(self, item: Item, node: YamlNode, values: _Values, family: str | None = None) -> None:
        span = None if self.profile.shipped else node.span
        self.profile.opinions.append((family, Opinion(item, span, bool(values.get("replace", False)))))

    def add_packages(self, node: YamlNode, values: _Values) -> None:
        names = {family: str(values[family]) for family in ("debian", "rpm") if family in values}
        if bool(names) == ("name" in values):
            self.fail(node, "wanted either a name, or names by system: debian, rpm")
            return
        origin = self.origin(node, values)
        for family, name in names.items():
            self.add(Package(phase=Phase.BAKE, origin=origin, name=name), node, values, family)
        if "name" in values:
            self.add(Package(phase=Phase.BAKE, origin=origin, name=str(values["name"])), node, values)

    def add_own_groups(self) -> None:
        """A user without a named group gets one of its own name, unless the file describes that group."""
        groups = {o.item.name for _, o in self.profile.opinions if isinstance(o.item, Group)}
        for _, opinion in tuple(self.profile.opinions):
            user = opinion.item
            if isinstance(user, User) and user.group == user.name and user.name not in groups:
                group = Group(phase=Phase.BAKE, origin=user.origin, name=user.name)
                self.profile.opinions.append((None, Opinion(group, opinion.span)))

    def read_content(self, node: YamlNode, values: _Values, *, required: bool) -> str | bytes | None:
        """The body of a file or unit; None when there is none, or it cannot be had (then with a finding)."""
        if "content" in values and "source" in values:
            self.fail(node, "wanted content or source, got both")
        elif "content" in values:
            return str(values["content"])
        elif "source" in values:
            assert isinstance(node, MappingNode)
            source = node.get("source")
            try:
                return read_profile_source(self.folder, str(values["source"]))
            except SourceFault as fault:
                span = source.span if source is not None else node.span
                self.report.error(SOURCE_FILE, f"source {values['source']!r} {fault}", span, hint=fault.hint)
        elif required:
            self.fail(
                node, "the entry has neither content nor source", 'an empty file is written content: ""'
            )
        return None

    def make_item(self, section: str, node: YamlNode, values: _Values) -> Item | None:
        origin = self.origin(node, values)
        text = {key: value for key, value in values.items() if isinstance(value, str)}
        if section == "files":
            content = self.read_content(node, values, required=True)
            if content is None:
                return None
            owned = {key: text[key] for key in ("mode", "owner", "group") if key in text}
            return File(phase=Phase.BAKE, origin=origin, path=text["path"], content=(content,), **owned)
        if section == "directories":
            owned = {key: text[key] for key in ("mode", "owner", "group") if key in text}
            return Directory(phase=Phase.BAKE, origin=origin, path=text["path"], **owned)
        if section == "symlinks":
            return Symlink(phase=Phase.BAKE, origin=origin, path=text["path"], target=text["target"])
        if section == "modules":
            return KernelModule(phase=Phase.BAKE, origin=origin, name=text["name"].replace("-", "_"))
        if section == "units":
            return self.make_unit(node, values, origin)
        if section == "masks":
            return Unit(
                phase=Phase.BAKE, origin=origin, name=text["name"], content=None, state=UnitState.MASKED
            )
        if section == "container_images":
            return ContainerImage(phase=Phase.BAKE, origin=origin, reference=text["reference"])
        if section == "ports":
            return _make_port(values, origin)
        return _make_account(section, values, origin)

    def make_unit(self, node: YamlNode, values: _Values, origin: Origin) -> Item | None:
        state = UnitState(str(values.get("state", "enabled")))
        content: str | None = None
        if "content" in values or "source" in values:
            body = self.read_content(node, values, required=True)
            if body is None:
                return None
            if isinstance(body, bytes) or not re.search(r"^\[[A-Z]\w+\]\s*$", body, re.MULTILINE):
                self.fail(node, "wanted the text of a unit with sections such as [Service]")
                return None
            content = body
        if content is not None and state is UnitState.MASKED:
            self.fail(node, "a masked unit has no content")
            return None
        return Unit(phase=Phase.BAKE, origin=origin, name=str(values["name"]), content=content, state=state)


def _make_port(values: _Values, origin: Origin) -> Port:
    first, _, last = str(values["port"]).partition("-")
    sources = values.get("sources", ())
    assert isinstance(sources, tuple)
    return Port(
        phase=Phase.BAKE,
        origin=origin,
        first=int(first),
        last=int(last or first),
        protocol="udp" if values.get("protocol") == "udp" else "tcp",
        purpose=str(values["purpose"]),
        sources=sources,
    )


def _make_account(section: str, values: _Values, origin: Origin) -> Item:
    name = str(values["name"])
    if section == "groups":
        gid = values.get("gid")
        return Group(phase=Phase.BAKE, origin=origin, name=name, gid=gid if isinstance(gid, int) else None)
    groups, uid = values.get("groups", ()), values.get("uid")
    assert isinstance(groups, tuple)
    return User(
        phase=Phase.BAKE,
        origin=origin,
        name=name,
        group=str(values.get("group", name)),
        uid=uid if isinstance(uid, int) else None,
        groups=groups,
        home=str(values.get("home", "/nonexistent")),
        shell=str(values.get("shell", "/usr/sbin/nologin")),
        system=bool(values.get("system", True)),
        gecos=str(values.get("gecos", "")),
    )
