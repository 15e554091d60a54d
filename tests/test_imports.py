"""The house rules: imports point downwards, only ``cli`` prints or exits, only ``run`` starts processes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "imagegen"

#: lowest first; a module imports from its own level's room and from rooms on lower levels
LEVELS = (
    ("diagnostics", "errors", "content", "emit", "openfolder", "yamltree"),
    ("source", "run", "fetch", "progress", "resources"),
    ("model",),
    ("kubernetes", "pki"),
    ("plan",),
    ("backends",),
    ("verify",),
    ("lab",),
    ("cli",),
)
#: neighbours that may be imported although they are on the same level
NEIGHBOURS = {
    ("diagnostics", "errors"),
    ("errors", "diagnostics"),
    ("emit", "content"),
    ("yamltree", "diagnostics"),
    ("fetch", "run"),
    ("fetch", "progress"),
    ("fetch", "resources"),
    ("kubernetes", "pki"),
}
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

MODULES = sorted(PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module of imagegen by its dotted name, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    here = _room(path)
    if here in {"__init__", "__main__"}:
        return
    assert here in LEVEL_OF, f"{here} has no level: give it one"
    for name, line in _imports(_parse(path)):
        parts = name.split(".")
        if parts[0] != "imagegen" or len(parts) == 1 or parts[1] in {here, "__version__"}:
            continue
        there = parts[1]
        allowed = LEVEL_OF[there] < LEVEL_OF[here] or (here, there) in NEIGHBOURS
        assert allowed, f"{path.name}:{line}: {here} must not import {there}"


#: sent to a node as text and run there, never imported here
SENT_TO_NODES = {Path("verify/nodeprobe.py")}
#: what runs here
LOCAL_MODULES = [path for path in MODULES if path.relative_to(PACKAGE) not in SENT_TO_NODES]


def test_what_is_sent_to_nodes_is_imported_nowhere() -> None:
    names = {f"imagegen.{'.'.join(path.with_suffix('').parts)}" for path in SENT_TO_NODES}
    assert not [path for path in MODULES if names & {name for name, _ in _imports(_parse(path))}]


@pytest.mark.parametrize("path", LOCAL_MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_run_starts_processes(path: Path) -> None:
    names = {name.split(".")[0] for name, _ in _imports(_parse(path))}
    if _room(path) != "run":
        assert not names & {"subprocess", "pty", "multiprocessing"}
    calls = {
        node.attr
        for node in ast.walk(_parse(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    assert not calls & {"system", "popen", "fork", "execv", "execve", "execvp", "spawnl", "spawnv"}


@pytest.mark.parametrize("path", LOCAL_MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_cli_prints_and_exits(path: Path) -> None:
    if _room(path) == "cli":
        return
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"print", "exit", "quit", "sys.exit", "os._exit"}, (
                f"line {node.lineno}: {name}"
            )
        elif isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in {"sys.stdout", "sys.stderr"}, f"line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_say_what_they_know_and_stay_short(path: Path) -> None:
    tree = _parse(path)
    if not tree.body:
        return
    doc = ast.get_docstring(tree)
    assert doc, "a module says in one to five lines what it knows"
    assert len(doc.splitlines()) <= 6
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450
    for part in path.relative_to(PACKAGE).parts:
        assert part.removesuffix(".py") not in {"util", "utils", "helpers", "common", "manager", "misc"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < 75, (
                f"{node.name} is {node.end_lineno - node.lineno} lines long"
            )
