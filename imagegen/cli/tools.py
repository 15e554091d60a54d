"""What imagegen and its users need on a machine: libraries, programs, their packages and what needs them."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from imagegen import lab, verify
from imagegen.backends import image, packer
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
    Library(name="cryptography", module="cryptography", needed_by=("render", "seed", "pki")),
    Library(name="pycdlib", module="pycdlib", needed_by=("render", "seed")),
    Library(name="Jinja2", module="jinja2", needed_by=("render", "build")),
    Library(name="urllib3", module="urllib3", needed_by=("fetch", "build")),
    Library(name="cyclonedx-python-lib", module="cyclonedx", needed_by=("build",)),
    Library(name="zstandard", module="zstandard", needed_by=("scan",)),
    Library(name="rich", module="rich", needed_by=("progress bars",)),
    Library(
        name="pyrage", module="pyrage", needed_by=("an encrypted secret store",), required=False, extra="age"
    ),
)

#: what people use beside imagegen; what its own verbs start is declared as TOOLS by the modules that start it
_BESIDE = (
    Program(
        tool=Tool(
            name="kubectl",
            package="kubernetes-client",
            purpose="talk to the cluster",
            version_arguments=("version", "--client"),
        ),
        needed_by=("the admin kubeconfig",),
    ),
)


def list_programs() -> list[Program]:
    """Every program that a verb may start, and what people use beside; none is needed to render."""
    found: dict[str, Program] = {}
    for package, verbs in (
        (image, ("build",)),
        (packer, ("build --with packer",)),
        (lab, ("up",)),
        (verify, ("test", "scan")),
    ):
        for tool in _list_tools(package):
            known = found.get(tool.name)
            users = dict.fromkeys((*(known.needed_by if known else ()), *verbs))
            found[tool.name] = Program(tool=tool, needed_by=tuple(users))
    return [*sorted(found.values(), key=lambda program: program.tool.name), *_BESIDE]


def _list_tools(package: ModuleType) -> Iterator[Tool]:
    """What the modules of a package start."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        # a library that is missing is told by its own line
        with contextlib.suppress(ImportError):
            yield from getattr(importlib.import_module(module.name), "TOOLS", ())
