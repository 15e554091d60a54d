"""A few texts in full, so that a change of what is on a machine is seen in review."""

from __future__ import annotations

import pytest

from imagegen.plan.components import firewall
from imagegen.plan.items import File
from imagegen.plan.outline import iter_plan_text
from imagegen.resources import find_resource
from tests.goldens import check_golden
from tests.plan.plans import make_plan


@pytest.mark.parametrize("role", ["lb", "etcd", "master", "worker"])
def test_packet_filters_of_the_example_ha(role: str) -> None:
    plan = make_plan(find_resource("examples", "ha", "cluster.yaml"))
    role_plan = next(p for p in plan.role_plans if p.name == role)
    ruleset = next(i for i in role_plan.items if isinstance(i, File) and i.path == firewall.RULESET)
    check_golden(f"plan/firewall-{role}.nft", str(ruleset.content[0]))


def test_the_tree_of_a_worker() -> None:
    plan = make_plan(find_resource("examples", "quickstart", "cluster.yaml"))
    check_golden("plan/worker.txt", "".join(iter_plan_text(plan, node="worker-0")))
