"""``imagegen test``: checks made from the plan, on an image or on the nodes of a running cluster."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagegen.cli.check import count
from imagegen.cli.inputs import read_plan_aloud
from imagegen.cli.options import (
    CLUSTER_FILE,
    format_option,
    node_option,
    profiles_option,
    require_known,
    role_option,
    secrets_option,
)
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import printable
from imagegen.emit import emit_json
from imagegen.errors import UsageError

if TYPE_CHECKING:
    from imagegen.plan.plan import Plan, RolePlan
    from imagegen.verify.suite import Answer


_FILE = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.command("test", cls=Verb)
@click.argument("subject", metavar="IMAGE|CLUSTER", type=click.Path(exists=True, path_type=Path))
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
@node_option(multiple=True)
@click.option(
    "--only",
    type=click.Choice(["suite", "cis", "smoke"]),
    help="suite: the nodes, over ssh; cis: the CIS benchmark, over ssh; smoke: the cluster, through its API.",
)
@click.option(
    "--kubeconfig", metavar="FILE", type=_FILE, help="The admin's kubeconfig of a cluster elsewhere."
)
@click.option(
    "--ssh-user", metavar="USER", help="Who logs in to nodes elsewhere; default access.user. Must have sudo."
)
@click.option("--ssh-key", metavar="FILE", type=_FILE, help="The private key for nodes elsewhere.")
@click.option("--ssh-config", metavar="FILE", type=_FILE, help="An ssh configuration for nodes elsewhere.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="NODE=ADDRESS",
    help="Where a node elsewhere is, when the cluster file does not say it; may be repeated.",
)
@click.option("--disruptive", is_flag=True, help="Let a worker die, and see that its pods move.")
@click.option(
    "--patience",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    default=180.0,
    show_default=True,
    help="How long the smoke test waits for one thing to happen.",
)
@secrets_option
@format_option("text", "json", "junit")
@profiles_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    subject: Path,
    cluster: Path,
    role: str | None,
    form: str,
    profile_dirs: tuple[Path, ...],
    **words: Any,
) -> None:
    """Check a golden IMAGE, without booting it, or the running nodes of CLUSTER, against the plan.

    Files, directories, links, executables, packages, units, users, groups, sysctls and modules must be as
    the plan says. An image must hold nothing of its build; its set of roles follows from the file's name, or
    is given with --role, and owners are checked when root does it.

    On running nodes, services must run, ports equal the port table, nothing has failed, the clock is
    synchronised; the checks of the CIS benchmark pass or are waived with a reason; then a smoke test deploys
    pods, a service and a rollout. The nodes are those of "imagegen up", or any that ssh and a kubeconfig
    reach. Exit code 1 when a check fails.
    """
    from imagegen.cli.testcluster import ClusterTest, run_cluster_test

    if subject.suffix in (".yaml", ".yml") or (subject / CLUSTER_FILE).is_file():
        file = subject / CLUSTER_FILE if subject.is_dir() else subject
        ctx.exit(
            run_cluster_test(ClusterTest(cluster=file, profile_dirs=profile_dirs, **words), form, ctx.obj)
        )
    _test_image(ctx, subject, cluster, role, form, profile_dirs)


def _test_image(
    ctx: click.Context,
    image: Path,
    cluster: Path,
    role: str | None,
    form: str,
    profile_dirs: tuple[Path, ...],
) -> None:
    from imagegen.verify.outcomes import Outcome, emit_junit

    terminal: Terminal = ctx.obj
    plan = read_plan_aloud(cluster, profile_dirs, terminal)
    answers = _ask(image, *_choose_role(image, role, plan), terminal)
    failed = [answer for answer in answers if not answer.passed]
    if form == "junit":
        outcomes = [Outcome(place=image.name, name=a.name, problem=a.problem) for a in answers]
        terminal.data(emit_junit(f"imagegen test {image.name}", outcomes))
    elif form == "json":
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
