"""await-api: the kubelet waits for an API server that takes its token, and not for ever."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cloud_init.fake_api import CSRS, FakeApi, serve
from tests.cloud_init.programs import load_program

program = load_program("await-api")
pytestmark = pytest.mark.process

TOKEN = "abcdef.canary0123456789"


@pytest.fixture(name="api")
def _api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    monkeypatch.setattr(program, "PAUSE_SECONDS", 0.01)
    with serve(anonymous=True) as server:
        yield server


def write_kubeconfig(api: FakeApi, path: Path) -> Path:
    document = yaml.safe_load(api.write_kubeconfig(path).read_text())
    document["users"][0]["user"] = {"token": TOKEN}
    path.write_text(yaml.safe_dump(document))
    return path


def run(api: FakeApi, folder: Path, *more: str) -> int:
    code: int = program.main([f"--kubeconfig={write_kubeconfig(api, folder / 'config')}", *more])
    return code


def test_a_token_that_is_taken(api: FakeApi, tmp_path: Path) -> None:
    assert run(api, tmp_path) == 0
    assert api.requests == [("GET", f"{CSRS}/imagegen-await-api")]
    assert api.headers[-1]["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("fault", [401, 403, 429, 500, 503, "drop", "garbage"])
def test_it_asks_again(api: FakeApi, tmp_path: Path, fault: int | str, capfd: Any) -> None:
    api.faults += [("GET", CSRS, fault)] * 3
    assert run(api, tmp_path) == 0
    assert len(api.requests) == 4
    err = capfd.readouterr().err
    assert "canary" not in err
    # a reason is said once, not with every question
    assert len([line for line in err.splitlines() if line.startswith("waiting")]) == 1


def test_it_ends_at_its_deadline_and_lets_the_kubelet_start(api: FakeApi, tmp_path: Path, capfd: Any) -> None:
    api.port = 1
    assert run(api, tmp_path, "--deadline=0.05") == 0
    assert "going on" in capfd.readouterr().err


def test_a_stranger_is_not_told_the_token(api: FakeApi, tmp_path: Path) -> None:
    """A server that another CA vouches for gets no request."""
    with serve(anonymous=True) as stranger:
        path = write_kubeconfig(api, tmp_path / "config")
        document = yaml.safe_load(path.read_text())
        cluster = document["clusters"][0]["cluster"]
        cluster["server"] = f"https://127.0.0.1:{stranger.port}"
        assert base64.b64decode(cluster["certificate-authority-data"]).decode() == api.ca
        path.write_text(yaml.safe_dump(document))
        assert program.main([f"--kubeconfig={path}", "--deadline=0.05"]) == 0
        assert stranger.requests == []


def test_a_damaged_kubeconfig_fails(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("{}")
    assert program.main([f"--kubeconfig={tmp_path / 'config'}"]) == 1
