"""kubernetes-validate, strictly, over every object that first boot applies, in the schema of every minor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from imagegen.kubernetes.releases import newest_patch
from imagegen.model.cluster import Role
from imagegen.plan.components.first_boot import ADDONS, MANIFESTS
from imagegen.plan.items import File
from tests.kubernetes.clusters import MINORS
from tests.plan.plans import QUICKSTART, make_plan, write_cluster

pytestmark = pytest.mark.judge


FLANNEL, BRIDGE = "cni: flannel", "cni: bridge"
#: bridge wants workers with fixed addresses
ALL_IN_ONE = ("{name: all-0, roles: [etcd, master, worker], address: 10.240.0.10}",)


def list_objects(
    folder: Path, minor: str, network: str = FLANNEL, nodes: tuple[str, ...] = QUICKSTART
) -> list[dict[str, Any]]:
    """Every object of every manifest on a master."""
    version, more = str(newest_patch(minor)), "addons: [metrics-server, sample]\n"
    plan = make_plan(write_cluster(folder, nodes, version=version, network=network, more=more))
    (role_plan,) = [role_plan for role_plan in plan.role_plans if Role.MASTER in role_plan.roles]
    out: list[dict[str, Any]] = []
    for item in role_plan.items:
        if isinstance(item, File) and item.path.startswith((MANIFESTS, ADDONS)):
            text = "".join(part if isinstance(part, str) else "QUJD" for part in item.content)
            out += yaml.safe_load_all(text)
    return out


#: the validator has no schemas of older versions
JUDGED = [minor for minor in MINORS if int(minor.split(".")[1]) >= 25]


CASES = [
    *((minor, FLANNEL, QUICKSTART) for minor in JUDGED),
    *((minor, BRIDGE, ALL_IN_ONE) for minor in JUDGED),
    *((minor, "cni: calico", QUICKSTART) for minor in (JUDGED[0], JUDGED[-1])),
]


@pytest.mark.parametrize(
    ("minor", "network", "nodes"), CASES, ids=[f"{minor}-{network[5:]}" for minor, network, _ in CASES]
)
def test_every_object_is_valid(tmp_path: Path, minor: str, network: str, nodes: tuple[str, ...]) -> None:
    objects = list_objects(tmp_path, minor, network, nodes)
    assert len(objects) > 15
    for body in objects:
        kubernetes_validate.validate(body, f"{minor}.0", strict=True)
        assert body["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "imagegen"


def test_the_judge_sees_a_wrong_field(tmp_path: Path) -> None:
    (body,) = [body for body in list_objects(tmp_path, "1.36") if body["kind"] == "DaemonSet"]
    body["spec"]["template"]["spec"]["hostNetworks"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(body, "1.36.0", strict=True)
