"""The list of verbs, and a click group that imports a verb only when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imagegen.cli.terminal import Terminal

#: verb → what ``imagegen --help`` says about it; the module is ``imagegen.cli.VERB``. In the order of use.
VERBS: Mapping[str, str] = {
    "new": "Start a commented cluster file.",
    "check": "Check a cluster file; show every finding at once.",
    "plan": "Show what will be on every machine.",
    "diff": "Show what changes on which node.",
    "explain": "Explain a finding, a file on a machine or a flag.",
    "upgrade-check": "Show what a newer Kubernetes changes, minor by minor.",
    "render": "Write everything that the nodes need on first boot.",
    "seed": "Write seed ISOs.",
    "pki": "Show, verify or renew the certificates.",
    "fetch": "Bring binaries and images into the cache, verified, and pin them.",
    "build": "Build golden images.",
    "test": "Check an image, or a running cluster, against the plan.",
    "up": "Start the cluster on this machine.",
    "status": "Show how far the cluster on this machine is.",
    "ssh": "Log in to a node of the cluster on this machine.",
    "down": "End the cluster on this machine.",
    "replace": "Make a new seed for a node, and say what to do with it.",
    "scan": "Look for secrets in images.",
    "schema": "Print the JSON Schema of the cluster file.",
    "doctor": "Show which programs and libraries are there.",
    "completion": "Print the completion script of a shell.",
}


def find_verb(name: str) -> click.Command:
    """The command of a verb; raises KeyError when there is no such verb."""
    if name not in VERBS:
        raise KeyError(name)
    command: click.Command = importlib.import_module(f"imagegen.cli.{name.replace('-', '_')}").command
    return command


class LazyGroup(click.Group):
    """Knows its verbs by name; ``--help`` and ``--version`` import none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return find_verb(cmd_name) if cmd_name in VERBS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"no such verb: {args[0]}{suggest(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def suggest(word: str, known: Any) -> str:
    """``; did you mean …?`` when ``known`` holds something close to ``word``, else nothing."""
    import difflib

    close = difflib.get_close_matches(word.lower(), [str(k) for k in known], n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _terminal(ctx: click.Context) -> Terminal:
    terminal: Terminal = ctx.find_root().obj
    return terminal


def _set_quiet(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        _terminal(ctx).quiet = True


def _set_verbose(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        _terminal(ctx).verbose = True


def _set_color(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        _terminal(ctx).color = value


def talk_options() -> list[click.Option]:
    """``--quiet``, ``--verbose`` and ``--color``, which may stand before and after the verb."""
    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_set_quiet,
            help="Say nothing but errors.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_set_verbose,
            help="Say more about what is being done.",
        ),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            expose_value=False,
            is_eager=True,
            callback=_set_color,
            help="Colours; auto heeds NO_COLOR.",
        ),
    ]


class Verb(click.Command):
    """A command that takes the talk options, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(talk_options())


class VerbGroup(click.Group):
    """A verb with verbs of its own; a word that it does not know gets a suggestion."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(
                f"no such verb: {ctx.info_name} {args[0]}{suggest(args[0], self.commands)}", ctx
            )
        return super().resolve_command(ctx, args)
