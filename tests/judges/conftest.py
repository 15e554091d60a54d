"""One session-scoped fixture a foreign tool, named as in ``tools.RECIPES``, and one for both Packers.

A missing one skips.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from imagegen.backends.packer.versions import PackerStyle
from tests.conftest import require_judge
from tests.judges.packers import Packer, acquire_packer
from tests.judges.tools import RECIPES, Tool, Unavailable


def _make_fixture(name: str) -> object:
    @pytest.fixture(scope="session", name=name)
    def fixture() -> Tool:
        return require_judge(name)

    return fixture


def skip_unless(reason: Unavailable) -> NoReturn:
    """Skip the test with the reason, unless every judge must be there."""
    if os.environ.get("IMAGEGEN_REQUIRE_JUDGES") == "1":
        pytest.fail(f"judge: {reason}")
    pytest.skip(f"judge: {reason}")


@pytest.fixture(scope="session", params=list(PackerStyle))
def packer(request: pytest.FixtureRequest) -> Packer:
    try:
        return acquire_packer(request.param)
    except Unavailable as reason:
        skip_unless(reason)


globals().update({f"_{name}_fixture": _make_fixture(name) for name in RECIPES})
