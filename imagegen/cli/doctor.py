"""``imagegen doctor``: what is installed, what is missing, and what would need it."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from dataclasses import dataclass

import click

import imagegen
from imagegen.cli.options import format_option
from imagegen.cli.terminal import Terminal
from imagegen.cli.tools import LIBRARIES, Library, Program, list_programs
from imagegen.cli.verbs import Verb
from imagegen.errors import ImagegenError, MissingToolError
from imagegen.run import Runner, find_tool

_PYTHON = (3, 11)
#: seconds that a program may take to say its version
_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the table; ``version`` is empty when the thing is missing."""

    name: str
    kind: str
    version: str
    required: bool
    needed_by: tuple[str, ...]
    get: str

    @property
    def state(self) -> str:
        if self.version:
            return "ok"
        return "missing" if self.required else "absent"


@click.command("doctor", cls=Verb)
@format_option()
@click.pass_context
def command(ctx: click.Context, form: str) -> None:
    """Show which programs and libraries are there.

    "missing" stops verbs from working and gives exit code 3; "absent" is needed only for what is named
    beside it.
    """
    terminal: Terminal = ctx.obj
    findings = [_examine_python(), *map(_examine_library, LIBRARIES), *map(_examine_program, list_programs())]
    if form == "json":
        terminal.data(json.dumps([_as_dict(f) for f in findings], indent=2) + "\n")
    else:
        terminal.data(_draw_table(findings, terminal))
    _tell_cache(terminal)
    missing = [f for f in findings if f.state == "missing"]
    if missing:
        terminal.say(f"{len(missing)} required: missing")
        ctx.exit(MissingToolError.exit_code)
    terminal.say("everything that imagegen needs is there")


def _tell_cache(terminal: Terminal) -> None:
    from imagegen.backends.image.layers import LayerCache, default_layer_root

    root = default_layer_root()
    layers = LayerCache(root=root).list_layers()
    if layers:
        size = sum(layer.size_bytes for layer in layers) / (1 << 30)
        terminal.say(f"{size:.1f} GiB of layers in {root}; build --cache-limit bounds them")


def _examine_python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding(
        name="Python",
        kind="interpreter",
        version=version if sys.version_info >= _PYTHON else "",
        required=True,
        needed_by=("every verb",),
        get="apt-get install python3",
    )


def _examine_library(library: Library) -> Finding:
    try:
        version = importlib.metadata.version(library.name)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    wanted = f"imagegen[{library.extra}]" if library.extra else library.name
    return Finding(
        name=library.name,
        kind="library",
        version=version,
        required=library.required,
        needed_by=library.needed_by,
        get=f"pip install '{wanted}'",
    )


def _examine_program(program: Program) -> Finding:
    tool, version = program.tool, ""
    path = find_tool(tool.name)
    if path is not None:
        try:
            done = Runner().run([path, *tool.version_arguments], timeout=_TIMEOUT, check=False)
            lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
            version = lines[0][:60] if lines and done.returncode == 0 else "installed"
        except ImagegenError:
            version = "installed, but does not say its version"
    return Finding(
        name=tool.name,
        kind="program",
        version=version,
        required=program.required,
        needed_by=program.needed_by,
        get=f"apt-get install {tool.package}",
    )


def _as_dict(finding: Finding) -> dict[str, object]:
    return {
        "name": finding.name,
        "kind": finding.kind,
        "state": finding.state,
        "version": finding.version or None,
        "required": finding.required,
        "needed_by": list(finding.needed_by),
        "get": finding.get,
    }


def _draw_table(findings: list[Finding], terminal: Terminal) -> str:
    width = max(len(f.name) for f in findings)
    styles = {"ok": "help", "missing": "error", "absent": "dim"}
    lines = [f"imagegen {imagegen.__version__}"]
    for finding in findings:
        state = terminal.paint(f"{finding.state:8}", styles[finding.state], sys.stdout)
        what = finding.version or f"for {', '.join(finding.needed_by)}: {finding.get}"
        lines.append(f"{state} {finding.name:{width}}  {what}")
    return "\n".join(lines) + "\n"
