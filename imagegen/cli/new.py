"""``imagegen new``: copies an example to start from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from imagegen.cli.examples import DEFAULT_EXAMPLE, describe_example, example_file, list_examples
from imagegen.cli.options import CLUSTER_FILE, complete_examples, format_option, require_known
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.errors import UsageError


@click.command("new", cls=Verb)
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option(
    "--example",
    default=DEFAULT_EXAMPLE,
    show_default=True,
    metavar="NAME",
    shell_complete=complete_examples,
    help="Which example to copy.",
)
@click.option("--list", "only_list", is_flag=True, help="List the examples.")
@format_option()
@click.pass_obj
def command(terminal: Terminal, folder: Path, example: str, only_list: bool, form: str) -> None:
    """Start a commented cluster file in DIR (default: here).

    Nothing is overwritten.
    """
    names = list_examples()
    if only_list:
        _list_examples(terminal, names, form)
        return
    require_known("example", example, names)
    target = folder / CLUSTER_FILE
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    text = example_file(example).read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        raise UsageError(
            f"{target} exists already", hint="choose another folder, or remove the file"
        ) from None
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(text)
    if form == "json":
        terminal.data(json.dumps({"file": str(target), "example": example}) + "\n")
    terminal.say(f"wrote {target}: {describe_example(example)}")
    terminal.say("next:")
    terminal.say("  put your own SSH key and addresses into it")
    terminal.say(f"  imagegen check {target}")
    terminal.say(f"  imagegen render {target} -o {folder / 'out'}")


def _list_examples(terminal: Terminal, names: list[str], form: str) -> None:
    if form == "json":
        rows = [{"name": name, "description": describe_example(name)} for name in names]
        terminal.data(json.dumps(rows, indent=2) + "\n")
        return
    width = max(map(len, names), default=0)
    terminal.data("".join(f"{name:{width}}  {describe_example(name)}\n" for name in names))
