"""Flags of the user's own: unknown, removed, deprecated, badly typed; each with its place and a hint."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from imagegen.diagnostics import Diagnostic, Report, Severity
from imagegen.kubernetes.check import check_companions, check_extra_args
from imagegen.model.version import parse_version
from tests.kubernetes.clusters import MINORS, make_cluster


def findings(folder: Path, minor: str, flags: str) -> list[Diagnostic]:
    cluster, gates = make_cluster(folder, minor, flags=flags)
    report = Report()
    check_extra_args(cluster, gates, report)
    return report.sorted()


@pytest.mark.parametrize(
    ("minor", "flags", "code", "message", "hint"),
    [
        (
            "1.36",
            "{kube-apiserver: {profilling: 'false'}}",
            "IMG401",
            r"kube-apiserver 1.36.\d+ has no flag --profilling",
            "did you mean --profiling?",
        ),
        (
            "1.36",
            "{kubelet: {logtostderr: 'true'}}",
            "IMG401",
            r"kubelet 1.36.\d+ has no flag --logtostderr",
            "removed in 1.26; use systemd journal / kube-log-runner",
        ),
        (
            "1.37",
            "{etcd: {experimental-initial-corrupt-check: 'true'}}",
            "IMG401",
            r"etcd 3.7.\d+ has no flag --experimental-initial-corrupt-check",
            "removed in 3.7; use --feature-gates=InitialCorruptCheck=true",
        ),
        (
            "1.13",
            "{etcd: {pre-vote: 'true'}}",
            "IMG401",
            r"etcd 3.2.\d+ has no flag --pre-vote",
            "there from 3.4 on",
        ),
        (
            "1.37",
            "{etcd: {discovery: 'https://example.net/token'}}",
            "IMG401",
            r"etcd 3.7.\d+ has no flag --discovery",
            "removed in 3.7; use --discovery-srv or the list of members",
        ),
        (
            "1.33",
            "{kube-apiserver: {tls-curve-preferences: X25519}}",
            "IMG401",
            r"kube-apiserver 1.33.\d+ has no flag --tls-curve-preferences",
            "there from 1.36 on",
        ),
        (
            "1.34",
            "{kubelet: {pod-infra-container-image: x}}",
            "IMG402",
            "--pod-infra-container-image of kubelet is deprecated since 1.24",
            "use the sandbox image of the container runtime",
        ),
        (
            "1.36",
            "{kubelet: {max-pods: '50'}}",
            "IMG402",
            "--max-pods of kubelet is deprecated since 1.10",
            None,
        ),
        (
            "1.36",
            "{kube-proxy: {conntrack-min: lots}}",
            "IMG403",
            "wanted a whole number for --conntrack-min of kube-proxy, got 'lots'",
            None,
        ),
        (
            "1.36",
            "{etcd: {grpc-keepalive-timeout: 20}}",
            "IMG403",
            "wanted a duration such as 5m or 500ms for --grpc-keepalive-timeout of etcd, got '20'",
            None,
        ),
    ],
)
def test_findings(tmp_path: Path, minor: str, flags: str, code: str, message: str, hint: str | None) -> None:

    (finding,) = findings(tmp_path, minor, flags)
    assert finding.code == code
    assert re.fullmatch(message, finding.message)
    assert finding.hint == hint
    assert finding.span is not None
    assert finding.span.line == 3
    # a note, where nothing is known to take the flag away
    deprecated = Severity.WARNING if hint else Severity.NOTE
    assert finding.severity is (deprecated if code == "IMG402" else Severity.ERROR)


def test_good_flags_are_no_finding(tmp_path: Path) -> None:
    flags = "{kube-apiserver: {profiling: 'true'}, etcd: {snapshot-count: 5000}, kubelet: {v: 5}}"
    assert findings(tmp_path, "1.36", flags) == []


def test_all_findings_come_at_once(tmp_path: Path) -> None:
    flags = "{kube-apiserver: {a: '1', b: '2'}, kubelet: {c: '3'}}"
    assert [f.path for f in findings(tmp_path, "1.36", flags)] == [
        "kubernetes.extra_args.kube-apiserver.a",
        "kubernetes.extra_args.kube-apiserver.b",
        "kubernetes.extra_args.kubelet.c",
    ]


@pytest.mark.parametrize("minor", MINORS)
def test_kubelet_and_containerd_of_the_catalogue_speak_one_cri(tmp_path: Path, minor: str) -> None:
    cluster, gates = make_cluster(tmp_path, minor)
    report = Report()
    check_companions(cluster, gates, report)
    assert not report.has_errors, report.render_text()


@pytest.mark.parametrize(("minor", "fits"), [("1.22", False), ("1.23", True)])
def test_containerd_2_is_refused_where_the_kubelet_is_too_old(tmp_path: Path, minor: str, fits: bool) -> None:
    cluster, gates = make_cluster(tmp_path, minor)
    report = Report()
    companions = {**gates.companions, "containerd": parse_version("2.1.9")}
    check_companions(cluster, replace(gates, companions=companions), report)
    assert [f.code for f in report.sorted()] == ([] if fits else ["IMG125"])
    assert fits or "containerd 1.7" in str(report.sorted()[0].hint)
