"""The source documents as data: what each of the five hand-built systems consists of, line by line."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
NAMES = ("s0", "s1", "s2", "s3", "s4")


@cache
def read_document(name: str) -> dict[str, Any]:
    """The facts of one document."""
    document: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    return document


@cache
def list_flags(name: str) -> dict[tuple[str, str], str]:
    """(component, flag without dashes) → value, of every daemon in one document."""
    flags = read_document(name).get("flags", {})
    return {
        (component, flag): str(value) for component, values in flags.items() for flag, value in values.items()
    }
