"""Every body arrives byte for byte: through YAML, and through cloud-init's own decoding."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from imagegen.backends.writefiles import LARGE_BYTES, emit_entry

LOADERS = [yaml.SafeLoader, yaml.CSafeLoader]


def read_back(text: str, loader: Any = yaml.SafeLoader) -> tuple[dict[str, Any], bytes]:
    """The entry and its body, decoded as cc_write_files does."""
    (entry,) = yaml.load(text, Loader=loader)
    content = entry["content"]
    match entry.get("encoding"):
        case None:
            body = content.encode()
        case "b64":
            body = base64.b64decode(content)
        case "gz+b64":
            body = gzip.decompress(base64.b64decode(content))
        case other:
            raise AssertionError(other)
    return entry, body


AWKWARD = [
    "",
    "\n",
    "\n\n",
    "plain",
    "plain\n",
    "two\n\nparagraphs\n",
    "ends in two line breaks\n\n",
    "  starts with space\n",
    "\tstarts with a tab\n",
    "\nstarts with a line break\n",
    "space at the end \nof a line\n",
    "a\n   \nb\n",
    "tab\tinside\n",
    "# looks like a comment\n",
    "- looks: like\n  a: list\n",
    "---\n...\n%YAML 1.1\n",
    "{{7*7}} {% if x %} ${x} %{y} $(id) `id`\nEOF\nEOT\n",
    "## template: jinja\n",
    "carriage\r\nreturn\r\n",
    "next line \x85, line \u2028 and paragraph \u2029 separators\n",
    "byte order mark \ufeff\n",
    "nul \x00 and bell \x07\n",
    "umlauts äöü, 日本語, 😀\n",
    "right \u202e to left\n",
    "it's 'quoted' \"twice\" \\ back\\slash\n",
    "yes\n",
    "0644",
    "x" * 5000,
]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_awkward_text_survives(text: str, loader: Any) -> None:
    assert read_back(emit_entry("/a", text.encode()), loader)[1] == text.encode()


@given(st.one_of(st.text(max_size=200).map(str.encode), st.binary(max_size=200)))
def test_any_bytes_survive(body: bytes) -> None:
    assert read_back(emit_entry("/a", body))[1] == body


@given(st.lists(st.text(alphabet=" \t\nab#:-'", max_size=12), max_size=6).map("\n".join))
def test_any_white_space_survives(text: str) -> None:
    assert read_back(emit_entry("/a", text.encode()))[1] == text.encode()


def test_text_stays_readable() -> None:
    text = "server 10.0.0.1\n\nworker 10.0.0.2\n"
    assert emit_entry("/etc/x", text.encode()) == (
        "- path: /etc/x\n  permissions: '0644'\n  content: |\n    server 10.0.0.1\n\n    worker 10.0.0.2\n"
    )


def test_large_text_is_compressed_the_same_way_always() -> None:
    body = b"all work and no play\n" * (LARGE_BYTES // 20)
    text = emit_entry("/a", body)
    entry, back = read_back(text)
    assert entry["encoding"] == "gz+b64"
    assert back == body
    assert len(text) < len(body) // 10
    assert gzip.decompress(base64.b64decode(entry["content"])) == body
    # the time stamp in the header would change with every run
    assert base64.b64decode(entry["content"])[4:8] == bytes(4)


@example("\n")
@example('a\n b\u2028"\\')
@given(st.text(min_size=1, max_size=30))
def test_any_path_survives(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        return
    entry, _ = read_back(emit_entry(f"/{path}", b""))
    assert entry["path"] == f"/{path}"


def test_mode_and_owner_are_strings() -> None:
    entry, _ = read_back(emit_entry("/a", b"", mode="0600", owner="etcd", group="adm"))
    assert entry["permissions"] == "0600"
    assert entry["owner"] == "etcd:adm"
    assert "defer" not in entry


def test_root_needs_no_owner_and_later_users_are_deferred() -> None:
    assert "owner" not in read_back(emit_entry("/a", b""))[0]
    assert read_back(emit_entry("/a", b"", owner="etcd", defer=True))[0]["defer"] is True
