"""What changes from one minor to the next: the newest in full, the others by difference."""

from __future__ import annotations

import difflib
import itertools
from pathlib import Path

import pytest

from imagegen.emit import emit_yaml
from imagegen.kubernetes.arguments import emit_exec_start
from tests.goldens import check_golden
from tests.judges.rendered import render_all
from tests.kubernetes.clusters import MINORS, make_cluster


def render_minor(folder: Path, minor: str) -> str:
    """Every command line and file of one minor as one text."""
    folder.mkdir(exist_ok=True)
    cluster, gates = make_cluster(folder, minor)
    rendered = render_all(cluster, gates)
    out = []
    for name, arguments in rendered.arguments.items():
        out.append(f"==== flags of {name}\n{emit_exec_start(name, arguments)}\n")
    for name, body in (*rendered.objects.items(), ("etcd", rendered.etcd)):
        out.append(f"==== file of {name}\n{emit_yaml(body)}")
    out.append(f"==== file of containerd\n{rendered.containerd}")
    return "".join(out)


def test_the_newest_minor_in_full(tmp_path: Path) -> None:
    check_golden(f"kubernetes/{MINORS[-1]}.txt", render_minor(tmp_path, MINORS[-1]))


@pytest.mark.parametrize(("old", "new"), list(itertools.pairwise(MINORS)))
def test_the_difference_between_neighbours(tmp_path: Path, old: str, new: str) -> None:
    before, after = render_minor(tmp_path / old, old), render_minor(tmp_path / new, new)
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), old, new, n=0
    )
    # line numbers would change with every line above
    text = "".join("@@\n" if line.startswith("@@") else line for line in lines)
    check_golden(f"kubernetes/{old}-{new}.diff", text)
