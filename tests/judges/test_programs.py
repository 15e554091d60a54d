"""The flags of real programs of many minors, as recorded, against what we render and what the tables say.

``kubejudge/programs.csv`` is what 1.20.2 out of Debian's source package and newer ones out of their Go
modules printed; ``kubejudge/record.py`` refreshes it, out of the dumps of ``kubejudge/build.sh``. No binary
is needed here: those that a mirror has are asked again in ``test_flags.py``.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from imagegen.kubernetes.flags import find_flag, list_flags
from imagegen.kubernetes.gates import GateRow, State, all_rows
from imagegen.kubernetes.releases import known_minors
from imagegen.model.cluster import Layout, Role
from imagegen.model.version import Version, parse_version
from tests.judges.rendered import render_all
from tests.judges.test_flags import CLOSING, UNREAD
from tests.kubernetes.clusters import make_cluster

RECORD = Path(__file__).parent / "kubejudge" / "programs.csv"
#: read from ``--help``, which does not show everything
FROM_HELP = {"1.20.2"}
#: in a later patch only, or hidden by other means than a deprecation
NOT_IN_HELP = {
    ("kube-apiserver", "lease-reuse-duration-seconds"),
    ("kube-controller-manager", "concurrent-rc-syncs"),
    ("kubelet", "experimental-dockershim-root-directory"),
}
#: what the judge does not link: a logger, an admission plug-in's own flags, and what main() adds by itself
NOT_LINKED = {
    *("default-not-ready-toleration-seconds", "default-unreachable-toleration-seconds", "help", "version"),
    *("log-json-info-buffer-size", "log-json-split-stream"),
}
#: the usage text calls them deprecated, and pflag is not told
SAID_ONLY = {("kube-scheduler", name) for name in ("address", "hard-pod-affinity-symmetric-weight", "port")}


@functools.cache
def read_record() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Version → component → flag → ``yes`` or ``deprecated``."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    with RECORD.open(newline="") as stream:
        for row in csv.DictReader(stream):
            component, flag = row.pop("component"), row.pop("flag")
            for version, cell in row.items():
                if cell:
                    found.setdefault(version, {}).setdefault(component, {})[flag] = cell
    return found


VERSIONS = tuple(read_record())
PAIRS = [(version, component) for version in VERSIONS for component in read_record()[version]]


def list_program_flags(version: str, component: str) -> Mapping[str, str]:
    return read_record()[version][component]


def test_the_record_spans_the_minors() -> None:
    minors = {parse_version(version).minor_text for version in VERSIONS}
    assert minors >= {"1.20", "1.30", "1.31", "1.34", "1.36", known_minors()[-1]}
    assert all(len(read_record()[version]) == 5 for version in VERSIONS)


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("version", VERSIONS)
def test_programs_know_every_rendered_flag(tmp_path: Path, version: str, layout: Layout) -> None:
    cluster, gates = make_cluster(tmp_path, parse_version(version).minor_text, layout=layout)
    for roles in ((Role.WORKER,), (Role.MASTER,)):
        for component, arguments in render_all(cluster, gates, roles).arguments.items():
            known = list_program_flags(version, component)
            assert set(arguments) <= set(known), component
            assert {name for name in arguments if known[name] == "deprecated"} <= CLOSING, component


@pytest.mark.parametrize(("version", "component"), PAIRS)
def test_the_table_of_flags_is_what_the_program_prints(version: str, component: str) -> None:
    """Nothing too much and nothing missing, and deprecated where the program says so."""
    program, known = list_program_flags(version, component), parse_version(version)
    table = {
        name: "deprecated" if flag.is_deprecated(known) else "yes"
        for name, flag in list_flags(component, known).items()
    }
    missing = {(component, name) for name in set(table) - set(program)}
    if version in FROM_HELP:
        missing -= {(component, name) for name, cell in table.items() if cell == "deprecated"} | NOT_IN_HELP
    else:
        missing -= {(component, name) for name in NOT_LINKED}
    assert missing == set()
    unread = UNREAD.get(component, set())
    if version in FROM_HELP:
        unread = unread | {name for owner, name in SAID_ONLY if owner == component}
    judged = {name: cell for name, cell in program.items() if name not in unread}
    assert {name: (cell, table.get(name)) for name, cell in judged.items() if table.get(name) != cell} == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_of_gates_agrees_with_the_programs(version: str) -> None:
    """Nothing marked removed or not yet there exists; nothing marked as there is missing."""
    known, wrong = parse_version(version), []
    for row, component in _list_flag_rows(version):
        name = row.item.removeprefix("--")
        cell = list_program_flags(version, component).get(name)
        flag = find_flag(component, name)
        is_hidden = name in NOT_LINKED or (component, name) in NOT_IN_HELP
        if version in FROM_HELP:
            is_hidden |= flag is not None and flag.is_in(known) and flag.is_deprecated(known)
            if (component, name) in SAID_ONLY:
                continue
        if not (cell is None and is_hidden) and not _agrees(row.state_in(known), cell):
            wrong.append((component, row.item, row.state_in(known).value, cell))
    assert wrong == []


def _list_flag_rows(version: str) -> Iterator[tuple[GateRow, str]]:
    """The rows about flags, each with a component that has ever had the flag."""
    for row in all_rows():
        for component in read_record()[version]:
            if row.kind == "flag" and row.component in (component, "all"):
                flag = find_flag(component, row.item.removeprefix("--"))
                if flag is not None or row.component == component:
                    yield row, component


def _agrees(state: State, cell: str | None) -> bool:
    """A deprecation that came and went again is in the list of flags only."""
    if cell is None or state in (State.REMOVED, State.NOT_YET):
        return cell is None and state in (State.REMOVED, State.NOT_YET)
    return state is not State.DEPRECATED or cell == "deprecated"


def test_the_judge_sees_what_is_wrong() -> None:
    """The table of one minor is not that of another: 1.24 took dockershim's flags away."""
    docker = set(list_flags("kubelet", Version(1, 23, 17))) - set(list_flags("kubelet", Version(1, 24, 0)))
    assert "network-plugin" in docker
    assert not docker & set(list_program_flags(VERSIONS[-1], "kubelet"))
    assert not _agrees(State.REMOVED, "yes")
    assert not _agrees(State.AVAILABLE, None)
    assert not _agrees(State.DEPRECATED, "yes")
