"""Arguments and options that several verbs share, and what a shell completes for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from imagegen.cli.verbs import suggest
from imagegen.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])

CLUSTER_FILE = "cluster.yaml"


def _find_cluster_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """A folder stands for the ``cluster.yaml`` in it."""
    if value is not None and value.is_dir() and (value / CLUSTER_FILE).exists():
        return value / CLUSTER_FILE
    return value


def cluster_argument(*, required: bool = True) -> Callable[[Function], Function]:
    return click.argument(
        "cluster",
        type=click.Path(path_type=Path),
        required=required,
        callback=_find_cluster_file,
    )


def format_option(*formats: str) -> Callable[[Function], Function]:
    return click.option(
        "--format",
        "form",
        type=click.Choice(formats or ("text", "json")),
        default="text",
        show_default=True,
        help="json is for machines.",
    )


def profiles_option(function: Function) -> Function:
    return click.option(
        "--profiles",
        "profile_dirs",
        multiple=True,
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="A folder of profiles of your own; may be repeated.",
    )(function)


def secrets_option(function: Function) -> Function:
    return click.option(
        "--secrets",
        "secrets_dir",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        help='The secret store; default "secrets" beside the cluster file.',
    )(function)


def output_option(function: Function) -> Function:
    return click.option(
        "-o",
        "--output",
        "out",
        metavar="OUT",
        required=True,
        type=click.Path(path_type=Path),
        help="The output folder; imagegen makes it, and overwrites only what it made.",
    )(function)


def force_option(function: Function) -> Function:
    return click.option(
        "--force", is_flag=True, help="Replace files in OUT even when imagegen did not make them."
    )(function)


def mirror_option(function: Function) -> Function:
    return click.option(
        "--mirror",
        metavar="URL|DIR",
        envvar="IMAGEGEN_MIRROR",
        show_envvar=True,
        help="A folder or URL laid out like the official release sites; asked before them.",
    )(function)


def offline_option(function: Function) -> Function:
    return click.option(
        "--offline",
        is_flag=True,
        help="Ask no release site: cache and mirror only.",
    )(function)


def timeout_option(default: float, what: str) -> Callable[[Function], Function]:
    return click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=1),
        default=default,
        show_default=True,
        help=what,
    )


def node_option(*, multiple: bool) -> Callable[[Function], Function]:
    return click.option(
        "-n",
        "--node",
        "nodes" if multiple else "node",
        multiple=multiple,
        metavar="NODE",
        shell_complete=complete_nodes,
        help="Only this node" + ("; may be repeated." if multiple else "."),
    )


def role_option(function: Function) -> Function:
    return click.option(
        "-r",
        "--role",
        "role",
        metavar="ROLE",
        shell_complete=complete_roles,
        help="Only this set of roles, such as worker or etcd+master.",
    )(function)


def complete_nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The node names of the cluster file that is already on the command line."""
    cluster = _load_quietly(ctx)
    return [n.name for n in cluster.nodes if n.name.startswith(incomplete)] if cluster else []


def complete_roles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from imagegen.model.cluster import Role

    cluster = _load_quietly(ctx)
    names = ["+".join(roles) for roles in cluster.role_sets] if cluster else [str(role) for role in Role]
    return [name for name in names if name.startswith(incomplete)]


def complete_examples(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from imagegen.cli.examples import list_examples

    return [name for name in list_examples() if name.startswith(incomplete)]


def _load_quietly(ctx: click.Context) -> Any:
    """The cluster of the command line under way, or None: completion never complains."""
    from imagegen.diagnostics import Report
    from imagegen.model.load import load_cluster

    # an option that still lacks its value keeps click from parsing what stands before it
    word = ctx.params.get("cluster") or next((word for word in ctx.args if not word.startswith("-")), None)
    if word is None:
        return None
    try:
        path = Path(word)
        return load_cluster(path / CLUSTER_FILE if path.is_dir() else path, Report())
    except Exception:
        return None


def require_known(kind: str, name: str, known: list[str]) -> None:
    """Raise UsageError with a suggestion when ``name`` is not one of ``known``."""
    if name not in known:
        shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
        raise UsageError(f"no such {kind}: {name}{suggest(name, known)}", hint=f"there are {shown}")
