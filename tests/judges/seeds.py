"""Seeds of many clusters for judges: every set of roles, minor, target and mode, made once a session."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from imagegen.backends.cloudinit import CloudInit, Seed
from imagegen.diagnostics import Report
from imagegen.kubernetes.releases import known_minors, newest_patch
from imagegen.model.support import FIRST_BOOTED_MINOR
from imagegen.pki.issue import issue_material
from imagegen.pki.store import SecretStore
from imagegen.plan.plan import Plan
from imagegen.resources import find_resource
from tests.plan.plans import make_plan

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
EXAMPLES = ("quickstart", "all-in-one", "ha")
TARGETS = ("[qemu]", "[virtualbox]", "[vmware]", "[gce]", "[qemu, virtualbox, vmware, gce]")
MODES = ("golden", "stock")
SYSTEMS = ("debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04", "oraclelinux-9")
#: boots cgroups of version 1, so it takes no part in the turns
OLD_SYSTEM, OLD_MINOR = "oraclelinux-7", "1.20"

#: every set of roles that a node may sensibly have, by fixed address, by DHCP, and by hardware address
NODES = """\
  - {name: etcd-0, roles: [etcd], address: 10.240.0.10}
  - {name: master-0, roles: [master], address: 10.240.0.11}
  - {name: both-0, roles: [etcd, master], address: 10.240.0.12}
  - {name: all-0, roles: [etcd, master, worker], address: 10.240.0.13}
  - {name: mixed-0, roles: [master, worker], address: 10.240.0.14}
  - {name: lb-0, roles: [lb], address: 10.240.0.15}
  - {name: base-0, roles: [base], address: 10.240.0.16, mac: "52:54:00:00:00:10"}
  - {name: worker-0, roles: [worker], address: 10.240.0.21}
  - {name: worker-1, roles: [worker], address: dhcp}
  - {name: worker-2, roles: [worker], address: dhcp, mac: "52:54:00:00:00:22"}
"""

TEXT = """\
version: 1
name: matrix
kubernetes: {{version: {version}}}
network: {{nodes: 10.240.0.0/24, gateway: 10.240.0.1, nameservers: [10.240.0.1, 9.9.9.9]}}
image: {{os: {os}, mode: {mode}}}
targets: {targets}
access:
  user: ops
  ssh_authorized_keys:
    - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB5mPYNKrqfyLAumNtbRSVZ8dN5qyVDSE2IeEu0kMXzA ops@example
nodes:
"""


def list_plans() -> Iterator[tuple[str, Plan]]:
    """Every example, the matrix of minors × modes with targets and systems in turn, and the oldest system."""
    for name in EXAMPLES:
        yield name, make_plan(find_resource("examples", name, "cluster.yaml"))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cluster.yaml"
        whole = [minor for minor in known_minors() if int(minor.split(".")[1]) >= FIRST_BOOTED_MINOR]
        for index, minor in enumerate(whole):
            for mode in MODES:
                path.write_text(
                    TEXT.format(
                        version=newest_patch(minor),
                        mode=mode,
                        os=SYSTEMS[index % len(SYSTEMS)],
                        targets=TARGETS[index % len(TARGETS)],
                    )
                    + NODES
                )
                yield f"{minor}-{mode}", make_plan(path)
        for mode in MODES:
            version = newest_patch(OLD_MINOR)
            path.write_text(
                TEXT.format(version=version, mode=mode, os=OLD_SYSTEM, targets="[vmware]") + NODES
            )
            yield f"{OLD_SYSTEM}-{mode}", make_plan(path)


def lower_all(folder: Path) -> dict[str, Seed]:
    """Seeds by ``CASE-NODE``; secrets go to ``folder``."""
    seeds: dict[str, Seed] = {}
    for case, plan in list_plans():
        shape = f"{len(plan.cluster.nodes)}-{plan.cluster.name}-{plan.cluster.endpoint.host}"
        store = SecretStore(folder / shape)
        issue_material(plan.cluster, store, Report(), now=NOW)
        lowering = CloudInit(plan.cluster, store)
        for node_plan in plan.node_plans():
            seeds[f"{case}-{node_plan.node.name}"] = lowering.lower_node(node_plan)
    return seeds


def list_entries(seed: Seed) -> list[dict[str, object]]:
    """The ``write_files`` of a seed."""
    entries: list[dict[str, object]] = yaml.load(seed.user_data, Loader=yaml.CSafeLoader).get(
        "write_files", []
    )
    return entries
