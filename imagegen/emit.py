"""Structured text out: YAML, JSON, units, sysctl.d, environment files, tables. Escapes; never interprets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

#: plain scalars that YAML 1.1 readers (cloud-init) or YAML 1.2 readers (Go) would not read as this string
_NEEDS_QUOTES = re.compile(
    r"(?i:y|n|yes|no|on|off|true|false|null|~|)\Z|[-+.\d][-+\d_.,:eExXoOa-fA-F]*\Z|\.(?i:inf|nan)\Z|[-+]\.(?i:inf)\Z|<<\Z|=\Z"
)


#: what a block scalar cannot hold as it is
_NEEDS_ESCAPES = re.compile(r"[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd]|[ \t]\n|\A[ \n]")


class _Dumper(_Base):  # type: ignore[misc]
    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_str(dumper: Any, text: str) -> Any:
    style = None
    if "\n" in text and _NEEDS_ESCAPES.search(text) is None:
        style = "|"
    elif _NEEDS_QUOTES.match(text):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_str)


def emit_yaml(value: object) -> str:
    """``value`` (dict, list, str, int, float, bool, None) as block YAML in the given key order.

    No anchors, no line folding; strings that YAML 1.1 would read as something else are quoted.
    """
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=2**31 - 1, allow_unicode=True
    )
    return text


def emit_yaml_documents(values: Iterable[object]) -> str:
    """Several documents, each with its ``---``."""
    return "".join("---\n" + emit_yaml(value) for value in values)


def emit_json(value: object) -> str:
    """Canonical JSON for files that people may read: sorted keys, two spaces, a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


#: sections in order; each a list of (directive, value) so that a directive may repeat
UnitSections = Sequence[tuple[str, Sequence[tuple[str, str]]]]


def emit_unit(sections: UnitSections) -> str:
    """A systemd unit. Values are written as they are; raises ValueError when one holds a line break."""
    out: list[str] = []
    for name, directives in sections:
        out.append(f"[{name}]")
        for key, value in directives:
            if "\n" in value or "\r" in value:
                if key not in {"ExecStart", "Environment"} or not re.fullmatch(r"[^\r]*", value):
                    raise ValueError(f"{key} holds a line break")
                value = value.replace("\n", " \\\n  ")
            out.append(f"{key}={value}")
        out.append("")
    return "\n".join(out)


_UNIT_SAFE = re.compile(r"[A-Za-z0-9_@:,./=+-]+")


def quote_unit_argument(text: str) -> str:
    """One argument of an ``ExecStart=``: ``%`` and ``$`` doubled, quoted where systemd.syntax(7) needs it."""
    escaped = text.replace("%", "%%").replace("$", "$$")
    if _UNIT_SAFE.fullmatch(escaped):
        return escaped
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def emit_command(program: str, arguments: Iterable[str]) -> str:
    """A multi-line ``ExecStart=`` value, one argument a line."""
    return "\n".join([program, *(quote_unit_argument(a) for a in arguments)])


def emit_sysctl(values: Mapping[str, str]) -> str:
    """A sysctl.d file, sorted by key."""
    return "".join(f"{key} = {values[key]}\n" for key in sorted(values))


def emit_table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of fields between tabs. Raises ValueError for a field that would break the row."""
    lines = []
    for row in rows:
        if any(not field or "\t" in field or "\n" in field for field in row):
            raise ValueError(f"wanted fields without tabs and line breaks, got {row!r}")
        lines.append("\t".join(row) + "\n")
    return "".join(lines)
