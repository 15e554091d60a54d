"""Two opinions on one thing: the same is fine, different ones are findings that name both origins."""

from __future__ import annotations

import pytest

from imagegen.diagnostics import Report, Span
from imagegen.errors import ImagegenError
from imagegen.plan.items import (
    Directory,
    File,
    Fragment,
    Item,
    Origin,
    Package,
    Phase,
    Ref,
    Sysctl,
    Unit,
    UnitState,
)
from imagegen.plan.merge import Opinion, Replacements, merge_node_items, merge_opinions

HERE, THERE = Origin("component one"), Origin("profiles/base.yaml", 14)
MINE = Span("mine/base.yaml", 3, 5)


def sysctl(value: str, origin: Origin = HERE) -> Sysctl:
    return Sysctl(phase=Phase.BAKE, origin=origin, key="vm.swappiness", value=value)


def merge(*opinions: Opinion) -> tuple[tuple[Item, ...], Report]:
    report, replacements = Report(), Replacements()
    items = merge_opinions(opinions, report, replacements)
    replacements.report_idle(report)
    return items, report


def test_the_same_opinion_twice_keeps_the_first_origin() -> None:
    items, report = merge(Opinion(sysctl("0")), Opinion(sysctl("0", THERE)))
    assert not report.findings
    assert [item.origin for item in items] == [HERE]


def test_items_come_sorted_by_kind_and_key() -> None:
    names = ["zsh", "bash", "curl"]
    packages = [Opinion(Package(phase=Phase.BAKE, origin=HERE, name=name)) for name in names]
    items, _ = merge(Opinion(sysctl("0")), *packages)
    assert [item.identity for item in items] == [
        ("package", "bash"),
        ("package", "curl"),
        ("package", "zsh"),
        ("sysctl", "vm.swappiness"),
    ]


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (sysctl("0"), sysctl("1", THERE), "value 0 against 1"),
        (
            File(phase=Phase.BAKE, origin=HERE, path="/etc/a", content=("x",)),
            File(phase=Phase.BAKE, origin=THERE, path="/etc/a", content=("y",), mode="0600"),
            "content differs, mode 0644 against 0600",
        ),
        (
            File(phase=Phase.BAKE, origin=HERE, path="/etc/a", content=("x",)),
            Directory(phase=Phase.BAKE, origin=THERE, path="/etc/a"),
            "file against directory",
        ),
        (
            Unit(phase=Phase.BAKE, origin=HERE, name="a.service", content=None),
            Unit(phase=Phase.BAKE, origin=THERE, name="a.service", content=None, state=UnitState.MASKED),
            "state enabled against masked",
        ),
        (sysctl("0"), Sysctl(phase=Phase.BOOT, origin=THERE, key="vm.swappiness", value="0"), "phase"),
    ],
)
def test_a_disagreement_names_both_origins(one: Item, other: Item, says: str) -> None:
    items, report = merge(Opinion(one), Opinion(other))
    (finding,) = report.findings
    assert finding.code == "IMG201"
    assert "component one and profiles/base.yaml:14 disagree" in finding.message
    assert says in finding.message
    assert items == (one,)


def test_a_disagreement_is_located_in_the_users_text_whichever_came_first() -> None:
    for pair in (
        [Opinion(sysctl("0")), Opinion(sysctl("1", THERE), MINE)],
        [Opinion(sysctl("1", THERE), MINE), Opinion(sysctl("0"))],
    ):
        _, report = merge(*pair)
        (finding,) = report.findings
        assert finding.span == MINE
        assert "replace: true" in (finding.hint or "")


def test_two_user_files_are_both_named() -> None:
    other = Span("theirs/base.yaml", 9, 1)
    _, report = merge(Opinion(sysctl("0"), MINE), Opinion(sysctl("1", THERE), other))
    (finding,) = report.findings
    assert {finding.span, *finding.also} == {MINE, other}


def test_three_opinions_give_a_finding_for_each_that_differs() -> None:
    _, report = merge(Opinion(sysctl("0")), Opinion(sysctl("1", THERE)), Opinion(sysctl("2", THERE)))
    assert [f.code for f in report.findings] == ["IMG201", "IMG201"]


def test_replace_wins_over_what_is_shipped() -> None:
    items, report = merge(Opinion(sysctl("0")), Opinion(sysctl("1", THERE), MINE, replace=True))
    assert items == (sysctl("1"),)
    assert not report.findings


def test_replace_does_not_win_over_another_file_of_the_user() -> None:
    _, report = merge(
        Opinion(sysctl("0")),
        Opinion(sysctl("1"), MINE, replace=True),
        Opinion(sysctl("2"), Span("other/base.yaml", 1, 1)),
    )
    assert [f.code for f in report.findings] == ["IMG201"]


def test_replace_of_nothing_is_a_warning_unless_it_replaced_something_on_other_roles() -> None:
    mine = Opinion(sysctl("1"), MINE, replace=True)
    _, report = merge(mine)
    assert [(f.code, f.severity.value) for f in report.findings] == [("IMG202", "warning")]

    report, replacements = Report(), Replacements()
    merge_opinions([mine], report, replacements)
    merge_opinions([Opinion(sysctl("0")), mine], report, replacements)
    replacements.report_idle(report)
    assert not report.findings


def test_material_cannot_be_replaced() -> None:
    ours = File(phase=Phase.BOOT, origin=HERE, path="/etc/k", content=(Ref("pki/ca.key"),))
    mine = File(phase=Phase.BAKE, origin=THERE, path="/etc/k", content=("fake",))
    _, report = merge(Opinion(ours), Opinion(mine, MINE, replace=True))
    assert [f.code for f in report.findings] == ["IMG203"]


def test_items_of_a_node_may_repeat_shared_ones_but_not_contradict_them() -> None:
    shared = {("sysctl", "vm.swappiness"): sysctl("0")}
    assert merge_node_items(shared, [Fragment((sysctl("0"),))], "node a") == ()
    with pytest.raises(ImagegenError, match=r"node a: sysctl vm\.swappiness: .* value 1 against 0"):
        merge_node_items(shared, [Fragment((sysctl("1"),))], "node a")
    with pytest.raises(ImagegenError, match="node b"):
        merge_node_items({}, [Fragment((sysctl("1"),)), Fragment((sysctl("2"),))], "node b")
