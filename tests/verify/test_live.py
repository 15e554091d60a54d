"""A flawless node passes every check; each fault is told by the check that is about it, and by no other."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from imagegen.errors import ImagegenError
from imagegen.verify.live import Expectations, check_node, emit_probe, parse_answer
from tests.verify.livenode import make_answer, plan_node, resolve

Answer = dict[str, Any]

EXPECT = Expectations(resolve=resolve)


@pytest.fixture(scope="module")
def flawless() -> dict[str, Answer]:
    return {name: make_answer(plan_node(name)) for name in ("etcd-0", "master-0", "worker-0", "worker-1")}


@pytest.mark.parametrize("name", ["etcd-0", "master-0", "worker-0", "worker-1"])
def test_a_flawless_node_passes(flawless: dict[str, Answer], name: str) -> None:
    outcomes = list(check_node(plan_node(name), flawless[name], EXPECT))
    assert [one for one in outcomes if not one.passed] == []
    assert len(outcomes) > 90
    assert len({one.name for one in outcomes}) == len(outcomes)


def _set(*path: str, to: Any) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        place = answer
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = to

    return change


def _listen(*socket: Any) -> Callable[[Answer], None]:
    return lambda answer: answer["listening"].append(list(socket))


def _hang_up(port: int) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer["listening"] = [one for one in answer["listening"] if one[2] != port]

    return change


FAULTS: tuple[tuple[str, str, Callable[[Answer], None], str, str], ...] = (
    (
        "a service that does not run",
        "worker-0",
        _set("units", "kubelet.service", "ActiveState", to="failed"),
        "unit kubelet.service",
        "not active: failed",
    ),
    (
        "a service that a path unit starts, and that does not run",
        "worker-0",
        _set("units", "kube-proxy.service", "ActiveState", to="inactive"),
        "unit kube-proxy.service",
        "not active",
    ),
    (
        "a service that is not enabled",
        "etcd-0",
        _set("units", "etcd.service", "UnitFileState", to="disabled"),
        "unit etcd.service",
        "not enabled: disabled",
    ),
    (
        "a unit that is not masked any more",
        "worker-0",
        _set("units", "swap.target", to={"LoadState": "loaded", "ActiveState": "active"}),
        "unit swap.target",
        "not masked",
    ),
    (
        "another failed unit",
        "worker-0",
        _set("failed", to=["foreign.service"]),
        "no failed unit",
        "foreign.service",
    ),
    (
        "a kernel setting",
        "worker-0",
        _set("sysctls", "net.ipv4.ip_forward", to="0"),
        "sysctl net.ipv4.ip_forward",
        "wanted 1, got 0",
    ),
    (
        "a kernel setting that is unknown",
        "worker-0",
        _set("sysctls", "kernel.panic", to=None),
        "sysctl kernel.panic",
        "does not know",
    ),
    (
        "a kernel module",
        "worker-0",
        _set("modules", "br_netfilter", to=False),
        "module br_netfilter",
        "not loaded",
    ),
    ("a package", "worker-0", _set("packages", to=[]), "package chrony", "not installed"),
    (
        "a port that nobody listens at",
        "master-0",
        _hang_up(6443),
        "port 6443/tcp",
        "nobody listens (Kubernetes API)",
    ),
    (
        "a port that the table does not have",
        "master-0",
        _listen("tcp", "0.0.0.0", 8080),
        "no port open but those of the port table",
        "8080/tcp at 0.0.0.0",
    ),
    (
        "a port of IPv6 that the table does not have",
        "etcd-0",
        _listen("tcp", "0000:0000:0000:0000:0000:0000:0000:0000", 10250),
        "no port open but those of the port table",
        "10250/tcp",
    ),
    ("no packet filter", "worker-0", _set("filter", to=""), "packet filter", "not loaded"),
    (
        "a packet filter that lets everything in",
        "worker-0",
        _set("filter", to="table inet imagegen { chain input { policy accept; } }"),
        "packet filter",
        "not loaded",
    ),
    (
        "the mode of a secret of the seed",
        "master-0",
        _set("paths", "/etc/kubernetes/pki/ca.key", "mode", to=0o644),
        "file /etc/kubernetes/pki/ca.key",
        "wanted mode 0600, got 0644",
    ),
    (
        "the owner of a secret of the seed",
        "master-0",
        _set("paths", "/etc/kubernetes/pki/ca.key", "owner", to="root"),
        "file /etc/kubernetes/pki/ca.key",
        "got root:kube-controller-manager",
    ),
    (
        "the content of a file of the seed",
        "worker-0",
        _set("paths", "/etc/imagegen/node.env", "sha256", to="f" * 64),
        "file /etc/imagegen/node.env",
        "wanted content with sum",
    ),
    (
        "the content of a file of the image",
        "worker-0",
        _set("paths", "/etc/kubernetes/kubelet.yaml", "sha256", to="f" * 64),
        "file /etc/kubernetes/kubelet.yaml",
        "wanted content with sum",
    ),
    (
        "a missing file of the seed",
        "worker-0",
        _set("paths", "/etc/kubernetes/bootstrap.kubeconfig", to=None),
        "file /etc/kubernetes/bootstrap.kubeconfig",
        "there is nothing",
    ),
    (
        "a link elsewhere",
        "worker-0",
        _set("paths", "/etc/resolv.conf", "target", to="/tmp/resolv.conf"),
        "link /etc/resolv.conf",
        "leads to /tmp/resolv.conf",
    ),
    (
        "an account with a password",
        "etcd-0",
        _set("passwords", to=["ops"]),
        "no account with a password",
        "ops",
    ),
    (
        "a user with another home",
        "etcd-0",
        lambda answer: next(row for row in answer["users"] if row[0] == "etcd").__setitem__(5, "/root"),
        "user etcd",
        "got /root",
    ),
    (
        "first boot under way",
        "worker-0",
        _set("cloud_init", to={"finished": False, "errors": []}),
        "cloud-init has finished without errors",
        "has not finished",
    ),
    (
        "first boot with errors",
        "worker-0",
        _set("cloud_init", "errors", to=["locale failed"]),
        "cloud-init has finished without errors",
        "locale failed",
    ),
    (
        "a clock of its own",
        "worker-0",
        _set("clock", to=",".join(["0"] * 13 + ["Not synchronised"])),
        "clock is synchronised",
        "Not synchronised",
    ),
    ("no clock service", "worker-0", _set("clock", to=""), "clock is synchronised", "does not answer"),
    ("swap", "worker-0", _set("swap", to=["/dev/vdb partition"]), "no swap", "/dev/vdb"),
    ("no machine id", "worker-0", _set("machine_id", to=""), "an own machine id", "got 0"),
)


@pytest.mark.parametrize(
    ("node", "change", "name", "words"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_a_fault_is_told_by_its_check(
    flawless: dict[str, Answer], node: str, change: Callable[[Answer], None], name: str, words: str
) -> None:
    answer = copy.deepcopy(flawless[node])
    change(answer)
    failed = {one.name: one.problem for one in check_node(plan_node(node), answer, EXPECT) if one.problem}
    assert words in failed.pop(name)
    assert all(other.split()[0] == name.split()[0] == "package" for other in failed), failed


def test_an_executable_that_was_replaced(flawless: dict[str, Answer]) -> None:
    expect = Expectations(resolve=resolve, digests={"/usr/local/bin/kubelet": "1" * 64})
    outcomes = check_node(plan_node("worker-0"), flawless["worker-0"], expect)
    assert [one.name for one in outcomes if one.problem] == ["executable /usr/local/bin/kubelet"]


def test_a_container_image_that_was_not_imported(flawless: dict[str, Answer]) -> None:
    answer = {**flawless["worker-0"], "images": []}
    failed = [one.name for one in check_node(plan_node("worker-0"), answer, EXPECT) if one.problem]
    assert failed
    assert all(name.startswith("container image ") for name in failed)


def test_without_secrets_the_rest_is_checked(flawless: dict[str, Answer]) -> None:
    answer = copy.deepcopy(flawless["master-0"])
    answer["paths"]["/etc/kubernetes/pki/ca.key"]["mode"] = 0o666
    expect = Expectations(resolve=lambda content: None)
    outcomes = {one.name: one for one in check_node(plan_node("master-0"), answer, expect)}
    assert outcomes["file /etc/kubernetes/pki/ca.key"].problem
    assert "secret store" in outcomes["file /etc/kubernetes/pki/sa.key"].skipped


def test_what_an_engine_changes_is_skipped_with_its_reason(flawless: dict[str, Answer]) -> None:
    answer = copy.deepcopy(flawless["worker-0"])
    answer["paths"]["/etc/kubernetes/kubelet.yaml"]["sha256"] = "f" * 64
    answer["sysctls"]["kernel.panic"], answer["stand_ins"] = "0", ["kernel.panic"]
    answer["modules"]["vxlan"] = False
    expect = Expectations(
        resolve=resolve, excused={"/etc/kubernetes/kubelet.yaml": "a reason"}, shares_kernel=True
    )
    outcomes = {one.name: one for one in check_node(plan_node("worker-0"), answer, expect)}
    assert not [one for one in outcomes.values() if one.problem]
    assert "a reason" in outcomes["file /etc/kubernetes/kubelet.yaml"].skipped
    assert outcomes["sysctl kernel.panic"].skipped
    assert outcomes["module vxlan"].skipped


def test_no_problem_shows_a_secret(flawless: dict[str, Answer]) -> None:
    answer = copy.deepcopy(flawless["master-0"])
    for path in answer["paths"].values():
        path["sha256"] = "f" * 64
    told = "".join(one.problem for one in check_node(plan_node("master-0"), answer, EXPECT))
    assert "PRIVATE KEY" not in told


@pytest.mark.process
def test_the_probe_runs_on_a_bare_python(tmp_path: Any) -> None:
    program = emit_probe(plan_node("worker-0"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"], input=program, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answer = parse_answer(done.stdout)
    assert answer["paths"].keys() >= {"/etc/kubernetes/kubelet.yaml", "/etc/imagegen/node.env"}
    assert answer["sysctls"]["net.ipv4.ip_forward"] in ("0", "1")
    assert answer["kernel"] == os.uname().release
    assert any(row[0] == "root" for row in answer["users"])


@pytest.mark.parametrize("text", ["", "sudo: a password is required", "[]", json.dumps({"units": {}})])
def test_no_answer_is_an_error(text: str) -> None:
    with pytest.raises(ImagegenError):
        parse_answer(text)
