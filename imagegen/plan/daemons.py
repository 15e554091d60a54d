"""What the daemons of the control plane have in common: an account each, and a program with its unit."""

from __future__ import annotations

from dataclasses import dataclass

from imagegen.kubernetes.arguments import Arguments, emit_exec_start
from imagegen.kubernetes.static_pods import user_id
from imagegen.kubernetes.units import UNPRIVILEGED, Daemon, emit_daemon_unit
from imagegen.model.cluster import Layout
from imagegen.plan.component import Context
from imagegen.plan.items import NO_HOME, Binary, Group, Item, Origin, Phase, Unit, User

STARTS = "starts by itself once the seed has brought its files"


def plan_account(
    origin: Origin, name: str, *, gecos: str, number: int | None = None, home: str = NO_HOME
) -> tuple[Group, User]:
    """A system user with a group of its own name, for a daemon without privileges; ``number`` is both ids."""
    return (
        Group(phase=Phase.BAKE, origin=origin, name=name, gid=number),
        User(phase=Phase.BAKE, origin=origin, name=name, uid=number, group=name, gecos=gecos, home=home),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A daemon that works through the API server: the controller manager, the scheduler.

    ``name`` is its program and part, ``does`` why it is there, ``runs`` why it has a user; ``needs`` are
    files of the seed without which it does not start.
    """

    where: str
    name: str
    user: str
    title: str
    does: str
    runs: str
    needs: tuple[str, ...]


def plan_controller(ctx: Context, controller: Controller, arguments: Arguments) -> tuple[Item, ...]:
    """The account, and where daemons are units the program with its unit."""
    layout = ctx.cluster.kubernetes.layout
    runs = Origin(controller.where, reason=controller.runs)
    account = plan_account(
        runs, controller.user, gecos=controller.title, number=user_id(layout, controller.user)
    )
    if layout is not Layout.SYSTEMD:
        return account
    name = controller.name
    binary = Binary(
        phase=Phase.BAKE,
        origin=Origin(controller.where, reason=controller.does),
        path=f"/usr/local/bin/{name}",
        part=name,
        version=ctx.releases.version(name),
    )
    unit = Unit(
        phase=Phase.BAKE,
        origin=Origin(controller.where, reason=STARTS),
        name=f"{name}.service",
        content=_emit_unit(controller, arguments),
    )
    return (binary, unit, *account)


def _emit_unit(controller: Controller, arguments: Arguments) -> str:
    return emit_daemon_unit(
        Daemon(
            description=controller.title,
            documentation=f"https://kubernetes.io/docs/reference/command-line-tools-reference/{controller.name}/",
            type="exec",
            exec_start=emit_exec_start(f"/usr/local/bin/{controller.name}", arguments),
            user=controller.user,
            after=("kube-apiserver.service",),
            needs=controller.needs,
            resources=(
                ("LimitNOFILE", "16384"),
                ("TasksMax", "2048"),
                ("MemoryMin", "64M"),
                ("CPUWeight", "200"),
                ("OOMScoreAdjust", "-700"),
            ),
            sandbox=UNPRIVILEGED,
        )
    )
