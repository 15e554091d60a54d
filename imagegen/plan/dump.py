"""A plan as canonical JSON, streamed node by node, and as digests. Secrets appear by name only.

Origins are not part of it: the same machines give the same text, whoever asked for what.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from imagegen.model.cluster import Cluster
from imagegen.plan.items import Content, Item, Ref
from imagegen.plan.plan import NodePlan, Plan, RolePlan

FORMAT = "imagegen-plan/1"

#: plain JSON data of one item: ``kind``, ``phase`` and the item's own fields, defaults left out
ItemData = dict[str, Any]

_FIELDS: Mapping[type[Item], tuple[tuple[str, object], ...]] = {
    kind: tuple((spec.name, spec.default) for spec in fields(kind) if spec.name != "origin")
    for kind in Item.__subclasses__()
}


def dump_item(item: Item) -> ItemData:
    """``item`` as plain data; equal items give equal data and different items different data."""
    data: ItemData = {"kind": type(item).__name__.lower()}
    for name, default in _FIELDS[type(item)]:
        value = getattr(item, name)
        if name == "content" and isinstance(value, tuple):
            data[name] = dump_content(value)
        elif name == "phase" or value != default:
            data[name] = list(value) if isinstance(value, tuple) else value
    return data


def dump_content(content: Content) -> str | list[object]:
    """A body: its text, or a list of texts, ``{"base64": …}`` and ``{"ref": name}``."""
    parts: list[object] = []
    for part in content:
        if isinstance(part, Ref):
            ref: dict[str, object] = {"ref": part.name}
            if part.encoding != "raw":
                ref["encoding"] = part.encoding
            if part.public:
                ref["public"] = True
            parts.append(ref)
        elif isinstance(part, bytes):
            parts.append({"base64": base64.b64encode(part).decode("ascii")})
        elif parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    if not parts:
        return ""
    return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts


_encode_line = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


def encode_items(items: Iterable[Item]) -> str:
    """A JSON array on one line, in the order of the plan."""
    return "[" + ",".join([_encode_line(dump_item(item)) for item in items]) + "]"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def digest_role_plan(plan: RolePlan) -> str:
    """SHA-256 over all shared items of a set of roles; does not cover origins."""
    return _digest(plan.name, encode_items(plan.items))


def digest_node_plan(plan: NodePlan, role_digest: str | None = None) -> str:
    """SHA-256 over everything on one node; pass the role plan's digest when it is known already."""
    return _digest(plan.node.name, role_digest or digest_role_plan(plan.role_plan), encode_items(plan.items))


def describe_cluster(cluster: Cluster) -> dict[str, object]:
    """The few facts of the cluster that a reader of a plan wants at its head."""
    return {
        "name": cluster.name,
        "kubernetes": str(cluster.kubernetes.version),
        "layout": cluster.kubernetes.layout.value,
        "os": cluster.image.os.value,
        "mode": cluster.image.mode.value,
        "endpoint": cluster.endpoint.url,
        "targets": [target.value for target in cluster.targets],
    }


def iter_plan_json(plan: Plan, *, nodes: Iterable[NodePlan] | None = None) -> Iterator[str]:
    """``plan.json`` in pieces, one line a role and one line a node, so that no large plan is held in memory.

    ``nodes`` are the plans of the cluster's nodes in their order, for a caller that has made them already.
    """
    yield f'{{"cluster":{_encode_line(describe_cluster(plan.cluster))},\n"format":"{FORMAT}",\n"nodes":['
    digests = {role.roles: digest_role_plan(role) for role in plan.role_plans}
    comma = "\n"
    for node_plan in plan.node_plans() if nodes is None else nodes:
        yield comma + encode_node(node_plan, digests[node_plan.role_plan.roles])
        comma = ",\n"
    yield '\n],\n"roles":['
    comma = "\n"
    for role_plan in plan.role_plans:
        yield comma + encode_role(role_plan, digests[role_plan.roles])
        comma = ",\n"
    yield "\n]}\n"


def encode_node(plan: NodePlan, role_digest: str) -> str:
    """The line of one node in ``plan.json``."""
    node, items = plan.node, encode_items(plan.items)
    digest = _digest(node.name, role_digest, items)
    head = {"address": str(node.address) if node.address else None, "digest": digest}
    tail = {"mac": node.mac, "name": node.name, "roles": plan.role_plan.name}
    return f'{_encode_line(head)[:-1]},"items":{items},{_encode_line(tail)[1:]}'


def encode_role(plan: RolePlan, digest: str) -> str:
    """The lines of one set of roles in ``plan.json``, one an item."""
    items = ",\n".join(_encode_line(dump_item(item)) for item in plan.items)
    return f'{{"digest":"{digest}","items":[\n{items}\n],"name":"{plan.name}"}}'


def render_plan_json(plan: Plan) -> str:
    """``plan.json`` as one text; for small clusters and tests."""
    return "".join(iter_plan_json(plan))
