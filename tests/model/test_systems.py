"""Facts about operating systems that depend on a choice."""

from __future__ import annotations

import pytest

from imagegen.model.cluster import OperatingSystem, Runtime
from imagegen.model.systems import SYSTEMS


@pytest.mark.parametrize(
    ("system", "runtime", "names"),
    [
        (OperatingSystem.DEBIAN_13, Runtime.DOCKER, []),
        (OperatingSystem.ORACLELINUX_9, Runtime.CONTAINERD, []),
        (OperatingSystem.ORACLELINUX_9, Runtime.DOCKER, ["imagegen_docker"]),
    ],
)
def test_repositories_of_a_runtime(system: OperatingSystem, runtime: Runtime, names: list[str]) -> None:
    assert [each.name for each in SYSTEMS[system].list_repositories(runtime)] == names
