"""How a value of the cluster file is refused: the findings, and what was got in the words of the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from pydantic_core import PydanticCustomError

from imagegen.diagnostics import register_code
from imagegen.model.support import KNOWN_MINORS
from imagegen.source import PlainText, shorten

BAD_VALUE = register_code(
    "IMG105",
    "a value is not of the wanted form",
    "The value is spelt in a way that this key does not take. The message says the form that is "
    "wanted, the hint how the value probably should read.",
)
WRONG_TYPE = register_code(
    "IMG103",
    "a value has the wrong type",
    "A mapping, a list, a text, a number or a truth value stands where another of them is wanted. "
    "Numbers and truth values are written without quotes; an empty value is not the same as a missing "
    "key.",
)
UNKNOWN_CHOICE = register_code(
    "IMG106",
    "a value is not one of the choices",
    "The key takes one of a fixed list of words. `imagegen schema` and the reference list them.",
)
BAD_NAME = register_code(
    "IMG107",
    "a name cannot be used as a DNS label",
    "Names of clusters and nodes become host names, certificate names and file names. They are RFC "
    "1123 labels: lower case letters, digits and hyphens, at most 63 characters, a letter or digit "
    "first and last.",
)
UNKNOWN_VERSION = register_code(
    "IMG108",
    "the Kubernetes version is not known",
    f"imagegen knows Kubernetes 1.{KNOWN_MINORS[0]} to 1.{KNOWN_MINORS[-1]}. The version is exact, with"
    " three numbers, because an image is built from exact binaries.",
)


def refuse(message: str, hint: str | None = None, code: str = BAD_VALUE) -> PydanticCustomError:
    """A finding in the form in which pydantic carries it to ``imagegen.model.findings``."""
    return PydanticCustomError("imagegen", "{message}", {"message": message, "hint": hint, "code": code})


def show(text: str) -> str:
    """``text`` as it stands in a message: bare when it is one plain word, else quoted; never long."""
    return shorten(text) if re.fullmatch(r"[!-~]+", text) else repr(shorten(text))


def describe(value: object) -> str:
    """What was got, in the words of the cluster file."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = str(value)
    if isinstance(value, PlainText):
        return show(text)
    return f"the text {shorten(text)!r}"


def wrong_type(wanted: str, value: object) -> PydanticCustomError:
    hint = "write a value or remove the key" if value is None else None
    if isinstance(value, str) and wanted in {"a whole number", "true or false"}:
        hint = "remove the quotes" if not isinstance(value, PlainText) else None
    return refuse(f"wanted {wanted}, got {describe(value)}", hint, WRONG_TYPE)


def closest(word: str, choices: Iterable[str]) -> str | None:
    """``did you mean …?`` or None."""
    known = list(choices)
    found = difflib.get_close_matches(word.lower()[:100], known, n=1, cutoff=0.6)
    if not found and len(word) > 2:
        found = [choice for choice in known if word.lower() in choice]
    return f"did you mean {found[0]}?" if len(found) == 1 else None
