"""The real etcd, API server, controller manager and scheduler, started with the flags and files of a plan."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagegen.diagnostics import Report
from imagegen.fetch.archive import extract_members
from imagegen.kubernetes.apiserver import limits_anonymous
from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import known_minors, load_releases, newest_patch
from imagegen.model.version import Version, parse_version
from imagegen.pki.issue import issue_material
from imagegen.pki.resolve import resolve_content
from imagegen.pki.store import SecretStore
from imagegen.plan.items import File, Unit
from tests.judges.control_plane import move_paths
from tests.judges.test_flags import MIRROR
from tests.judges.tools import Tool
from tests.plan.plans import try_plan, write_cluster

pytestmark = pytest.mark.judge

DAEMONS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
#: a test may not set the connection tracking of its machine: these flags tell kube-proxy to leave it alone
LEAVE_CONNTRACK = """{kube-proxy: {conntrack-max-per-core: 0, conntrack-tcp-timeout-established: 0s,
    conntrack-tcp-timeout-close-wait: 0s}}"""
NODE = "{name: one, roles: [etcd, master, worker], address: 10.240.0.10}"


def find_programs(version: Version, folder: Path, etcd: Tool, etcdctl: Tool) -> dict[str, str]:
    """The programs of one version in the mirror; etcd of its release, else of the distribution."""
    binaries = MIRROR / f"dl.k8s.io/release/v{version}/bin/linux/amd64"
    programs = {name: str(binaries / name) for name in DAEMONS}
    programs |= {"etcd": etcd.argv[0], "etcdctl": etcdctl.argv[0]}
    part = load_releases(version).part("etcd")
    archive = MIRROR / part.url.removeprefix("https://")
    if archive.exists():
        folder.mkdir(exist_ok=True)
        released = {name: folder / name for name in ("etcd", "etcdctl")}
        extract_members(archive, {part.member(name): path for name, path in released.items()})
        programs |= {name: str(path) for name, path in released.items()}
    return programs


def list_versions() -> list[Version]:
    """The newest version of each minor whose daemons are all in the mirror."""
    found: dict[str, Version] = {}
    for folder in MIRROR.glob("dl.k8s.io/release/v1.*/bin/linux/amd64"):
        version = parse_version(folder.parts[-4])
        if all((folder / name).exists() for name in DAEMONS) and version.minor_text in known_minors():
            found[version.minor_text] = max(version, found.get(version.minor_text, version))
    return sorted(found.values())


def place_node(folder: Path, version: Version, more: str = "") -> Path:
    """The files of the only node below a folder, its units beside them."""
    kubernetes = f"{version}, extra_args: {LEAVE_CONNTRACK}"
    plan, _ = try_plan(write_cluster(folder, (NODE,), version=kubernetes, more=more))
    assert plan is not None
    store, report = SecretStore(folder / "secrets"), Report()
    issue_material(plan.cluster, store, report, now=datetime.now(UTC))
    assert not report.has_errors, report.render_text()
    root, node = folder / "root", plan.node_plan("one")
    for item in (*node.role_plan.items, *node.items):
        if isinstance(item, File) and item.path.startswith(("/etc/kubernetes", "/etc/etcd", "/etc/imagegen")):
            path = root / item.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(move_paths(resolve_content(item.content, store).decode(), root))
        if isinstance(item, Unit) and item.content is not None and "/" not in item.name:
            (root / "units").mkdir(parents=True, exist_ok=True)
            (root / "units" / item.name).write_text(item.content)
    for directory in ("var/lib/etcd", "var/log/kubernetes"):
        (root / directory).mkdir(parents=True, mode=0o700)
    for suffix in ("crt", "key"):
        (root / f"admin.{suffix}").write_bytes(store.read(f"pki/super-admin.{suffix}"))
    return root


def run_daemons(root: Path, programs: dict[str, str], *daemons: str) -> dict[str, object]:
    """What the driver saw; the ends of all logs when it failed."""
    user = ["--map-root-user"] if os.geteuid() else []
    driver = [sys.executable, "-m", "tests.judges.control_plane", str(root), json.dumps(programs), *daemons]
    done = subprocess.run(
        ["unshare", *user, "--net", *driver], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr + read_logs(root)
    seen: dict[str, object] = json.loads(done.stdout)
    return seen


def read_logs(root: Path) -> str:
    return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(root.glob("*.log")))


#: what a daemon says of a file or a flag that it does not like, and of its own bugs
COMPLAINT = re.compile(
    r"deprecated|lenient|unknown (?:field|flag)|strict decoding|Observed a panic", re.IGNORECASE
)
#: words of a healthy start, version by version
HARMLESS = (
    # of 1.20 and older: the flag is set to 0, which closes the port
    "Flag --port has been deprecated",
    "Flag --insecure-port has been deprecated",
    "deprecated_insecure_serving.go",
    "DeprecatedControllers",
)


def find_complaints(root: Path) -> list[str]:
    """The lines of all logs in which a daemon complains about what we gave it."""
    lines = [line for log in sorted(root.glob("kube-*.log")) for line in log.read_text().splitlines()]
    # requests to deprecated APIs are those of the daemons themselves; --v=2 prints every flag
    skipped = (*HARMLESS, "] FLAG: ", "apiserver_requested_deprecated_apis")
    return [line for line in lines if COMPLAINT.search(line) and not any(word in line for word in skipped)]


@pytest.mark.parametrize("minor", ["1.30", "1.33"])
def test_etcd_of_the_old_line_starts_from_its_file(
    tmp_path: Path, etcd: Tool, etcdctl: Tool, minor: str
) -> None:
    """etcd 3.5 takes every field: it would name those that it does not know, or not any more."""
    root = place_node(tmp_path, newest_patch(minor))
    assert "experimental-initial-corrupt-check" in (root / "etc/etcd/etcd.yaml").read_text()
    seen = run_daemons(root, {"etcd": etcd.argv[0], "etcdctl": etcdctl.argv[0]}, "etcd")
    log = (root / "etcd.log").read_text()
    assert seen["ready"] is not None, log
    assert "certificate required" in str(seen["without a certificate"])
    for word in ("unknown", "unrecognized", "deprecated"):
        assert word not in log.lower()


@pytest.mark.slow
@pytest.mark.skipif(not list_versions(), reason=f"no control plane in {MIRROR}; make mirror builds one")
@pytest.mark.parametrize("version", list_versions(), ids=str)
def test_the_control_plane_comes_up(tmp_path: Path, etcd: Tool, etcdctl: Tool, version: Version) -> None:
    root = place_node(tmp_path, version)
    programs = find_programs(version, tmp_path / "programs", etcd, etcdctl)
    seen = run_daemons(root, programs, "etcd", *DAEMONS)
    for name in ("ready", "controller manager", "scheduler"):
        assert seen.pop(name) is not None, name + read_logs(root)
    assert find_complaints(root) == []
    assert seen == {
        "open ports": [],
        "anonymous readyz": 200 if limits_anonymous(load_gates(version)) else 401,
        "anonymous api": 401,
        "anonymous version": 401,
        "admin nodes": 200,
        "pod range": "10.200.0.0/24",
        "service rule": True,
        "create secret": 201,
        "stored encrypted": True,
        "stored in clear": False,
        "audit names the secret": True,
        "audit shows the secret": False,
    }


@pytest.mark.slow
@pytest.mark.skipif(not list_versions(), reason=f"no control plane in {MIRROR}; make mirror builds one")
@pytest.mark.parametrize("version", list_versions(), ids=str)
def test_one_certificate_and_a_token_file_are_enough(
    tmp_path: Path, etcd: Tool, etcdctl: Tool, version: Version
) -> None:
    """etcd and the API server with a single certificate; a kubelet's token out of token.csv is let in."""
    more = "pki: {certificates: single}\nbootstrap: {method: token-file}\naddons: [metrics-server]\n"
    root = place_node(tmp_path, version, more)
    (root / "token").write_bytes(SecretStore(tmp_path / "secrets").read("nodes/one/bootstrap-token"))
    programs = find_programs(version, tmp_path / "programs", etcd, etcdctl)
    seen = run_daemons(root, programs, "etcd", "kube-apiserver")
    assert seen.pop("ready") is not None, read_logs(root)
    assert find_complaints(root) == []
    assert seen == {"token": 201, "wrong token": 401}
