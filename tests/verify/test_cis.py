"""The CIS benchmark: our plans pass, every check can fail, every waiver is needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imagegen.errors import ImagegenError
from imagegen.kubernetes.releases import newest_patch
from imagegen.plan.plan import Plan
from imagegen.resources import find_resource
from imagegen.verify.cis import CisCheck, Facts, FileFact, judge, list_cis_checks, load_benchmark
from imagegen.verify.cisfacts import (
    check_benchmark,
    emit_probe,
    judge_node,
    judge_plan,
    parse_probe,
    read_plan,
)
from tests.conftest import require_judge
from tests.kubernetes.clusters import WHOLE_MINORS
from tests.plan.plans import make_plan, try_plan, write_cluster

ALL_IN_ONE = ("{name: one, roles: [etcd, master, worker], address: 10.240.0.10}",)
CHECKS = {check.id: check for check in load_benchmark()}


def list_plans(folder: Path) -> Iterator[Plan]:
    for example in ("quickstart", "all-in-one", "ha"):
        yield make_plan(find_resource("examples", example, "cluster.yaml"))
    for minor in WHOLE_MINORS:
        for layout in ("systemd", "static-pods"):
            version = f"{newest_patch(minor)}, layout: {layout}"
            yield make_plan(write_cluster(folder, ALL_IN_ONE, version=version))


def test_every_plan_passes(tmp_path: Path) -> None:
    problems = [
        f"{plan.cluster.name} {plan.cluster.kubernetes.version} {node.node.name} {v.check.id}: {v.problem}"
        for plan in list_plans(tmp_path)
        for node in plan.node_plans()
        for v in judge_plan(node, list_cis_checks(node, plan.cluster.kubernetes.version))
        if not v.passed
    ]
    assert problems == []


def test_tokens_in_a_file_are_excused_where_the_cluster_file_asks_for_them(tmp_path: Path) -> None:
    path = write_cluster(tmp_path, ALL_IN_ONE, more="bootstrap: {method: token-file}\n")
    plan, report = try_plan(path)
    assert plan is not None, report.render_text()
    node = plan.node_plan("one")
    verdicts = judge_plan(node, list_cis_checks(node, plan.cluster.kubernetes.version))
    (tokens,) = [verdict for verdict in verdicts if verdict.check.id == "1.2.2"]
    assert tokens.problem
    assert "token-file" in tokens.waiver
    assert all(verdict.passed for verdict in verdicts)


def test_the_benchmark_is_complete() -> None:
    """kube-bench cis-1.12 counts 65 automated checks: 47 of the control plane, 6 of etcd, 12 of nodes."""
    automated = [check.id for check in load_benchmark() if check.automated]
    parts = [sum(number.startswith(part) for number in automated) for part in ("1.", "2.", "4.")]
    assert parts == [47, 6, 12]
    assert len(CHECKS) == len(load_benchmark())


@pytest.fixture(scope="module", name="facts")
def _facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    plan = make_plan(write_cluster(tmp_path_factory.mktemp("cis"), ALL_IN_ONE))
    return read_plan(plan.node_plan("one"))


@pytest.mark.parametrize("number", [c.id for c in load_benchmark() if c.waiver])
def test_every_waiver_is_needed(facts: Facts, number: str) -> None:
    verdict = judge(CHECKS[number], facts)
    assert verdict.problem
    assert verdict.passed
    assert verdict.waiver


def spoil(check: CisCheck) -> Facts:
    """Facts that the check must not let pass."""
    if check.files:
        path = check.files[0].replace("*", "x")
        return Facts(flags={}, configurations={}, files={path: FileFact(mode=0o777, owner="nobody:nogroup")})
    bad = {
        "": None,
        "is": "something else",
        "has": "something else",
        "lacks": check.wanted,
        "at_least": "0",
    }[check.rule]
    if check.unset == "wanted":
        bad = "something"
    flags = dict.fromkeys(check.flags, bad) if bad is not None else {}
    return Facts(flags={check.program: flags}, configurations={}, files={})


@pytest.mark.parametrize("number", CHECKS)
def test_every_check_can_fail(number: str) -> None:
    check = replace(CHECKS[number], waiver="")
    assert not judge(check, spoil(check)).passed


@pytest.mark.parametrize("number", [c.id for c in load_benchmark() if c.must_exist or c.program])
def test_what_is_not_there_does_not_pass(number: str) -> None:
    nothing = Facts(flags={}, configurations={}, files={})
    assert judge(CHECKS[number], nothing).problem


def test_a_flag_wins_over_the_file() -> None:
    document = {"authentication": {"anonymous": {"enabled": False}}}
    flags = {"kubelet": {"anonymous-auth": "true"}}
    facts = Facts(flags=flags, configurations={"kubelet": document}, files={})
    assert "got true" in judge(CHECKS["4.2.1"], facts).problem
    assert judge(CHECKS["4.2.1"], replace(facts, flags={"kubelet": {}})).passed


@pytest.mark.parametrize("text", ["", "program kubelet\n", "end\nprogram etcd"])
def test_half_an_answer_is_no_answer(text: str) -> None:
    with pytest.raises(ImagegenError, match="did not answer"):
        parse_probe(text)


@pytest.mark.process
def test_the_script_finds_flags_files_and_configuration(tmp_path: Path) -> None:
    """Of a program that is none: found by a ``pidof`` of the test's own."""
    config = tmp_path / "kubelet.yaml"
    config.write_text("authentication: {anonymous: {enabled: false}}\n")
    config.chmod(0o640)
    argv = [sys.executable, "-c", "input()", f"--config={config}", "--hostname-override=a b", "--alone"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as program:
        pidof = tmp_path / "pidof"
        pidof.write_text(f'#!/bin/sh\n[ "$2" = kubelet ] && echo {program.pid}\n')
        pidof.chmod(0o755)

        def run_script(script: str) -> str:
            moved = script.replace("/etc/kubernetes/kubelet.yaml", str(config))
            env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
            done = subprocess.run(["sh"], input=moved, capture_output=True, text=True, env=env, check=True)
            assert done.stderr == ""
            return done.stdout

        checks = [CHECKS["4.1.9"], CHECKS["4.2.1"], CHECKS["1.2.5"]]
        moved = [replace(checks[0], files=(str(config),)), *checks[1:]]
        verdicts = judge_node(moved, run_script)
        program.communicate(b"\n")
    assert [v.problem for v in verdicts] == [
        f"{config}: wanted mode 0600 or less, got 0640",
        "",
        "kube-apiserver does not run",
    ]


def test_waived_checks_are_told_as_skipped(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path, ALL_IN_ONE))
    outcomes = list(
        check_benchmark(plan.node_plan("one"), plan.cluster.kubernetes.version, lambda _: "end\n")
    )
    assert len(outcomes) == len(CHECKS)
    assert {o.skipped.partition(":")[0] for o in outcomes if o.skipped} == {"waived"}
    assert any(o.problem == "etcd does not run" for o in outcomes)


@pytest.mark.judge
def test_the_script_is_sound(tmp_path: Path) -> None:
    script = tmp_path / "probe.sh"
    script.write_text("#!/bin/sh\n" + emit_probe(load_benchmark()))
    done = require_judge("shellcheck").run(str(script))
    assert (done.returncode, done.stdout) == (0, "")


def test_the_page_shows_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cis.md").read_text()
    for check in load_benchmark():
        result = f"waived: {check.waiver}" if check.waiver else "passes"
        who = "automated" if check.automated else "people"
        assert f"| {check.id} | {check.role.value} | {check.title} | {who} | {result} |\n" in page
