"""Runs imagegen in this process, as a shell would: words in; stdout, stderr and exit code out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagegen.cli.main import main
from imagegen.resources import find_resource


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Imagegen = Callable[..., Outcome]


@pytest.fixture
def imagegen(capsys: pytest.CaptureFixture[str]) -> Imagegen:
    def run(*words: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        assert isinstance(caught.value.code, int)
        return Outcome(caught.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """A copy of the quickstart example, so that its secret store lies in ``tmp_path``."""
    target = tmp_path / "quickstart" / "cluster.yaml"
    target.parent.mkdir()
    target.write_bytes(find_resource("examples", "quickstart", "cluster.yaml").read_bytes())
    return target
