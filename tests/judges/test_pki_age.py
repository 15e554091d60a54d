"""Debian's age opens what the secret store seals, and the store opens what age seals."""

from __future__ import annotations

from pathlib import Path

import pyrage
import pytest

from imagegen.diagnostics import Report
from imagegen.pki.issue import issue_material
from imagegen.pki.store import open_store
from tests.judges.tools import Tool
from tests.pki.clusters import quickstart
from tests.pki.workshop import NOW

pytestmark = pytest.mark.judge


def test_age_and_the_store_read_each_other(tmp_path: Path, age: Tool) -> None:
    key = pyrage.x25519.Identity.generate()
    identity = tmp_path / "identity.txt"
    identity.write_text(f"{key}\n")
    root = tmp_path / "secrets"
    root.mkdir()
    (root / ".age-recipients").write_text(f"{key.to_public()}\n")

    environ = {"IMAGEGEN_AGE_IDENTITY": str(identity)}
    store = open_store(str(tmp_path / "cluster.yaml"), None, environ)
    issue_material(quickstart(), store, Report(), now=NOW)
    for name in ("pki/ca.key", "nodes/worker-0/bootstrap-token", "encryption/secretbox-key"):
        done = age.run("--decrypt", "--identity", identity, root / f"{name}.age")
        assert done.returncode == 0, done.stderr
        assert done.stdout.encode() == store.read(name)

    sealed = root / "nodes/worker-0/bootstrap-token.age"
    sealed.unlink()
    recipients = ("--recipients-file", root / ".age-recipients")
    done = age.run("--encrypt", *recipients, "--output", sealed, stdin="abcdef.0123456789abcdef")
    assert done.returncode == 0, done.stderr
    again = open_store(str(tmp_path / "cluster.yaml"), None, environ)
    assert again.read("nodes/worker-0/bootstrap-token") == b"abcdef.0123456789abcdef"
    assert issue_material(quickstart(), again, Report(), now=NOW).changes == ()
