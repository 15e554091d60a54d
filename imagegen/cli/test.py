"""``imagegen test``: checks made from the plan, on an image."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagegen.cli.check import count
from imagegen.cli.inputs import read_plan_aloud
from imagegen.cli.options import CLUSTER_FILE, format_option, profiles_option, require_known, role_option
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import printable
from imagegen.emit import emit_json
from imagegen.errors import UsageError

if TYPE_CHECKING:
    from imagegen.plan.plan import Plan, RolePlan
    from imagegen.verify.suite import Answer


@click.command("test", cls=Verb)
@click.argument("image", metavar="IMAGE", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-c",
    "--cluster",
    metavar="CLUSTER",
    default=CLUSTER_FILE,
    show_default=True,
    type=click.Path(path_type=Path),
    help="The cluster file that the image was built from.",
)
@role_option
@format_option()
@profiles_option
@click.pass_context
def command(
    ctx: click.Context,
    image: Path,
    cluster: Path,
    role: str | None,
    form: str,
    profile_dirs: tuple[Path, ...],
) -> None:
    """Check a golden IMAGE against the plan, without booting it.

    Files, directories, links, executables, packages, units, users, groups, sysctls and modules must be as
    the plan says, and nothing of the build may be left. The set of roles follows from the file's name, or is
    given with --role. Owners are checked when root does it. Exit code 1 when a check fails.
    """
    terminal: Terminal = ctx.obj
    plan = read_plan_aloud(cluster, profile_dirs, terminal)
    answers = _ask(image, *_choose_role(image, role, plan), terminal)
    failed = [answer for answer in answers if not answer.passed]
    if form == "json":
        rows = [{"check": a.name, "passed": a.passed, "problem": a.problem} for a in answers]
        terminal.data(emit_json({"image": str(image), "checks": rows}))
    else:
        terminal.data("".join(f"FAILED {printable(a.name)}: {printable(a.problem)}\n" for a in failed))
    if os.geteuid() != 0:
        terminal.say("owners were not checked: only root can unpack them")
    passed = len(answers) - len(failed)
    terminal.say(f"{image}: {count(len(answers), 'check')}, {passed:,} passed, {len(failed):,} failed")
    ctx.exit(1 if failed else 0)


def _choose_role(image: Path, role: str | None, plan: Plan) -> tuple[RolePlan, bool]:
    """The set of roles that ``NAME-ROLES.EXT`` or ``NAME-NODE.EXT`` names, and whether a disk of that name
    has the seed of its node inside; an ISO has it beside its root.
    """
    from imagegen.model.cluster import ImagePki

    names = [role_plan.name for role_plan in plan.role_plans]
    is_baked = plan.cluster.image.pki is ImagePki.BAKED
    word, _, extension = image.name.removeprefix(f"{plan.cluster.name}-").partition(".")
    if role is None:
        of_nodes = {node.name: node.role_set for node in plan.cluster.nodes}
        role = of_nodes.get(word, word) if is_baked or word not in names else word
        if role not in names:
            raise UsageError(
                f"{image.name} does not say which set of roles it is", hint=f"--role {'|'.join(names)}"
            )
    require_known("set of roles", role, names)
    return plan.role_plans[names.index(role)], is_baked and extension != "iso"


def _ask(image: Path, role_plan: RolePlan, has_seed: bool, terminal: Terminal) -> list[Answer]:
    from imagegen.backends.image.payload import plan_payload
    from imagegen.run import Runner
    from imagegen.verify.bill import read_digests
    from imagegen.verify.roots import Root, unpack_root
    from imagegen.verify.suite import list_checks, run_checks

    payload = plan_payload(role_plan.items)
    is_root = os.geteuid() == 0
    checks = list(
        list_checks(role_plan.items, payload, read_digests(image), owners=is_root, has_seed=has_seed)
    )
    progress = terminal.progress()
    with tempfile.TemporaryDirectory() as name:
        with progress.step(f"unpacking {image.name}"):
            root = Root(unpack_root(Runner(log=terminal.detail), image, Path(name)))
        with progress.step(f"checking {image.name}") as step:
            answers = list(run_checks(checks, root))
            step.note = count(len(answers), "check")
    return answers
