"""``imagegen up``: the cluster on this machine."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagegen.cli.inputs import find_output, find_secrets, read_cluster
from imagegen.cli.options import (
    cluster_argument,
    format_option,
    mirror_option,
    node_option,
    offline_option,
    profiles_option,
    require_known,
    secrets_option,
    timeout_option,
)
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import Verb
from imagegen.diagnostics import Report
from imagegen.model.cluster import ImagePki, Role

if TYPE_CHECKING:
    from imagegen.backends.image.sources import Source
    from imagegen.lab.cluster import LabCluster
    from imagegen.lab.timeline import Timeline
    from imagegen.model.cluster import Cluster
    from imagegen.run import Runner

#: emulation on two busy processors, with room to spare
_TIMEOUT_SECONDS = 1200


@click.command("up", cls=Verb)
@cluster_argument()
@node_option(multiple=True)
@click.option(
    "--engine",
    type=click.Choice(["qemu", "nspawn"]),
    default="qemu",
    show_default=True,
    help="qemu boots whole machines; nspawn starts their root file systems as containers, much quicker.",
)
@click.option(
    "-o",
    "--output",
    "out",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help='Where golden images are, or are put; default "out" beside the cluster file.',
)
@mirror_option
@offline_option
@click.option("--fresh", is_flag=True, help="Forget the disks of the run before.")
@click.option("--detach", is_flag=True, help="Return when the machines run; imagegen status shows the rest.")
@timeout_option(_TIMEOUT_SECONDS, "How long to wait for the nodes to be ready.")
@secrets_option
@profiles_option
@format_option()
@click.pass_obj
def command(
    terminal: Terminal,
    cluster: Path,
    nodes: tuple[str, ...],
    engine: str,
    out: Path | None,
    mirror: str | None,
    offline: bool,
    fresh: bool,
    detach: bool,
    timeout: float,
    secrets_dir: Path | None,
    profile_dirs: tuple[Path, ...],
    form: str,
) -> None:
    """Start CLUSTER on this machine and wait until its nodes are ready.

    Builds the golden images that are missing, writes seeds with a throw-away ssh key of the lab, and boots
    every node (or each --node) in a private network that nothing leaves. Prints the time from power-on to
    Ready, and how to look around. The machines go on until "imagegen down CLUSTER".
    """
    report = Report()
    model = read_cluster(cluster, profile_dirs, report)
    for name in nodes:
        require_known("node", name, [node.name for node in model.nodes])
    out = find_output(out if out is not None else cluster.parent / "out")

    from imagegen.cli.build import BuildOrder, run_build
    from imagegen.lab.access import make_ssh_key
    from imagegen.lab.cluster import LabOptions, check_startable, end_lab, find_running, start_lab
    from imagegen.lab.folder import lab_folder

    runner = _make_runner(terminal)
    check_startable(model, engine, runner)
    if find_running(cluster) is not None:
        if not fresh:
            _go_on(cluster, profile_dirs, runner, detach, timeout, form, terminal)
            return
        end_lab(cluster, runner=runner)
    keys: tuple[str, ...] = ()
    if model.image.pki is ImagePki.BAKED:
        # the lab's own variant of such images is as private as the lab, and goes with it
        folder = lab_folder(cluster)
        folder.make()
        out, keys = folder.baked, (make_ssh_key(folder.ssh_key),)
    order = BuildOrder(
        cluster=cluster,
        out=out,
        roles=() if keys else _list_role_sets(model, nodes),
        nodes=nodes if keys else (),
        secrets_dir=secrets_dir,
        authorized_keys=keys,
        formats=("qcow2",),
        profile_dirs=profile_dirs,
        mirror=mirror,
        offline=offline,
        with_sources=True,
    )
    built = run_build(order, terminal)
    options = LabOptions(
        out=out,
        engine=engine,
        nodes=nodes or None,
        secrets=find_secrets(cluster, secrets_dir),
        profile_dirs=profile_dirs,
        fresh=fresh,
    )
    lab = start_lab(cluster, options, runner=runner, progress=terminal.progress(), report=Report())
    _bring_kubectl(lab, built.sources)
    terminal.say(
        f"{len(lab.nodes)} machines run with {lab.engine.describe()}; consoles: {lab.folder.consoles}"
    )
    _finish(lab, detach, timeout, form, terminal)


def _go_on(
    cluster: Path,
    profile_dirs: tuple[Path, ...],
    runner: Runner,
    detach: bool,
    timeout: float,
    form: str,
    terminal: Terminal,
) -> None:
    """The lab runs already: switch on what is off, and wait."""
    from imagegen.lab.cluster import open_lab

    lab = open_lab(cluster, profile_dirs=profile_dirs, runner=runner)
    terminal.say(f"{lab.cluster.name} is running already; --fresh starts it anew")
    for node in lab.nodes:
        machine = lab.machines.get(node.name)
        if machine is None or not machine.is_alive():
            lab.start_node(node.name)
    _finish(lab, detach, timeout, form, terminal)


def _finish(lab: LabCluster, detach: bool, timeout: float, form: str, terminal: Terminal) -> None:
    if detach:
        terminal.say(f"see how far they are: imagegen status {_shorten(Path(lab.cluster.file))} --watch")
        return
    show_result(lab, _watch(lab, timeout, terminal), form, terminal)


def _make_runner(terminal: Terminal) -> Runner:
    from imagegen.run import Runner

    return Runner(log=terminal.detail)


def _list_role_sets(cluster: Cluster, nodes: Iterable[str]) -> tuple[str, ...]:
    chosen = [cluster.node(name) for name in nodes] or list(cluster.nodes)
    return tuple(dict.fromkeys(node.role_set for node in chosen))


def _bring_kubectl(lab: LabCluster, sources: dict[Source, Path]) -> None:
    """Put the cluster's own kubectl, which a master's image holds anyway, into the lab's folder."""
    found = next((path for source, path in sources.items() if getattr(source, "part", "") == "kubectl"), None)
    target = lab.folder.kubectl
    if found is not None and not (target.exists() and target.stat().st_size == found.stat().st_size):
        partial = target.with_name(".kubectl.partial")
        shutil.copyfile(found, partial)
        partial.chmod(0o755)
        partial.rename(target)


def _watch(lab: LabCluster, timeout: float, terminal: Terminal) -> Timeline:
    from imagegen.cli.labview import LabView
    from imagegen.lab.watch import watch_lab

    with LabView(terminal) as view:
        return watch_lab(lab.watch(), timeout, on_change=view.on_change)


def show_result(lab: LabCluster, timeline: Timeline, form: str, terminal: Terminal) -> None:
    """The timeline, the nodes as kubectl shows them, and how to look around."""
    from imagegen.emit import emit_json
    from imagegen.lab.timeline import render_table

    if form == "json":
        terminal.data(emit_json({**timeline.as_dict(), "kubeconfig": str(lab.folder.kubeconfig)}))
        return
    terminal.data(render_table(timeline.nodes.values()))
    terminal.data(f"\n{lab.cluster.name} was ready {timeline.seconds:.0f} s after power-on.\n\n")
    # with --node there may be no master to ask
    if lab.folder.kubectl.exists() and timeline.api_seconds is not None:
        terminal.data(lab.kubectl("get", "nodes").stdout + "\n")
    terminal.data("".join(f"{line}\n" for line in list_commands(lab)))


def list_commands(lab: LabCluster) -> list[str]:
    """Command lines to paste, to look around and to stop."""
    cluster, program = _shorten(Path(lab.cluster.file)), _name_program()
    node = next((node for node in lab.nodes if node.has(Role.WORKER)), lab.nodes[0]).name
    lines = ["look around:"]
    if lab.network.api_port:
        kubectl = _shorten(lab.folder.kubectl) if lab.folder.kubectl.exists() else "kubectl"
        lines.append(f"  {kubectl} --kubeconfig {_shorten(lab.folder.kubeconfig)} get pods -A")
    lines += [f"  {program} ssh {cluster} {node}", f"  {program} status {cluster}"]
    return [*lines, "stop:", f"  {program} down {cluster}"]


def _name_program() -> str:
    """How to call imagegen from here: it may lie in a virtual environment that is not active."""
    if shutil.which("imagegen"):
        return "imagegen"
    beside = Path(sys.executable).parent / "imagegen"
    return _shorten(beside) if beside.exists() else f"{shlex.quote(sys.executable)} -m imagegen"


def _shorten(path: Path) -> str:
    """A path as a word for the shell, relative to here when it is below."""
    absolute, here = path.absolute(), Path.cwd()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute))
