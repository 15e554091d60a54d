"""A run that dies while it writes the store: the next one finishes the work and the proof holds."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from imagegen.diagnostics import Report
from imagegen.pki.expiry import renew_material
from imagegen.pki.issue import issue_material
from imagegen.pki.store import SecretStore
from imagegen.pki.verify import verify_edges
from tests.pki.clusters import quickstart
from tests.pki.workshop import NOW, issue_store

pytestmark = pytest.mark.process


def _die_at_rename(root: str, count: int, renew: bool) -> None:
    """Issue or renew, and end without any clean-up before the rename number ``count``."""
    done = 0
    rename = os.replace

    def count_down(source: str, target: str) -> None:
        nonlocal done
        if done == count:
            os._exit(9)
        done += 1
        rename(source, target)

    os.replace = count_down  # type: ignore[assignment]
    store = SecretStore(Path(root))
    if renew:
        renew_material(quickstart(), store, Report(), now=NOW, everything=True)
    else:
        issue_material(quickstart(), store, Report(), now=NOW)
    os._exit(0)


def run_and_die(root: Path, count: int, *, renew: bool) -> int | None:
    child = multiprocessing.get_context("fork").Process(target=_die_at_rename, args=(str(root), count, renew))
    child.start()
    child.join(60)
    return child.exitcode


def finish_and_prove(root: Path) -> None:
    store = SecretStore(root)
    report = Report()
    issue_material(quickstart(), store, report, now=NOW)
    verify_edges(quickstart(), store, NOW, report)
    assert report.render_text() == ""
    assert not (root / ".staging").exists()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 13, 21, 34])
def test_first_run_that_dies(count: int, tmp_path: Path) -> None:
    root = tmp_path / "secrets"
    assert run_and_die(root, count, renew=False) == 9
    authorities = {path.name: path.read_bytes() for path in (root / "pki").glob("*ca.key")}
    finish_and_prove(root)
    assert all((root / "pki" / name).read_bytes() == key for name, key in authorities.items())


@pytest.mark.parametrize("count", [0, 1, 2, 7, 20])
def test_renewal_that_dies(count: int, tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    authority = (root / "pki/ca.crt").read_bytes()
    assert run_and_die(root, count, renew=True) == 9
    finish_and_prove(root)
    assert (root / "pki/ca.crt").read_bytes() == authority


def test_counting_reaches_the_end(tmp_path: Path) -> None:
    """The numbers above are below the number of renames of a whole run."""
    assert run_and_die(tmp_path / "secrets", 10_000, renew=False) == 0
    assert len(SecretStore(tmp_path / "secrets").names()) > 35
