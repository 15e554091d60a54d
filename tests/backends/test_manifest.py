"""manifest.json is read by the next run, which believes nothing in it that would lead outside."""

from __future__ import annotations

import json

import pytest

from imagegen.backends.manifest import Artifact, Manifest, emit_manifest, is_safe_path, parse_manifest
from imagegen.errors import UsageError

A = Artifact("nodes/a/user-data", "a" * 64, 5, "1234", True)
B = Artifact("plan.json", "b" * 64, 0, "")


def test_round_trip() -> None:
    data = emit_manifest("c", [B, A])
    assert parse_manifest(data, "m") == Manifest("c", {A.path: A, B.path: B})
    assert emit_manifest("c", [A, B]) == data


def test_an_empty_one_is_valid() -> None:
    assert parse_manifest(emit_manifest("c", []), "m").artifacts == {}


def test_names_of_every_kind_survive() -> None:
    odd = Artifact('nodes/"ä\n', "a" * 64, 5, "")
    assert parse_manifest(emit_manifest("c", [odd]), "m").artifacts == {odd.path: odd}


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a\0b"])
def test_paths_that_lead_out_are_unsafe(path: str) -> None:
    assert not is_safe_path(path)


def _mutate(**changes: object) -> bytes:
    document = json.loads(emit_manifest("c", [A]))
    row = document["artifacts"][0]
    for key, value in changes.items():
        (document if key in document else row)[key] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b'{"name": "webapp"}',
        b"[" * 100_000,
        _mutate(generator="other"),
        _mutate(format=2),
        _mutate(cluster=7),
        _mutate(artifacts={}),
        _mutate(artifacts=[1]),
        _mutate(path="../../etc/passwd"),
        _mutate(path="/etc/passwd"),
        _mutate(path=7),
        _mutate(sha256="x"),
        _mutate(size="5"),
        _mutate(inputs=None),
    ],
    ids=range(18),
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="OUT/manifest"):
        parse_manifest(data, "OUT/manifest.json")
