"""``pki``: shows what is there, proves that it works, renews what is asked for and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Imagegen


@pytest.fixture
def rendered(imagegen: Imagegen, quickstart: Path, tmp_path: Path) -> Path:
    assert imagegen("render", quickstart, "-o", tmp_path / "out").code == 0
    return quickstart


def test_show(imagegen: Imagegen, rendered: Path) -> None:
    text = imagegen("pki", "show", rendered).out
    assert "pki/ca " in text
    assert "nodes/master-0/apiserver" in text
    rows = json.loads(imagegen("pki", "show", rendered, "--format", "json").out)
    by_name = {row["name"]: row for row in rows}
    assert all(row["state"] == "ok" and row["sha256"] for row in rows)
    assert "10.32.0.1" in by_name["nodes/master-0/apiserver"]["names"]
    assert by_name["pki/admin"]["subject"] == "CN=kubernetes-admin, O=kubeadm:cluster-admins"
    assert not any(row["name"].startswith("nodes/worker") for row in rows)


def test_show_one_node(imagegen: Imagegen, rendered: Path) -> None:
    rows = json.loads(imagegen("pki", "show", rendered, "--node", "etcd-0", "--format", "json").out)
    assert rows
    assert all(row["name"].startswith("nodes/etcd-0/") for row in rows)
    assert "did you mean etcd-0" in imagegen("pki", "show", rendered, "--node", "etcd0").err


def test_show_what_is_due(imagegen: Imagegen, rendered: Path) -> None:
    assert imagegen("pki", "show", rendered, "--due").code == 0
    (rendered.parent / "secrets" / "pki" / "admin.crt").unlink()
    done = imagegen("pki", "show", rendered, "--due")
    assert done.code == 1
    assert done.out.startswith("missing    pki/admin")


def test_verify(imagegen: Imagegen, rendered: Path) -> None:
    done = imagegen("pki", "verify", rendered)
    assert (done.code, done.out) == (0, "")
    assert "all of them hold" in done.err
    store = rendered.parent / "secrets" / "nodes" / "master-0"
    server, client = store / "apiserver", store / "apiserver-etcd-client"
    server.with_suffix(".crt").write_bytes(client.with_suffix(".crt").read_bytes())
    server.with_suffix(".key").write_bytes(client.with_suffix(".key").read_bytes())
    done = imagegen("pki", "verify", rendered)
    assert done.code == 1
    assert "apiserver" in done.out
    data = json.loads(imagegen("pki", "verify", rendered, "--format", "json").out)
    assert data["broken"] >= 1
    assert data["findings"]


def test_no_store_yet(imagegen: Imagegen, quickstart: Path) -> None:
    for verb in ("show", "verify", "renew"):
        done = imagegen("pki", verb, quickstart)
        assert done.code == 2
        assert "there is no secret store" in done.err
        assert not (quickstart.parent / "secrets").exists()


def test_renew_only_what_is_asked_for(imagegen: Imagegen, rendered: Path) -> None:
    def serials() -> dict[str, str]:
        rows = json.loads(imagegen("pki", "show", rendered, "--format", "json").out)
        return {row["name"]: row["serial"] for row in rows}

    before = serials()
    done = imagegen("pki", "renew", rendered)
    assert (done.code, done.out) == (0, "")
    assert serials() == before
    assert imagegen("pki", "renew", rendered, "--node", "etcd-0", "--all").code == 0
    after = serials()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith("nodes/etcd-0/")}
    assert imagegen("pki", "verify", rendered).code == 0
