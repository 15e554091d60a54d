"""What counts as a fault in the journal of a daemon, and what is excused."""

from __future__ import annotations

import pytest

from imagegen.model.version import Version
from imagegen.verify.journal import find_faults

NEW, OLD = Version(1, 36, 4), Version(1, 20, 2)


@pytest.mark.parametrize(
    "line",
    [
        'E0101 runtime.go:78] Observed a panic: "invalid memory address"',
        "panic: runtime error: index out of range",
        'W1121 server.go:437] strict decoding error: unknown field "logging"',
        "Error: unknown flag: --network-plugin",
        "Flag --port has been deprecated, see --secure-port instead.",
        "unrecognized feature gate: Sidecar",
        "I1121 deprecated_insecure_serving.go:53] Serving insecurely on [::]:10252",
        "W1121 server.go:437] using lenient decoding as strict decoding failed",
    ],
)
def test_faults_are_found(line: str) -> None:
    (fault,) = find_faults("kube-apiserver", NEW, f"all is well\n{line}\n")
    assert fault.line == line


def test_what_is_excused_is_excused_for_its_unit_and_versions_only() -> None:
    line = "Flag --port has been deprecated, see --secure-port instead."
    assert find_faults("kube-controller-manager", OLD, line) == []
    assert find_faults("kube-apiserver", OLD, line) != []
    assert find_faults("kube-controller-manager", NEW, line) != []


def test_a_fault_is_told_once() -> None:
    lines = "\n".join(f"E{number} Observed a panic: {number}" for number in range(5))
    assert len(find_faults("kubelet", NEW, lines)) == 1


def test_sound_lines_are_no_faults() -> None:
    assert find_faults("kubelet", NEW, 'I0101 kubelet.go:1] "Starting" field="unknown"\n') == []
    assert find_faults("kubelet", NEW, "Event{DeprecatedSource:{ },DeprecatedCount:0}") == []
