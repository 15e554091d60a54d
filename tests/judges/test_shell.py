"""shellcheck and Python's own parser over the programs that run on machines."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from imagegen.resources import find_resource
from tests.judges.tools import Tool

#: Oracle Linux 9
OLDEST_PYTHON = (3, 9)


def list_programs(interpreter: str) -> list[Path]:
    """Every file of ``cloud-init/`` whose first line names the interpreter."""
    files = [path for path in sorted(find_resource("cloud-init").rglob("*")) if path.is_file()]
    return [path for path in files if interpreter.encode() in path.read_bytes().partition(b"\n")[0]]


def list_python_files() -> list[Path]:
    return [*list_programs("python3"), *sorted(find_resource("cloud-init").rglob("*.py"))]


@pytest.mark.judge
def test_shell_programs_are_clean(shellcheck: Tool) -> None:
    programs = list_programs("/sh")
    assert programs
    done = shellcheck.run("--severity=style", *programs)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", list_python_files(), ids=lambda path: path.name)
def test_python_programs_run_on_the_oldest_python(path: Path) -> None:
    ast.parse(path.read_text("utf-8"), feature_version=OLDEST_PYTHON)


@pytest.mark.parametrize("path", list_programs("python3"), ids=lambda path: path.name)
def test_python_programs_ignore_their_surroundings(path: Path) -> None:
    """-E and -s: neither the environment nor a home directory brings modules in."""
    assert path.read_text("utf-8").startswith("#!/usr/bin/python3 -EsB\n")
    assert path.stat().st_mode & 0o111


def test_there_are_programs() -> None:
    assert {path.name for path in list_python_files()} >= {"first-boot", "csr-approver", "kube_api.py"}
