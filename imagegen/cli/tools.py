"""What imagegen and its users need on a machine: libraries, programs, their packages and what needs them."""

from __future__ import annotations

from dataclasses import dataclass

from imagegen.run import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A Python distribution; ``module`` is what is imported. ``needed_by`` are verbs or plain words."""

    name: str
    module: str
    needed_by: tuple[str, ...]
    required: bool = True
    #: the extra of imagegen that brings it
    extra: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    tool: Tool
    needed_by: tuple[str, ...]
    required: bool = False


_EVERY = ("every verb",)

LIBRARIES = (
    Library(name="click", module="click", needed_by=_EVERY),
    Library(name="pydantic", module="pydantic", needed_by=("check", "plan", "render", "seed")),
    Library(name="PyYAML", module="yaml", needed_by=("check", "plan", "render", "seed")),
    Library(name="Jinja2", module="jinja2", needed_by=("plan", "render")),
    Library(name="cryptography", module="cryptography", needed_by=("render", "seed", "pki")),
    Library(name="pycdlib", module="pycdlib", needed_by=("render", "seed")),
    Library(name="rich", module="rich", needed_by=("progress bars",)),
    Library(
        name="pyrage", module="pyrage", needed_by=("an encrypted secret store",), required=False, extra="age"
    ),
)

PROGRAMS = (
    Program(
        tool=Tool(
            name="kubectl",
            package="kubernetes-client",
            purpose="talk to the cluster",
            version_arguments=("version", "--client"),
        ),
        needed_by=("the admin kubeconfig",),
    ),
    Program(
        tool=Tool(
            name="qemu-system-x86_64", package="qemu-system-x86", purpose="boot a node on this machine"
        ),
        needed_by=("booting seeds by hand",),
    ),
    Program(
        tool=Tool(name="qemu-img", package="qemu-utils", purpose="make and convert disks"),
        needed_by=("booting seeds by hand",),
    ),
    Program(
        tool=Tool(
            name="xorriso", package="xorriso", purpose="look into a seed ISO", version_arguments=("-version",)
        ),
        needed_by=("looking into seeds",),
    ),
)
