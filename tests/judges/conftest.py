"""One session-scoped fixture a foreign tool, named as in ``tools.RECIPES``; a missing one skips."""

from __future__ import annotations

import pytest

from tests.conftest import require_judge
from tests.judges.tools import RECIPES, Tool


def _make_fixture(name: str) -> object:
    @pytest.fixture(scope="session", name=name)
    def fixture() -> Tool:
        return require_judge(name)

    return fixture


globals().update({f"_{name}_fixture": _make_fixture(name) for name in RECIPES})
