"""The vocabulary of the Plan: what may be on a machine. Frozen, hashable, printable, without secret bytes.

Every item has a ``phase`` (bake: once for a role, in the image; boot: per node, in the seed), an ``origin``
and an ``identity``; two items with one identity must say the same or the merge reports both origins.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal

from imagegen.content import Content as Content
from imagegen.content import Ref as Ref


class Phase(enum.StrEnum):
    BAKE = "bake"
    BOOT = "boot"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for an item: a place (``profiles/base.yaml:14``) or a component (``component apiserver``)."""

    where: str
    line: int = 0
    #: one sentence on why the item exists, for ``explain``
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.where}:{self.line}" if self.line else self.where


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    phase: Phase
    origin: Origin = field(compare=False)

    @property
    def identity(self) -> tuple[str, str]:
        """Kind and key: what two opinions may not disagree about."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class File(Item):
    """A regular file. ``mode`` is a quoted octal string of four digits; owner and group are names."""

    path: str
    content: Content
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"

    @property
    def identity(self) -> tuple[str, str]:
        return ("path", self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory(Item):
    path: str
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"

    @property
    def identity(self) -> tuple[str, str]:
        return ("path", self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink(Item):
    path: str
    target: str

    @property
    def identity(self) -> tuple[str, str]:
        return ("path", self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(Item):
    """An executable out of the catalogue of releases (``imagegen.kubernetes.releases``), installed 0755 root.

    ``part`` names the catalogue entry (``kubelet``, ``etcd``, ``cni-plugins``); ``member`` is the path inside
    its archive (empty when the part is the executable itself).
    """

    path: str
    part: str
    version: str
    member: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        return ("path", self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerImage(Item):
    """A container image that is on the machine before it has a network. ``reference`` is fully qualified."""

    reference: str

    @property
    def identity(self) -> tuple[str, str]:
        return ("image", self.reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package(Item):
    """A distribution package by the name that the cluster's operating system uses."""

    name: str

    @property
    def identity(self) -> tuple[str, str]:
        return ("package", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Item):
    name: str
    gid: int | None = None

    @property
    def identity(self) -> tuple[str, str]:
        return ("group", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Item):
    """A user; ``system`` users have no password, by default no home and no shell. ``groups`` come on top."""

    name: str
    group: str
    uid: int | None = None
    groups: tuple[str, ...] = ()
    home: str = "/nonexistent"
    shell: str = "/usr/sbin/nologin"
    system: bool = True
    gecos: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        return ("user", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login(Item):
    """The person's account: cloud-init creates it on first boot with these keys and no password."""

    name: str
    ssh_authorized_keys: tuple[str, ...]
    sudo: str

    @property
    def identity(self) -> tuple[str, str]:
        return ("user", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl(Item):
    key: str
    value: str

    @property
    def identity(self) -> tuple[str, str]:
        return ("sysctl", self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelModule(Item):
    name: str

    @property
    def identity(self) -> tuple[str, str]:
        return ("module", self.name)


class UnitState(enum.StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"
    MASKED = "masked"
    #: present, started by others
    STATIC = "static"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit(Item):
    """A systemd unit; ``content`` None means that a package brings it and only ``state`` is ours."""

    name: str
    content: str | None
    state: UnitState = UnitState.ENABLED

    @property
    def identity(self) -> tuple[str, str]:
        return ("unit", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port(Item):
    """An open port of the one port table; ``first`` = ``last`` for one. ``sources``: CIDRs, none = anyone."""

    first: int
    last: int
    protocol: Literal["tcp", "udp"]
    purpose: str
    sources: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str, str]:
        numbers = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return ("port", f"{numbers}/{self.protocol}")


@dataclass(frozen=True, slots=True)
class Fragment:
    """What one component or one profile wants; merged with the others into a Plan."""

    items: tuple[Item, ...] = ()

    def __add__(self, other: Fragment) -> Fragment:
        return Fragment(self.items + other.items)
