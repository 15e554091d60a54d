"""TOML out, read back by the standard library."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen.kubernetes.toml import emit_toml

_TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
_LEAF = st.booleans() | st.integers(-(2**63), 2**63 - 1) | _TEXT | st.lists(_TEXT, max_size=3)
_TABLE: st.SearchStrategy[Any] = st.recursive(
    st.dictionaries(_TEXT, _LEAF, max_size=4),
    lambda inner: st.dictionaries(_TEXT, inner | _LEAF, max_size=4),
    max_leaves=12,
)


@given(_TABLE)
def test_what_is_written_is_read(document: dict[str, Any]) -> None:
    assert tomllib.loads(emit_toml(document)) == document


def test_other_values_are_refused() -> None:
    with pytest.raises(TypeError, match="no TOML form for NoneType"):
        emit_toml({"a": None})
