"""``imagegen completion``: the script that makes a shell complete verbs, options, nodes and roles."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.errors import UsageError

_WHERE = {
    "bash": "~/.local/share/bash-completion/completions/imagegen",
    "zsh": "a folder of $fpath, as _imagegen",
    "fish": "~/.config/fish/completions/imagegen.fish",
}


@click.command("completion", cls=Verb)
@click.argument("shell", type=click.Choice(list(_WHERE)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    For bash, put it into ~/.local/share/bash-completion/completions/imagegen.
    """
    terminal: Terminal = ctx.obj
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"no completion for {shell}")
    script = kind(ctx.find_root().command, {}, "imagegen", "_IMAGEGEN_COMPLETE")
    # BashComplete.source() would start bash to learn its version; the script itself does not need that
    terminal.data(ShellComplete.source(script) + "\n")
    terminal.say(f"put this into {_WHERE[shell]}")
