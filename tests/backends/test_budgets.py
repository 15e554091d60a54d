"""Payload limits of the platforms."""

from __future__ import annotations

import os

import pytest

from imagegen.backends.budgets import BUDGETS, OVER_BUDGET, BudgetCheck, measure_value
from imagegen.backends.cloudinit import CloudInit
from imagegen.diagnostics import Report
from imagegen.model.cluster import Target
from tests.backends.nodeplans import ORIGIN, FakeStore, make_cluster, make_file, make_node_plan

ALL = tuple(Target)


def check(targets: tuple[Target, ...], *sizes: int, names: tuple[str, ...] = ("worker-0",)) -> Report:
    cluster, report = make_cluster(targets=targets), Report()
    lowering, budgets = CloudInit(cluster, FakeStore()), BudgetCheck(targets, report)
    for name in names:
        own = [make_file(f"/file-{i}", os.urandom(size)) for i, size in enumerate(sizes)]
        plan = make_node_plan(cluster, name, own=own)
        budgets.check_seed(lowering.lower_node(plan), lambda plan=plan: lowering.list_entries(plan))  # type: ignore[misc]
    return report


def test_small_seeds_fit_everywhere() -> None:
    assert not check(ALL, 1000, 20000).findings


def test_an_iso_has_no_limit() -> None:
    assert not check((Target.QEMU, Target.VIRTUALBOX), 2_000_000).findings


@pytest.mark.parametrize("target", list(BUDGETS))
def test_too_much_is_an_error_that_names_the_largest_entries(target: Target) -> None:
    report = check((target,), 1000, 400_000, 2000, 300_000, 30)
    (finding,) = report.findings
    assert finding.code == OVER_BUDGET
    assert report.has_errors
    limit = f"{BUDGETS[target].value:,}"
    assert limit in finding.message
    places = [finding.message.index(f"/file-{i}") for i in (1, 3, 2)]
    assert places == sorted(places)
    assert "/file-0" not in finding.message
    assert str(ORIGIN) in finding.message
    assert target.value in (finding.hint or "")
    assert next(str(span) for span in finding.also) == "profiles/test.yaml:7:1"


def test_each_target_is_told_but_nodes_alike_only_once() -> None:
    report = check(ALL, 400_000, names=("worker-0", "worker-1", "master-0"))
    assert len(report.findings) == 4
    assert {finding.message.split()[2] for finding in report.findings} == {"worker-0", "master-0"}


def test_vmware_counts_after_compression() -> None:
    cluster, report = make_cluster(), Report()
    lowering = CloudInit(cluster, FakeStore())
    plan = make_node_plan(
        cluster, "worker-0", own=[make_file("/a", "a line of text\n" * 2000) for _ in range(9)]
    )
    seed = lowering.lower_node(plan)
    assert len(seed.user_data) > BUDGETS[Target.VMWARE].value
    assert measure_value(seed.user_data, packed=True) < BUDGETS[Target.VMWARE].value
    BudgetCheck((Target.VMWARE,), report).check_seed(seed, list)
    assert not report.findings
