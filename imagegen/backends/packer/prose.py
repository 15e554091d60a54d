"""Prose-like files out of Jinja templates that ship in ``packer/``; users' values are never templates."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import jinja2

from imagegen.resources import find_resource


def render_prose(folder: str, name: str, view: Mapping[str, object]) -> str:
    """The template ``packer/FOLDER/NAME`` with one frozen view; raises UndefinedError for a missing name."""
    text = find_resource("packer", folder, name).read_text(encoding="utf-8")
    return _environment().from_string(text).render(MappingProxyType(dict(view)))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - shell and configuration files, not HTML; every use quotes by a filter
        keep_trailing_newline=True,
        trim_blocks=False,
    )
    environment.filters = {
        "sh": shlex.quote,
        "hcl": quote_hcl,
        "join": environment.filters["join"],
    }
    return environment


def quote_hcl(text: str) -> str:
    """An HCL string literal: quotes, and no interpolation or template directive inside."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    escaped = escaped.replace("\t", "\\t")
    return '"' + escaped.replace("${", "$${").replace("%{", "%%{") + '"'
