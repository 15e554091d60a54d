"""The gate table: readable, consistent, and right on facts that other tests do not touch."""

from __future__ import annotations

import itertools

import pytest

from imagegen.kubernetes.config_fields import config_fields
from imagegen.kubernetes.flags import find_flag, list_flags
from imagegen.kubernetes.gates import State, all_rows, find_rows, load_gates
from imagegen.kubernetes.releases import known_minors, newest_patch
from imagegen.model.version import Version

COMPONENTS = {
    "all",
    "calico",
    "cluster",
    "containerd",
    "coredns",
    "etcd",
    "flannel",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubelet",
    "metrics-server",
    "runtime",
}
DAEMONS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
OLDEST = int(known_minors()[0].split(".")[1])
#: how a row was found: nothing stands on somebody's memory
CONFIDENCES = {
    "PR",
    "PR, note not local",
    "documentation",
    "program",
    "release-note",
    "release-note text (names the item)",
    "source",
}
KINDS = {"admission", "api", "behaviour", "field", "flag", "gate", "label"}


def test_rows_use_the_known_words() -> None:
    rows = all_rows()
    assert {row.component for row in rows} == COMPONENTS
    assert {row.kind for row in rows} == KINDS
    assert all(row.item.startswith("--") for row in rows if row.kind == "flag")
    assert [row.item for row in rows if not row.evidence or not row.confidence] == []
    assert {row.confidence for row in rows} == CONFIDENCES


def test_the_life_of_an_item_runs_forward() -> None:
    for row in all_rows():
        life = [row.alpha, row.introduced, row.stable]
        known = [version for version in life if version is not None]
        assert known == sorted(known), row.item
        born = known[0] if known else None
        for end in (row.deprecated, row.removed):
            assert born is None or end is None or born <= end, row.item
        assert row.deprecated is None or row.removed is None or row.deprecated <= row.removed, row.item


@pytest.mark.parametrize(
    ("version", "component", "item", "state"),
    [
        ("1.30", "kube-apiserver", "AuthenticationConfiguration.anonymous.conditions", State.NOT_YET),
        ("1.31", "kube-apiserver", "AuthenticationConfiguration.anonymous.conditions", State.ALPHA),
        ("1.32", "kube-apiserver", "AuthenticationConfiguration.anonymous.conditions", State.AVAILABLE),
        ("1.36", "kubelet", "--logtostderr", State.REMOVED),
        ("1.34", "kubelet", "--pod-infra-container-image", State.DEPRECATED),
        ("1.35", "kubelet", "--pod-infra-container-image", State.REMOVED),
        ("1.33", "etcd", "--feature-gates", State.NOT_YET),
        ("1.34", "etcd", "--feature-gates", State.AVAILABLE),
        ("1.36", "etcd", "--experimental-initial-corrupt-check", State.DEPRECATED),
        ("1.37", "etcd", "--experimental-initial-corrupt-check", State.REMOVED),
        ("1.31", "containerd", "config version 3", State.NOT_YET),
        ("1.36", "containerd", "config version 4", State.AVAILABLE),
    ],
)
def test_states(version: str, component: str, item: str, state: State) -> None:
    assert load_gates(newest_patch(version)).state(component, item) is state


def test_changes_take_effect_in_their_version() -> None:
    item = "KubeletConfiguration.failCgroupV1"
    changed = [m for m in known_minors() if load_gates(newest_patch(m)).is_changed("kubelet", item)]
    assert changed[0] == "1.35"


def test_choose_takes_the_first_that_works() -> None:
    gates = load_gates(newest_patch("1.33"))
    api = "apiserver.config.k8s.io/{} AuthenticationConfiguration"
    assert gates.choose("kube-apiserver", api.format("v1"), api.format("v1beta1")) == api.format("v1beta1")
    with pytest.raises(KeyError, match=r"kube-apiserver 1\.33\.\d+ has none of"):
        gates.choose("kube-apiserver", api.format("v1"))


def test_a_misspelt_item_is_no_silent_no() -> None:
    gates = load_gates(newest_patch("1.36"))
    with pytest.raises(KeyError, match="no row for kubelet --tls-minimum"):
        gates.has("kubelet", "--tls-minimum")
    assert gates.find("kubelet", "--tls-minimum") is None


def test_find_rows_names_every_component() -> None:
    assert {row.component for row in find_rows("--address")} == {
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    }


@pytest.mark.parametrize("minor", known_minors())
def test_flags_agree_with_the_programs(minor: str) -> None:
    """Release notes are incomplete; what the programs print decides."""
    version = newest_patch(minor)
    wrong = []
    for row in all_rows():
        if row.kind != "flag" or row.component not in DAEMONS:
            continue
        there = row.item.removeprefix("--") in list_flags(row.component, version)
        gone = row.state_in(version) in (State.REMOVED, State.NOT_YET)
        if there == gone:
            wrong.append((row.component, row.item, row.state_in(version).value))
    assert wrong == []


def test_the_two_tables_of_flags_agree() -> None:
    """When a flag came, was deprecated and went is the same in gates.csv and flags.csv.

    A deprecation that was withdrawn is in the list of flags only, for a row knows one life.
    """
    wrong = []
    for row in all_rows():
        for component in DAEMONS if row.component == "all" else {row.component} & set(DAEMONS):
            flag = find_flag(component, row.item.removeprefix("--")) if row.kind == "flag" else None
            if flag is None:
                continue
            gone = None if row.removed is None else Version(1, row.removed.minor - 1, 0)
            deprecated = flag.deprecated if flag.withdrawn is None else None
            facts = (flag.first, deprecated, flag.last)
            born = row.alpha or (row.introduced if row.introduced and row.introduced.minor > OLDEST else None)
            if (born, row.deprecated, gone) != facts:
                wrong.append((component, row.item, born, row.deprecated, gone, facts))
    assert wrong == []


def test_rows_about_etcd_agree_with_the_list_of_its_flags() -> None:
    """In etcd's own versions; what goes has a row that says so, what comes need not have one."""
    rows = {
        row.item.removeprefix("--"): row
        for row in all_rows()
        if row.component == "etcd" and row.kind == "flag"
    }
    for name, row in rows.items():
        flag = find_flag("etcd", name)
        assert flag is not None, name
        assert flag.first == row.introduced, name
        assert (flag.last and flag.last._replace(minor=flag.last.minor + 1)) == row.removed, name
    ending = {name for name, field in config_fields("etcd").items() if field.last is not None}
    assert ending <= set(rows)


def test_every_row_about_a_flag_is_about_a_flag_of_that_program() -> None:
    """Except for those that were gone before the oldest minor."""
    for row in all_rows():
        if row.kind == "flag" and row.component in (*DAEMONS, "etcd"):
            gone = row.removed is not None and row.removed.minor <= OLDEST and row.component != "etcd"
            assert gone or find_flag(row.component, row.item.removeprefix("--")), (row.component, row.item)


@pytest.mark.parametrize("component", ["etcd", "kube-proxy"])
def test_every_field_of_a_flag_is_of_a_flag(component: str) -> None:
    assert all(find_flag(component, name) for name in config_fields(component))


@pytest.mark.parametrize(("old", "new"), list(itertools.pairwise(known_minors())))
def test_every_flag_that_comes_or_goes_has_a_row(old: str, new: str) -> None:
    for component in DAEMONS:
        before = set(list_flags(component, newest_patch(old)))
        after = set(list_flags(component, newest_patch(new)))
        rows = {row.item.removeprefix("--") for row in all_rows() if row.component in (component, "all")}
        assert before ^ after <= rows, component
