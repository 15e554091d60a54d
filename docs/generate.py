"""Writes the pages that come from the program and its examples: commands, cluster file, ports, findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from imagegen.cli.explain import load_codes
from imagegen.cli.main import cli
from imagegen.cli.verbs import VERBS, find_verb
from imagegen.diagnostics import CODES, Report
from imagegen.kubernetes.flags import find_flag
from imagegen.kubernetes.gates import all_rows
from imagegen.model.load import load_cluster
from imagegen.model.schema import cluster_schema
from imagegen.plan.build import build_plan
from imagegen.plan.ports import list_ports
from imagegen.plan.profile_format import SECTIONS, SYSCTL_KEYS, Key
from imagegen.plan.profiles import load_profiles
from imagegen.resources import find_resource

FOLDER = Path(__file__).resolve().parent / "reference"
SEEDS = Path(__file__).resolve().parents[1] / "tests" / "seeds"
EXAMPLES = Path(__file__).resolve().parent / "examples"
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
    settings = {**cli.context_settings, "max_content_width": 100, "terminal_width": 100}
    root = click.Context(cli, info_name="imagegen", **settings)
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


PROFILES_INTRO = """# Profiles

A profile says as plain data what is on a machine. imagegen ships one file a role: `base.yaml`, `etcd.yaml`,
`master.yaml`, `worker.yaml`, `lb.yaml`. Add a folder of your own with `profiles: [DIR]` in the cluster
file, or with `--profiles DIR`. A file there with the name of a role adds to it; a file with any other name
counts when another one `extends` it.

```yaml
# my-profiles/worker.yaml
packages: [prometheus-node-exporter]
sysctls:
  vm.max_map_count: {value: "262144", reason: the search engine wants it}
files:
  - path: /etc/default/prometheus-node-exporter
    content: |
      ARGS="--collector.systemd"
ports:
  - {port: 9100, purpose: node exporter, sources: [10.240.0.0/24]}
```

What you write is never a template: it reaches the machine byte for byte. Two different opinions about one
path, unit, user or sysctl are an error that names both places; `replace: true` lets yours win over what
imagegen ships ([why](../decisions/0011-profiles-add-and-replace.md)). Nothing in a profile depends on
the node, so all of it is in the golden image. `imagegen schema --profile` prints the JSON Schema for
editors.

Top level: `description`, `extends` (one name or a list), and the sections below. Where a section says so,
an entry may be just its name.

"""


def render_profiles() -> str:
    """Every section of a profile file."""
    out = [NOTE, PROFILES_INTRO]
    for name, section in SECTIONS.items():
        short = f" An entry may be just its `{section.short}`." if section.short else ""
        out.append(f"## {name}\n\n{section.text[0].upper()}{section.text[1:]}.{short}\n")
        out += ["| key | value | |", "|---|---|---|", *(_key_row(n, k) for n, k in section.keys.items()), ""]
    out.append("## sysctls\n\nA map: the key, and its value or a map of these.\n")
    out += ["| key | value | |", "|---|---|---|", *(_key_row(n, k) for n, k in SYSCTL_KEYS.items()), ""]
    return "\n".join(out)


def _key_row(name: str, key: Key) -> str:
    kind = ", ".join(f"`{c}`" for c in key.choices) or {"switch": "true or false", "texts": "list"}.get(
        key.kind, key.kind
    )
    need = "required" + ("; " if key.text else "") if key.required else ""
    return f"| `{name}` | {kind} | {need}{key.text} |"


def render_ports() -> str:
    """The port table, from the same items that the packet filters are made of; of the example ``ha``."""
    report = Report()
    cluster = load_cluster(find_resource("examples", "ha", "cluster.yaml"), report)
    plan = build_plan(cluster, load_profiles((), report), report) if cluster else None
    if plan is None:
        raise SystemExit(report.render_text())
    out = [
        NOTE,
        "# Ports\n",
        "What answers on which machine of the example `ha`; everything else is dropped. Profiles add rows of",
        "their own under `ports`. `imagegen plan CLUSTER` shows the table of any cluster.\n",
        "| port | | purpose | from | on |",
        "|---|---|---|---|---|",
    ]
    for row in list_ports(plan):
        sources, roles = ", ".join(row.sources) or "anyone", ", ".join(row.roles)
        out.append(f"| {row.port} | {row.protocol} | {row.purpose} | {sources} | {roles} |")
    return "\n".join(out) + "\n"


def render_findings() -> str:
    """Every finding with its explanation, as ``imagegen explain CODE`` prints it."""
    load_codes()
    out = [NOTE, "# Findings\n", "`imagegen explain CODE` prints the same.\n"]
    out += [f"## {code}: {CODES[code].title}\n\n{CODES[code].explanation}\n" for code in sorted(CODES)]
    return "\n".join(out)


def render_example(name: str) -> str:
    """The page of an example that was built by hand before: how it differs and why, and the same today."""
    stated = yaml.safe_load(find_resource("examples", name, "deviations.yaml").read_text("utf-8"))
    out = [NOTE, _read_readme(name), "## Where it differs from its source\n"]
    if stated.get("warnings"):
        out.append("`imagegen check` warns, and may be right:\n")
        out += [f"- [{code}](../reference/findings.md): {why}" for code, why in stated["warnings"].items()]
        out.append("")
    if stated["deviations"]:
        out += ["| lines of the source | why they are not here |", "|---|---|"]
    else:
        out.append("Nowhere: every line of the source is there.")
    for each in stated["deviations"]:
        lines = "<br>".join(f"`{line}`" for line in each["lines"])
        out.append(f"| {lines} | {each['reason']} |")
    if stated.get("names"):
        out += ["", "Other names for the same things:\n", "| the source | imagegen |", "|---|---|"]
        out += [f"| `{each['source']}` | `{each['ours']}` |" for each in stated["names"]]
    text = find_resource("examples", name, "cluster.yaml").read_text("utf-8")
    out += ["", f"## Its cluster file\n\n```yaml\n{text}```\n"]
    out += [_read_readme(f"{name}-today").replace("# ", "## ", 1)]
    out += [f"`imagegen check` warns ({code}): {why}\n" for code, why in stated.get("today", {}).items()]
    text = find_resource("examples", f"{name}-today", "cluster.yaml").read_text("utf-8")
    return "\n".join([*out, f"```yaml\n{text}```\n"])


def _read_readme(name: str) -> str:
    return find_resource("examples", name, "README.md").read_text("utf-8")


def render_fates() -> str:
    """What became of every flag of the hand-built clusters, by the tables that ``upgrade-check`` reads."""
    out = [
        NOTE,
        "# What became of their flags\n",
        "`imagegen upgrade-check` tells this for a cluster file, minor by minor;",
        "`imagegen explain kubelet/--FLAG` tells where each fact is from.\n",
        "| component | flag | seeds | until today |",
        "|---|---|---|---|",
    ]
    staying: dict[str, list[str]] = {}
    for (component, flag), seeds in sorted(_list_seed_flags().items()):
        fate = _describe_fate(component, flag)
        if fate:
            out.append(f"| {component} | `--{flag}` | {', '.join(seeds)} | {fate} |")
        else:
            staying.setdefault(component, []).append(f"`--{flag}`")
    out.append("\nThese are as they were:\n")
    out += [f"- {component}: {', '.join(flags)}" for component, flags in staying.items()]
    return "\n".join(out) + "\n"


def _list_seed_flags() -> dict[tuple[str, str], list[str]]:
    flags: dict[tuple[str, str], list[str]] = {}
    for path in sorted(SEEDS.glob("s?.yaml")):
        for component, values in yaml.safe_load(path.read_text("utf-8")).get("flags", {}).items():
            if component.startswith("kube"):
                for flag in values:
                    flags.setdefault((component, flag), []).append(path.stem.upper())
    return flags


def _describe_fate(component: str, flag: str) -> str:
    rows = [row for row in all_rows() if row.item == f"--{flag}" and row.component in (component, "all")]
    found = find_flag(component, flag)
    words = []
    for row in rows:
        words += [f"deprecated {row.deprecated.minor_text}"] if row.deprecated else []
        words += [f"{row.change} since {row.changed.minor_text}"] if row.changed else []
        words += [f"removed {row.removed.minor_text}"] if row.removed else []
        if words and row.replacement:
            words.append(f"instead: {row.replacement}")
    if not words and found is not None and found.deprecated is not None:
        words = [f"deprecated {found.deprecated.minor_text}: a field of the {component}'s file"]
    return "; ".join(words)


def list_example_pages() -> tuple[str, ...]:
    """The examples that have a page: those whose differences from a source are stated."""
    return tuple(sorted(path.parent.name for path in find_resource("examples").glob("*/deviations.yaml")))


PAGES = {
    "commands.md": render_commands,
    "cluster.md": render_cluster,
    "profiles.md": render_profiles,
    "ports.md": render_ports,
    "findings.md": render_findings,
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    EXAMPLES.mkdir(exist_ok=True)
    (EXAMPLES / "flags.md").write_text(render_fates(), encoding="utf-8")
    for name in list_example_pages():
        (EXAMPLES / f"{name}.md").write_text(render_example(name), encoding="utf-8")
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
