"""``imagegen explain``: why something is here, since when, and what replaces it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import click

import imagegen
from imagegen.cli.inputs import read_cluster, read_plan_aloud
from imagegen.cli.options import cluster_argument, format_option, profiles_option
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb, suggest
from imagegen.diagnostics import CODES, Report
from imagegen.emit import emit_json
from imagegen.errors import UsageError
from imagegen.model.version import Version
from imagegen.plan.explain import Explanation, explain_code, explain_flag, explain_path, list_flag_names


@click.command("explain", cls=Verb, context_settings={"ignore_unknown_options": True})
@click.argument("word", metavar="CODE|PATH|FLAG")
@cluster_argument(required=False)
@click.option(
    "--flag", "table_only", is_flag=True, help="Look only into the table of versions, not at machines."
)
@format_option()
@profiles_option
@click.pass_obj
def command(
    terminal: Terminal,
    word: str,
    cluster: Path | None,
    table_only: bool,
    form: str,
    profile_dirs: tuple[Path, ...],
) -> None:
    """Explain a finding (IMG104), something on a machine, or a flag (kubelet/--network-plugin).

    With CLUSTER: a path, unit, package, user, sysctl or port that is on its machines: what it is, who asked
    for it and why; and for a flag, its state in the cluster's version.
    """
    if table_only:
        version = read_cluster(cluster, profile_dirs, Report()).kubernetes.version if cluster else None
        found = _explain_flag(word, version)
    else:
        found = _explain(terminal, word, cluster, profile_dirs)
    if form == "json":
        terminal.data(emit_json([explanation.as_dict() for explanation in found]))
    else:
        terminal.data("\n".join(explanation.render_text() for explanation in found))


def _explain(
    terminal: Terminal, word: str, cluster: Path | None, profile_dirs: tuple[Path, ...]
) -> tuple[Explanation, ...]:
    if re.fullmatch(r"(?i)IMG\d+", word):
        load_codes()
        explanation = explain_code(word)
        if explanation is None:
            raise UsageError(f"no finding has the code {word}{suggest(word.upper(), CODES)}")
        return (explanation,)
    if cluster is None:
        found = explain_flag(word)
        if not found:
            raise UsageError(
                f"no finding and no flag is called {word}{_suggest_flag(word)}",
                hint=f"for something on a machine, name the cluster: imagegen explain {word} CLUSTER",
            )
        return found
    plan = read_plan_aloud(cluster, profile_dirs, terminal)
    found = explain_path(plan, word) + explain_flag(word, version=plan.cluster.kubernetes.version)
    if not found:
        machines = f"the machines of {plan.cluster.name}"
        raise UsageError(
            f"nothing on {machines}, and no flag, is called {word}{_suggest_flag(word)}",
            hint=f"imagegen plan {cluster} lists what there is",
        )
    return found


def _explain_flag(word: str, version: Version | None) -> tuple[Explanation, ...]:
    found = explain_flag(word, version=version)
    if not found:
        raise UsageError(f"the table of versions has no {word}{_suggest_flag(word)}")
    return found


def _suggest_flag(word: str) -> str:
    component, _, name = word.rpartition("/")
    return suggest(name, list_flag_names(component)) if name.startswith("-") else ""


def load_codes() -> None:
    """Import every module that registers findings, so that ``CODES`` is complete."""
    for module in pkgutil.walk_packages(imagegen.__path__, "imagegen."):
        if not module.name.startswith(("imagegen.cli", "imagegen.__main__")):
            importlib.import_module(module.name)
