"""Every judge that can be had starts and says its version: a broken judge would pass everything."""

from __future__ import annotations

import pytest

from tests.conftest import require_judge
from tests.judges.tools import RECIPES


@pytest.mark.judge
@pytest.mark.parametrize("name", RECIPES)
def test_judge_starts(name: str) -> None:
    tool = require_judge(name)
    done = tool.run(*RECIPES[name].version)
    assert done.returncode == 0 or name == "sshd", done.stderr
    assert done.stdout + done.stderr
