"""What two values of a cluster file can get wrong together. Each module adds findings to a Review."""

from __future__ import annotations

from imagegen.diagnostics import Report
from imagegen.model.checks.access import check_access
from imagegen.model.checks.choices import check_choices
from imagegen.model.checks.network import check_network
from imagegen.model.checks.nodes import check_nodes
from imagegen.model.checks.policy import check_policy
from imagegen.model.checks.roles import check_roles
from imagegen.model.draft import Draft
from imagegen.model.resolve import Resolved
from imagegen.model.review import Review


def check_cluster(resolved: Resolved, draft: Draft, report: Report) -> None:
    """Run every semantic check; values that were reported before are not reported again."""
    review = Review(cluster=resolved.cluster, draft=draft, report=report, moved=resolved.moved)
    for check in (check_choices, check_network, check_nodes, check_roles, check_policy, check_access):
        check(review)
    review.finish()
