"""What the Kubernetes room renders for one minor, in the form that judges read."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagegen.emit import emit_yaml
from imagegen.kubernetes import (
    apiserver,
    audit,
    containerd,
    controller_manager,
    etcd,
    kube_proxy,
    kubelet,
    scheduler,
)
from imagegen.kubernetes.arguments import Arguments
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.releases import load_releases
from imagegen.model.cluster import Cluster, Role

FIELDS = Path(__file__).parent / "kubejudge" / "fields.csv"
#: 32 bytes in base64, in the place of the key
SECRETBOX_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Command lines by component, configuration objects and file texts by name."""

    arguments: Mapping[str, Arguments]
    objects: Mapping[str, Mapping[str, Any]]
    containerd: str
    etcd: Mapping[str, Any]


def render_all(cluster: Cluster, gates: Gates, roles: tuple[Role, ...] = (Role.WORKER,)) -> Rendered:
    """Every flag and configuration file of one cluster; the kubelet is that of a node with ``roles``."""
    objects: dict[str, Mapping[str, Any]] = {}
    if kubelet.has_config(gates):
        objects["kubelet"] = kubelet.kubelet_config(cluster, gates, roles)
    if kube_proxy.has_config(gates):
        objects["kube-proxy"] = kube_proxy.kube_proxy_config(cluster, gates)
    if scheduler.has_config(gates):
        objects["kube-scheduler"] = scheduler.scheduler_config(gates)
    if apiserver.has_audit_policy(gates):
        objects["audit"] = audit.audit_policy(gates)
    if apiserver.limits_anonymous(gates):
        objects["authentication"] = apiserver.authentication_config(gates)
    return Rendered(
        arguments={
            "kube-apiserver": apiserver.apiserver_arguments(cluster, gates),
            "kube-controller-manager": controller_manager.controller_manager_arguments(cluster, gates),
            "kube-scheduler": scheduler.scheduler_arguments(cluster, gates),
            "kubelet": kubelet.kubelet_arguments(cluster, gates, roles),
            "kube-proxy": kube_proxy.kube_proxy_arguments(cluster, gates),
        },
        objects=objects,
        containerd=containerd.containerd_config(
            gates, load_releases(cluster.kubernetes.version).image("pause")
        ),
        etcd=etcd.etcd_config(cluster, gates, cluster.nodes_with(Role.ETCD)[0]),
    )


def write_objects(rendered: Rendered, gates: Gates, folder: Path) -> list[Path]:
    """The configuration objects as files, the encryption configuration with a key in its place."""
    files = []
    for name, body in rendered.objects.items():
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(emit_yaml(body))
    parts = apiserver.encryption_config(gates)
    files.append(folder / "encryption.yaml")
    files[-1].write_text("".join(p if isinstance(p, str) else SECRETBOX_KEY for p in parts))
    return files


def read_fields(minor: str) -> dict[str, set[str]]:
    """The fields of every configuration kind as the programs of that minor know them."""
    fields: dict[str, set[str]] = {}
    with FIELDS.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if _reaches(row["first"], minor) and (not row["last"] or _reaches(minor, row["last"])):
                fields.setdefault(row["kind"], set()).add(row["field"])
    return fields


def _reaches(first: str, minor: str) -> bool:
    return not first or [int(p) for p in first.split(".")] <= [int(p) for p in minor.split(".")]


def list_paths(body: object, prefix: str = "") -> Iterator[str]:
    """Every field path in an object, with ``*`` for the keys of maps that hold values only."""
    if isinstance(body, Mapping):
        for key, value in body.items():
            path = f"{prefix}.{key}" if prefix else str(key)
            yield path
            yield from list_paths(value, path)
    elif isinstance(body, list | tuple):
        for value in body:
            yield from list_paths(value, prefix)
