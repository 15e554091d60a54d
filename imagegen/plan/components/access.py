"""Who may log in and how: the person's account, sshd without passwords and without root, sudo."""

from __future__ import annotations

from imagegen.model.cluster import Node, Role
from imagegen.model.systems import SYSTEMS
from imagegen.plan.component import Context
from imagegen.plan.items import File, Fragment, Login, Origin, Package, Phase, Port, Unit

_NOTHING = Fragment()


def plan_role(ctx: Context, roles: tuple[Role, ...]) -> Fragment:
    access = ctx.cluster.access
    login = Origin("component access", reason="access.user of the cluster file; the account has no password")
    ssh = Origin("component access", reason="people reach nodes by key only, never as root")
    facts = SYSTEMS[ctx.cluster.image.os]
    return Fragment(
        (
            Login(
                phase=Phase.BOOT,
                origin=login,
                name=access.user,
                ssh_authorized_keys=access.ssh_authorized_keys,
                # There is no password that sudo could ask for.
                sudo="ALL=(ALL) NOPASSWD:ALL",
            ),
            Package(phase=Phase.BAKE, origin=ssh, name="openssh-server"),
            Package(phase=Phase.BAKE, origin=login, name="sudo"),
            File(
                phase=Phase.BAKE,
                origin=ssh,
                path=facts.sshd_config,
                content=(_sshd_configuration(access.user, facts.sshd_head),),
                mode="0600",
            ),
            Unit(phase=Phase.BAKE, origin=ssh, name=facts.ssh_unit, content=None),
            Port(phase=Phase.BAKE, origin=ssh, first=22, last=22, protocol="tcp", purpose="ssh"),
        )
    )


def plan_node(ctx: Context, node: Node) -> Fragment:
    return _NOTHING


def _sshd_configuration(user: str, head: tuple[str, ...]) -> str:
    return "\n".join(
        [
            *head,
            "PermitRootLogin no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitEmptyPasswords no",
            "PubkeyAuthentication yes",
            "AuthenticationMethods publickey",
            f"AllowUsers {user}",
            "AllowAgentForwarding no",
            "X11Forwarding no",
            "PermitUserEnvironment no",
            "MaxAuthTries 4",
            "LoginGraceTime 30",
            "ClientAliveInterval 300",
            "ClientAliveCountMax 2",
            "UseDNS no",
            "Banner /etc/issue.net",
            "",
        ]
    )
