"""Writes the reference pages that come from the program itself: commands, cluster file, findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from imagegen.cli.explain import load_codes
from imagegen.cli.main import cli
from imagegen.cli.verbs import VERBS, find_verb
from imagegen.diagnostics import CODES
from imagegen.model.schema import cluster_schema

FOLDER = Path(__file__).resolve().parent / "reference"
NOTE = "<!-- written by docs/generate.py; change the program instead -->\n"


def render_commands() -> str:
    """Every verb with its help text, as ``--help`` prints it."""
    out = [
        NOTE,
        "# Commands\n",
        "Data goes to stdout, talk to stderr. Every verb takes `--quiet`, `--verbose` and `--color`.\n",
    ]
    out += ["| exit code | |", "|---|---|"]
    out += [f"| {code} | {text} |" for code, text in EXIT_CODES]
    out.append("")
    root = click.Context(cli, info_name="imagegen", max_content_width=100, terminal_width=100)
    for name in VERBS:
        out += list(_render_command(find_verb(name), name, root, "##"))
    return "\n".join(out)


EXIT_CODES = (
    (0, "fine"),
    (1, "failed"),
    (2, "the input or the command line is wrong"),
    (3, "a tool is missing"),
    (130, "interrupted (143 by SIGTERM)"),
)


def _render_command(command: click.Command, name: str, parent: click.Context, level: str) -> Iterator[str]:
    ctx = click.Context(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100)
    yield f"{level} {ctx.command_path}\n"
    yield f"```text\n{command.get_help(ctx).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(ctx):
            found = command.get_command(ctx, child)
            assert found is not None
            yield from _render_command(found, child, ctx, level + "#")


def render_cluster() -> str:
    """Every key of the cluster file, from the JSON Schema."""
    schema = cluster_schema()
    out = [
        NOTE,
        "# Cluster file\n",
        "`imagegen schema` prints this as JSON Schema for editors. Unknown keys are errors.\n",
        "| key | value | default | |",
        "|---|---|---|---|",
    ]
    out += [f"| {' | '.join(row)} |" for row in _rows(schema, schema, "")]
    return "\n".join(out) + "\n"


def _rows(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    required = set(node.get("required", ()))
    for key, raw in node.get("properties", {}).items():
        value = _resolve(schema, raw)
        path = f"{prefix}{key}"
        text = raw.get("description") or value.get("description", "")
        default = "required" if key in required else _code(raw.get("default", value.get("default")))
        yield f"`{path}`", _kind(schema, value), default, text.replace("\n", " ").replace("|", "\\|")
        yield from _rows(schema, value, f"{path}.")
        items = _resolve(schema, value.get("items", {}) if isinstance(value.get("items"), dict) else {})
        yield from _rows(schema, items, f"{path}[].")


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for choice in node.get("anyOf", ()):
        if choice.get("type") != "null":
            node = {**choice, **{k: v for k, v in node.items() if k != "anyOf"}}
            break
    if "$ref" in node:
        target: Any = schema
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return {**_resolve(schema, target), **{k: v for k, v in node.items() if k != "$ref"}}
    return node


def _kind(schema: dict[str, Any], value: dict[str, Any]) -> str:
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value.get("type") == "array":
        inner = _kind(schema, _resolve(schema, value.get("items", {})))
        return f"list of {inner}"
    if examples := value.get("examples"):
        return f"such as `{examples[0]}`"
    kind = value.get("type", "")
    return {"object": "map", "string": "text"}.get(kind, kind) if isinstance(kind, str) else " or ".join(kind)


def _code(value: object) -> str:
    if value is None or value in ({}, []):
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"`{text.lower() if isinstance(value, bool) else text}`"


def render_findings() -> str:
    """Every finding with its explanation, as ``imagegen explain CODE`` prints it."""
    load_codes()
    out = [NOTE, "# Findings\n", "`imagegen explain CODE` prints the same.\n"]
    out += [f"## {code}: {CODES[code].title}\n\n{CODES[code].explanation}\n" for code in sorted(CODES)]
    return "\n".join(out)


PAGES = {"commands.md": render_commands, "cluster.md": render_cluster, "findings.md": render_findings}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
