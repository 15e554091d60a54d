"""Cluster files of any size: three etcd members, three masters, a load balancer, the rest workers."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

_HEAD = """\
version: 1
name: bench
kubernetes: {version: 1.36.4}
network: {nodes: 10.16.0.0/14, gateway: 10.16.0.1, pods: 10.128.0.0/10, services: 10.32.0.0/16}
targets: [qemu]
access:
  user: ops
  ssh_authorized_keys:
    - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB5mPYNKrqfyLAumNtbRSVZ8dN5qyVDSE2IeEu0kMXzA ops@example
nodes:
"""
_FIRST = IPv4Address("10.16.0.16")


def write_cluster(path: Path, size: int) -> None:
    """A cluster file with ``size`` nodes, at least 8."""
    rows = (
        f"  - {{name: {name}, roles: [{role}], address: {_FIRST + index}}}\n"
        for index, (name, role) in enumerate(_list_nodes(size))
    )
    path.write_text(_HEAD + "".join(rows))


def _list_nodes(size: int) -> Iterator[tuple[str, str]]:
    for role, count in (("etcd", 3), ("master", 3), ("lb", 1), ("worker", size - 7)):
        for index in range(count):
            yield f"{role}-{index}", role
