"""Answers of the time server and the metadata server, byte by byte."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from imagegen.lab.metadataserver import answer_metadata
from imagegen.lab.networkplan import Metadata
from imagegen.lab.timeserver import answer_time

GOOGLE = {"metadata-flavor": "Google"}


def _ask_time(mode: int = 3) -> bytes:
    return bytes([4 << 3 | mode, 0, 6, 0xE9]) + bytes(36) + b"ORIGINAL"


def test_time_is_answered_as_a_server_of_the_first_rank() -> None:
    answer = answer_time(_ask_time(), 1_800_000_000.5)
    assert answer is not None
    assert len(answer) == 48
    assert answer[0] == 4 << 3 | 4
    assert answer[1] == 1
    assert answer[24:32] == b"ORIGINAL"
    seconds, fraction = struct.unpack(">II", answer[40:48])
    assert seconds - 2_208_988_800 == 1_800_000_000
    assert fraction == 1 << 31


@pytest.mark.parametrize("packet", [b"", b"short", _ask_time(mode=4), _ask_time(mode=6)])
def test_what_asks_for_no_time_gets_none(packet: bytes) -> None:
    assert answer_time(packet, 0.0) is None


@pytest.fixture
def machine(tmp_path: Path) -> Metadata:
    user_data = tmp_path / "user-data"
    user_data.write_text("#cloud-config\nname: é\n")
    return Metadata(
        address="10.0.0.2",
        hostname="one.lab",
        instance_id="42",
        attributes=(("user-data", str(user_data)),),
    )


def test_metadata_as_cloud_init_asks_for_it(machine: Metadata) -> None:
    def ask(path: str) -> bytes:
        status, headers, body = answer_metadata(f"/computeMetadata/v1/{path}", GOOGLE, machine)
        assert status == 200
        assert headers["Metadata-Flavor"] == "Google"
        return body

    assert ask("instance/id") == b"42"
    assert ask("instance/hostname") == b"one.lab"
    attributes = json.loads(ask("instance/attributes/?recursive=True"))
    assert attributes == {"user-data": "#cloud-config\nname: é\n"}
    assert ask("instance/attributes/user-data").decode() == attributes["user-data"]
    assert b"attributes/\n" in ask("instance/")
    assert json.loads(ask("project/attributes/?recursive=True")) == {}


def test_metadata_wants_its_header_and_no_proxy(machine: Metadata) -> None:
    assert answer_metadata("/computeMetadata/v1/instance/id", {}, machine)[0] == 403
    forwarded = {**GOOGLE, "x-forwarded-for": "10.0.0.9"}
    assert answer_metadata("/computeMetadata/v1/instance/id", forwarded, machine)[0] == 403


@pytest.mark.parametrize(
    "path", ["/", "/latest/meta-data/", "/computeMetadata/v1beta1/x", "/computeMetadata/v1/instance/id/x"]
)
def test_other_clouds_and_unknown_paths_are_refused_at_once(machine: Metadata, path: str) -> None:
    assert answer_metadata(path, GOOGLE, machine)[0] == 404


def test_an_unknown_machine_is_told_nothing(machine: Metadata) -> None:
    assert answer_metadata("/computeMetadata/v1/instance/id", GOOGLE, None)[0] == 404
