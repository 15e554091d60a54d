"""Draws a list of files as a tree with sizes; long folders are cut short."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

#: entries of one folder that are shown before the rest is counted
_SHOWN = 8


@dataclass(slots=True)
class _Branch:
    size: int = 0
    files: int = 0
    children: dict[str, _Branch] = field(default_factory=dict)


def draw_tree(title: str, files: Iterable[tuple[str, int]]) -> str:
    """A tree of ``(path, size in bytes)`` under ``title``; ends with a line break."""
    root = _Branch()
    for path, size in sorted(files, key=lambda entry: _natural(entry[0])):
        branch = root
        branch.size, branch.files = branch.size + size, branch.files + 1
        for part in path.split("/"):
            branch = branch.children.setdefault(part, _Branch())
            branch.size, branch.files = branch.size + size, branch.files + 1
    rows = [(title, root.size), *_rows(root, "")]
    width = max(len(text) for text, _ in rows)
    sizes = [format_size(size) for _, size in rows]
    column = max(map(len, sizes))
    return "".join(f"{text:{width}}  {size:>{column}}\n" for (text, _), size in zip(rows, sizes, strict=True))


def _natural(path: str) -> list[tuple[int, str]]:
    """``node-2`` before ``node-10``."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path)]


def _rows(branch: _Branch, indent: str) -> Iterator[tuple[str, int]]:
    names = list(branch.children)
    shown = names if len(names) <= _SHOWN + 1 else names[:_SHOWN]
    for name in shown:
        child = branch.children[name]
        last = name == names[-1]
        yield f"{indent}{'└─ ' if last else '├─ '}{name}{'/' if child.children else ''}", child.size
        yield from _rows(child, indent + ("   " if last else "│  "))
    rest = [branch.children[name] for name in names[len(shown) :]]
    if rest:
        yield f"{indent}└─ … {len(rest):,} more", sum(child.size for child in rest)


def format_size(size: int) -> str:
    """``512 B``, ``1.5 KiB``, ``3.0 MiB``."""
    if size < 1024:
        return f"{size} B"
    amount = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"
