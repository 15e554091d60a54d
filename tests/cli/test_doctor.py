"""``doctor``: says what is there, what is missing and how to get it; exit code 3 when it must be there."""

from __future__ import annotations

import json

import pytest

from imagegen.cli import doctor
from imagegen.cli.tools import Library, Program
from imagegen.run import Tool
from tests.cli.conftest import Imagegen


@pytest.mark.process
def test_everything_required_is_here(imagegen: Imagegen) -> None:
    done = imagegen("doctor")
    assert done.code == 0
    assert "cryptography" in done.out
    rows = json.loads(imagegen("doctor", "--format", "json").out)
    assert {row["kind"] for row in rows} == {"interpreter", "library", "program"}
    assert all(row["state"] == "ok" for row in rows if row["required"])
    assert all(row["needed_by"] and row["get"] for row in rows)


def test_something_required_is_missing(imagegen: Imagegen, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(name="no-such-thing", module="nothing", needed_by=("render",))
    program = Program(
        tool=Tool(name="no-such-tool", package="some-package", purpose="x"), needed_by=("booting",)
    )
    monkeypatch.setattr(doctor, "LIBRARIES", (library,))
    monkeypatch.setattr(doctor, "list_programs", lambda: [program])
    done = imagegen("doctor")
    assert done.code == 3
    assert "missing  no-such-thing  for render: pip install 'no-such-thing'" in done.out
    assert "absent   no-such-tool   for booting: apt-get install some-package" in done.out
    rows = {row["name"]: row for row in json.loads(imagegen("doctor", "--format", "json").out)}
    assert rows["no-such-thing"]["state"] == "missing"
    assert rows["no-such-tool"]["version"] is None
