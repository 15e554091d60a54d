"""Plans for tests, built from cluster files by the real way in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imagegen.diagnostics import Report
from imagegen.model.cluster import Cluster
from imagegen.model.load import load_cluster
from imagegen.plan.build import build_plan
from imagegen.plan.plan import Plan
from imagegen.plan.profiles import load_profiles

HEAD = """\
version: 1
name: quickstart
kubernetes: {version: %(version)s}
network: {nodes: 10.240.0.0/16, gateway: 10.240.0.1%(network)s}
access:
  user: ops
  ssh_authorized_keys:
    - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB5mPYNKrqfyLAumNtbRSVZ8dN5qyVDSE2IeEu0kMXzA ops@example
%(more)snodes:
"""

QUICKSTART = (
    "{name: etcd-0, roles: [etcd], address: 10.240.0.10}",
    "{name: master-0, roles: [master], address: 10.240.0.11}",
    "{name: worker-0, roles: [worker], address: 10.240.0.21}",
    '{name: worker-1, roles: [worker], address: dhcp, mac: "52:54:00:00:00:22"}',
)


def write_cluster(
    folder: Path,
    nodes: Sequence[str] = QUICKSTART,
    *,
    version: str = "1.36.4",
    network: str = "",
    more: str = "",
) -> Path:
    """A cluster file; ``network`` continues the network mapping, ``more`` are further top-level lines."""
    values = {"version": version, "network": f", {network}" if network else "", "more": more}
    path = folder / "cluster.yaml"
    path.write_text(HEAD % values + "".join(f"  - {node}\n" for node in nodes))
    return path


def read_cluster(path: Path, profile_dirs: Sequence[Path] = ()) -> Cluster:
    report = Report()
    cluster = load_cluster(path, report, profile_dirs=tuple(map(str, profile_dirs)))
    assert cluster is not None, report.render_text()
    return cluster


def try_plan(path: Path, profile_dirs: Sequence[Path] = ()) -> tuple[Plan | None, Report]:
    """The plan and everything that was found on the way."""
    cluster, report = read_cluster(path, profile_dirs), Report()
    profiles = load_profiles(cluster.profile_dirs, report)
    return (None if report.has_errors else build_plan(cluster, profiles, report)), report


_PLANS: dict[str, Plan] = {}


def make_plan(path: Path, profile_dirs: Sequence[Path] = ()) -> Plan:
    """The plan of a sound cluster file; made once for each text, because plans do not change."""
    if profile_dirs:
        return _make_plan(path, profile_dirs)
    text = path.read_text()
    if text not in _PLANS:
        _PLANS[text] = _make_plan(path, ())
    return _PLANS[text]


def _make_plan(path: Path, profile_dirs: Sequence[Path]) -> Plan:
    plan, report = try_plan(path, profile_dirs)
    assert plan is not None, report.render_text()
    assert not report.has_warnings, report.render_text()
    return plan
