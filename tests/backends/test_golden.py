"""The seeds of the quickstart's worker and etcd member, word for word: a change here is a change that
users see.
"""

from __future__ import annotations

import pytest

from imagegen.backends.cloudinit import CloudInit
from imagegen.resources import find_resource
from tests.backends.nodeplans import FakeStore
from tests.goldens import check_golden
from tests.plan.plans import make_plan


@pytest.mark.parametrize("node", ["etcd-0", "worker-0", "worker-1"])
def test_the_seeds_of_the_quickstart(node: str) -> None:
    plan = make_plan(find_resource("examples", "quickstart", "cluster.yaml"))
    seed = CloudInit(plan.cluster, FakeStore()).lower_node(plan.node_plan(node))
    text = "".join(f"== {name}\n{body.decode()}" for name, body in seed.files().items())
    check_golden(f"backends/{node}.txt", text)
