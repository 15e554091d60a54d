"""systemd over the services of first boot, the approver, the pod routes and the load balancer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from imagegen.plan.items import File, Unit
from tests.conftest import require_judge
from tests.judges.tools import Tool
from tests.plan.plans import make_plan, write_cluster

pytestmark = pytest.mark.judge

NODES = (
    "{name: etcd-0, roles: [etcd], address: 10.240.0.10}",
    "{name: master-0, roles: [master], address: 10.240.0.11}",
    "{name: lb-0, roles: [lb], address: 10.240.0.12}",
    "{name: worker-0, roles: [worker], address: 10.240.0.21}",
)
OURS = (
    "imagegen-first-boot.service",
    "imagegen-await-api.service",
    "csr-approver.service",
    "imagegen-pod-routes.service",
)
HAPROXY = "haproxy.service"
#: of 10
EXPOSURE_LIMIT = 4.0


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with systemd's own units, ours, the programs they start, and the distribution's haproxy."""
    folder = tmp_path_factory.mktemp("services")
    root = folder / "root"
    shutil.copytree("/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    (root / "lib").symlink_to("usr/lib")
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    for role_plan in make_plan(write_cluster(folder, NODES, network="cni: bridge")).role_plans:
        for item in role_plan.items:
            if isinstance(item, Unit) and item.name in OURS:
                (units / item.name).write_text(str(item.content))
            if isinstance(item, File) and item.path.startswith(("/usr/local/lib/", "/etc/systemd/")):
                path = root / item.path.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(map(str, item.content)))
                path.chmod(int(item.mode, 8))
    tool = require_judge("haproxy")
    packaged = (tool.root or Path("/")) / "lib/systemd/system" / HAPROXY
    shutil.copy(packaged, units / HAPROXY)
    for program in ("usr/sbin/haproxy", "bin/kill"):
        path = root / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)
    return root


def test_systemd_finds_nothing(root: Path, systemd_analyze: Tool) -> None:
    done = systemd_analyze.run("verify", f"--root={root}", "--man=no", *OURS, HAPROXY)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [*OURS, HAPROXY])
def test_services_are_little_exposed(root: Path, systemd_analyze: Tool, name: str) -> None:
    limit = f"--threshold={EXPOSURE_LIMIT * 10:.0f}"
    done = systemd_analyze.run("security", "--offline=true", f"--root={root}", "--no-pager", limit, name)
    assert f"Overall exposure level for {name}" in done.stdout
    assert done.returncode == 0, done.stdout.splitlines()[-1]
