"""The cluster files that ship with imagegen."""

from __future__ import annotations

from pathlib import Path

from imagegen.resources import find_resource

DEFAULT_EXAMPLE = "quickstart"


def list_examples() -> list[str]:
    """Names of the examples, the default first."""
    names = sorted(path.parent.name for path in find_resource("examples").glob("*/cluster.yaml"))
    return sorted(names, key=lambda name: name != DEFAULT_EXAMPLE)


def example_file(name: str) -> Path:
    """The cluster file of an example; raises ImagegenError when there is none."""
    return find_resource("examples", name, "cluster.yaml")


def describe_example(name: str) -> str:
    """The first comment line of its cluster file, without the final full stop."""
    for line in example_file(name).read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and line.strip("# "):
            return line.strip("# ").rstrip(".")
    return ""
