"""How long a leader among controller managers or schedulers may be slow before another takes its place.

Kubernetes' own 15 s, 10 s and 2 s end a cluster's only controller manager when etcd waits ten seconds for a
disk. OpenShift gives 137 s, 107 s and 26 s for that reason (library-go, LeaderElectionDefaulting).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: after this long without a word from the leader another may take over
_LEASE = "60s"
#: a leader that could not renew its lease for this long ends; less than the lease, or there could be two
_RENEW = "40s"
_RETRY = "5s"


def leader_election_flags() -> Mapping[str, str]:
    """The flags of kube-controller-manager and kube-scheduler; all versions have them."""
    return {
        "leader-elect": "true",
        "leader-elect-lease-duration": _LEASE,
        "leader-elect-renew-deadline": _RENEW,
        "leader-elect-retry-period": _RETRY,
    }


def leader_election_config() -> Mapping[str, Any]:
    """LeaderElectionConfiguration of component-base, as configuration files embed it."""
    return {
        "leaderElect": True,
        "leaseDuration": _LEASE,
        "renewDeadline": _RENEW,
        "retryPeriod": _RETRY,
    }
