"""The examples that ship: their PKI is issued and proven without a finding."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagegen.diagnostics import Report, Severity
from imagegen.model.cluster import Layout
from imagegen.model.load import load_cluster
from imagegen.pki.issue import issue_material
from imagegen.pki.store import SecretStore
from imagegen.pki.verify import verify_edges
from tests.pki.workshop import NOW

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/cluster.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.parent.name)
def test_no_false_alarm(file: Path, tmp_path: Path) -> None:
    cluster = load_cluster(file, Report())
    assert cluster is not None
    report = Report()
    store = SecretStore(tmp_path / "secrets")
    issue_material(cluster, store, report, now=NOW)
    proof = verify_edges(cluster, store, NOW, report)
    assert [each for each in report.findings if each.severity is not Severity.NOTE] == []
    assert proof.broken == 0
    # kubeadm issues the identities of the daemons itself
    assert proof.edges >= (13 if cluster.kubernetes.layout is Layout.KUBEADM else 17)


def test_the_three_examples_are_there() -> None:
    assert {"quickstart", "all-in-one", "ha"} <= {path.parent.name for path in EXAMPLES}
