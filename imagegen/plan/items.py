"""The vocabulary of the Plan: what may be on a machine. Frozen, hashable, printable, without secret bytes.

Every item has a ``phase`` (bake: once for a role, in the image; boot: per node, in the seed), an ``origin``
and an ``identity``; two items with one identity must say the same or the merge reports both origins.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from imagegen.content import Content as Content
from imagegen.content import Ref as Ref

#: of users that never log in and keep nothing
NO_HOME = "/nonexistent"


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
    """``KIND`` and the field that ``KEY`` names are what two opinions may not disagree about."""

    KIND: ClassVar[str]
    KEY: ClassVar[str] = "name"
    phase: Phase
    origin: Origin = field(compare=False)

    @property
    def identity(self) -> tuple[str, str]:
        """Kind and key; unique on one machine."""
        return (self.KIND, getattr(self, self.KEY))


@dataclass(frozen=True, slots=True, kw_only=True)
class File(Item):
    """A regular file. ``mode`` is a quoted octal string of four digits; owner and group are names."""

    KIND: ClassVar[str] = "path"
    KEY: ClassVar[str] = "path"
    path: str
    content: Content
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory(Item):
    KIND: ClassVar[str] = "path"
    KEY: ClassVar[str] = "path"
    path: str
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink(Item):
    KIND: ClassVar[str] = "path"
    KEY: ClassVar[str] = "path"
    path: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(Item):
    """An executable out of the catalogue of releases (``imagegen.kubernetes.releases``), installed 0755 root.

    ``part`` names the catalogue entry (``kubelet``, ``etcd``, ``cni-plugins``); ``member`` is the path inside
    its archive (empty when the part is the executable itself).
    """

    KIND: ClassVar[str] = "path"
    KEY: ClassVar[str] = "path"
    path: str
    part: str
    version: str
    member: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerImage(Item):
    """A container image that is on the machine before it has a network. ``reference`` is fully qualified."""

    KIND: ClassVar[str] = "image"
    KEY: ClassVar[str] = "reference"
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Package(Item):
    """A distribution package by the name that the cluster's operating system uses."""

    KIND: ClassVar[str] = "package"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Item):
    KIND: ClassVar[str] = "group"
    name: str
    gid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Item):
    """A user; ``system`` users have no password, by default no home and no shell. ``groups`` come on top."""

    KIND: ClassVar[str] = "user"
    name: str
    group: str
    uid: int | None = None
    groups: tuple[str, ...] = ()
    home: str = NO_HOME
    shell: str = "/usr/sbin/nologin"
    system: bool = True
    gecos: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login(Item):
    """The person's account: cloud-init creates it on first boot with these keys and no password."""

    KIND: ClassVar[str] = "user"
    name: str
    ssh_authorized_keys: tuple[str, ...]
    sudo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl(Item):
    KIND: ClassVar[str] = "sysctl"
    KEY: ClassVar[str] = "key"
    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelModule(Item):
    KIND: ClassVar[str] = "module"
    name: str


class UnitState(enum.StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"
    MASKED = "masked"
    #: present, started by others
    STATIC = "static"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit(Item):
    """A systemd unit; ``content`` None means that a package brings it and only ``state`` is ours."""

    KIND: ClassVar[str] = "unit"
    name: str
    content: str | None
    state: UnitState = UnitState.ENABLED


@dataclass(frozen=True, slots=True, kw_only=True)
class Port(Item):
    """An open port of the one port table; ``first`` = ``last`` for one. ``sources``: CIDRs, none = anyone."""

    first: int
    last: int
    protocol: Literal["tcp", "udp"]
    purpose: str
    sources: tuple[str, ...] = ()
    #: a pod listens there, on whatever node it runs
    by_pod: bool = False

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
