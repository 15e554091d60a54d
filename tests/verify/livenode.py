"""An answer of the probe as a flawless node of the quickstart example would give it, for tests to break."""

from __future__ import annotations

import hashlib
from typing import Any

from imagegen.backends.image.payload import entry_path
from imagegen.backends.settings import lower_settings
from imagegen.content import Content, Ref
from imagegen.diagnostics import Report
from imagegen.model.load import load_cluster
from imagegen.plan.build import build_plan
from imagegen.plan.items import (
    Binary,
    ContainerImage,
    Directory,
    File,
    Group,
    KernelModule,
    Login,
    Package,
    Port,
    Symlink,
    Sysctl,
    Unit,
    UnitState,
    User,
)
from imagegen.plan.plan import NodePlan
from imagegen.plan.profiles import load_profiles
from imagegen.resources import find_resource
from imagegen.verify.live import list_items


def plan_node(name: str) -> NodePlan:
    """The plan of one node of the quickstart example."""
    report = Report()
    cluster = load_cluster(find_resource("examples", "quickstart", "cluster.yaml"), report)
    assert cluster is not None
    plan = build_plan(cluster, load_profiles((), report), report)
    assert plan is not None, report.render_text()
    return plan.node_plan(name)


def resolve(content: Content) -> bytes:
    """Secrets are their own names here."""
    parts = [part.name if isinstance(part, Ref) else part for part in content]
    return b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)


def make_answer(plan: NodePlan) -> dict[str, Any]:
    """What ``nodeprobe`` says of a node that is as its plan wants it."""
    items = list_items(plan)
    entries = [item for item in items if isinstance(item, Directory | File | Symlink | Binary)]
    groups = [item.name for item in items if isinstance(item, Group)]
    names = ["root", *groups, *(item.group for item in items if isinstance(item, User))]
    members = {name: [u.name for u in items if isinstance(u, User) and name in u.groups] for name in names}
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return {
        "paths": {entry_path(entry): _describe(entry) for entry in [*entries, *lower_settings(items)]},
        "units": {item.name: _run_unit(item) for item in items if isinstance(item, Unit)},
        "failed": [],
        "sysctls": {item.key: item.value for item in items if isinstance(item, Sysctl)},
        "stand_ins": [],
        "modules": {item.name: True for item in items if isinstance(item, KernelModule)},
        "kernel": "6.12.0-cloud-amd64",
        "packages": [item.name for item in items if isinstance(item, Package)],
        "users": [
            [item.name, "x", item.uid or 850, numbers[item.group], "", item.home, item.shell]
            if isinstance(item, User)
            else [item.name, "x", 1000, 1000, "", f"/home/{item.name}", "/bin/bash"]
            for item in items
            if isinstance(item, User | Login)
        ],
        "groups": [[name, "x", number, members[name]] for name, number in numbers.items()],
        "passwords": [],
        "listening": [
            ["tcp", "127.0.0.1", 10248],
            *([p.protocol, "0.0.0.0", p.first] for p in items if isinstance(p, Port) and p.first == p.last),
        ],
        "images": [item.reference for item in items if isinstance(item, ContainerImage)],
        "filter": "table inet imagegen {\n chain input { type filter hook input priority 0; policy drop; } }",
        "cloud_init": {"finished": True, "errors": []},
        "clock": "0AF00001,10.240.0.1,3,1767225600.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,64.0,Normal",
        "swap": [],
        "machine_id": "0" * 32,
    }


def _describe(entry: Directory | File | Symlink | Binary) -> dict[str, Any]:
    if isinstance(entry, Symlink):
        return {"type": "link", "mode": 0o777, "owner": "root", "group": "root", "target": entry.target}
    if isinstance(entry, Binary):
        return {"type": "file", "mode": 0o755, "owner": "root", "group": "root", "sha256": "0" * 64}
    found: dict[str, Any] = {"mode": int(entry.mode, 8), "owner": entry.owner, "group": entry.group}
    if isinstance(entry, Directory):
        return found | {"type": "directory"}
    return found | {"type": "file", "sha256": hashlib.sha256(resolve(entry.content)).hexdigest()}


def _run_unit(unit: Unit) -> dict[str, str]:
    if unit.state is UnitState.MASKED:
        return {"LoadState": "masked", "ActiveState": "inactive", "UnitFileState": "masked"}
    if unit.state is UnitState.DISABLED:
        return {"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "disabled"}
    state = "static" if unit.state is UnitState.STATIC else "enabled"
    return {
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "UnitFileState": state,
        "Result": "success",
        "Type": "simple",
    }
