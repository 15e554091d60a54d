"""A plan for people: a tree grouped by kind, one line an item. Bodies are left out, secrets are named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from imagegen.diagnostics import printable
from imagegen.errors import UsageError
from imagegen.plan.items import (
    Binary,
    ContainerImage,
    Directory,
    File,
    Group,
    Item,
    KernelModule,
    Login,
    Package,
    Port,
    Ref,
    Symlink,
    Sysctl,
    Unit,
    User,
)
from imagegen.plan.plan import NodePlan, Plan, RolePlan

#: kinds in the order in which a machine is put together
_HEADINGS: tuple[tuple[type[Item], str], ...] = (
    (Package, "packages"),
    (ContainerImage, "container images"),
    (Group, "groups"),
    (User, "users"),
    (Login, "login"),
    (KernelModule, "kernel modules"),
    (Sysctl, "sysctls"),
    (Directory, "directories"),
    (Binary, "binaries"),
    (File, "files"),
    (Symlink, "links"),
    (Unit, "units"),
    (Port, "open ports"),
)
_WIDTH = 100
_MANY_NODES = 12


def iter_plan_text(plan: Plan, *, node: str | None = None, role: str | None = None) -> Iterator[str]:
    """The tree in pieces that end with a line break: all, or one node, or one set of roles (``etcd+master``).

    Raises UsageError for a node or a set of roles that the cluster does not have.
    """
    cluster = plan.cluster
    if node is not None:
        yield from _iter_node(find_node_plan(plan, node), shared=True)
        return
    if role is not None:
        yield from _iter_role(plan, find_role_plan(plan, role))
        return
    yield (
        f"cluster {cluster.name}: Kubernetes {cluster.kubernetes.version} ({cluster.kubernetes.layout}), "
        f"{cluster.image.os}, {cluster.image.mode} image, API at {cluster.endpoint.url}\n\n"
    )
    for role_plan in plan.role_plans:
        yield from _iter_role(plan, role_plan)
    for node_plan in plan.node_plans():
        yield from _iter_node(node_plan, shared=False)


def find_node_plan(plan: Plan, name: str) -> NodePlan:
    """The plan of one node; raises UsageError with a suggestion."""
    try:
        return plan.node_plan(name)
    except KeyError:
        names = [node.name for node in plan.cluster.nodes]
        raise UsageError(f"the cluster has no node {name!r}", hint=_suggest(name, names)) from None


def find_role_plan(plan: Plan, name: str) -> RolePlan:
    """The plan of one set of roles, in any order of its parts; raises UsageError with a suggestion."""
    wanted = set(name.split("+"))
    for role_plan in plan.role_plans:
        if {role.value for role in role_plan.roles} == wanted:
            return role_plan
    names = [role_plan.name for role_plan in plan.role_plans]
    raise UsageError(f"no node of the cluster has exactly the roles {name!r}", hint=_suggest(name, names))


def _suggest(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, 1)
    if close:
        return f"did you mean {close[0]}?"
    shown = known[:_MANY_NODES]
    return f"there are {', '.join(shown)}{' …' if len(known) > len(shown) else ''}"


def _iter_role(plan: Plan, role_plan: RolePlan) -> Iterator[str]:
    nodes = [node.name for node in plan.cluster.nodes if node.roles == role_plan.roles]
    names = ", ".join(nodes[:_MANY_NODES]) + (" …" if len(nodes) > _MANY_NODES else "")
    yield f"role {role_plan.name} ({len(nodes)} node{'' if len(nodes) == 1 else 's'}: {names})\n"
    yield from _iter_items(role_plan.items)
    yield "\n"


def _iter_node(plan: NodePlan, *, shared: bool) -> Iterator[str]:
    node = plan.node
    address = str(node.address) if node.address else "address by DHCP"
    yield f"node {node.name} ({plan.role_plan.name}, {address})\n"
    items = sorted([*plan.role_plan.items, *plan.items], key=lambda i: i.identity) if shared else plan.items
    yield from _iter_items(items)
    yield "\n"


def _iter_items(items: Iterable[Item]) -> Iterator[str]:
    by_kind: dict[type[Item], list[Item]] = {}
    for item in items:
        by_kind.setdefault(type(item), []).append(item)
    for kind, heading in _HEADINGS:
        found = by_kind.get(kind)
        if not found:
            continue
        if kind in {Package, Group, KernelModule}:
            yield from _iter_wrapped(heading, [item.identity[1] for item in found])
            continue
        yield f"  {heading}\n"
        yield from (f"    {printable(describe_item(item))}\n" for item in found)


def _iter_wrapped(heading: str, words: list[str]) -> Iterator[str]:
    yield f"  {heading}\n"
    line = "   "
    for word in words:
        if len(line) + 1 + len(word) > _WIDTH:
            yield line + "\n"
            line = "   "
        line += " " + printable(word)
    yield line + "\n"


def describe_item(item: Item) -> str:
    """One item on one line, without its body: phase, then what it is."""
    return f"{item.phase.value}  {_describe(item)}"


def _describe(item: Item) -> str:
    match item:
        case File(path=path, mode=mode, owner=owner, group=group, content=content):
            secrets = [part.name for part in content if isinstance(part, Ref) and not part.public]
            with_secrets = f"  holds {', '.join(dict.fromkeys(secrets))}" if secrets else ""
            return f"{mode} {owner}:{group} {path}{with_secrets}"
        case Directory(path=path, mode=mode, owner=owner, group=group):
            return f"{mode} {owner}:{group} {path}"
        case Symlink(path=path, target=target):
            return f"{path} -> {target}"
        case Binary(path=path, part=part, version=version):
            return f"{path}  {part} {version}"
        case Sysctl(key=key, value=value):
            return f"{key} = {value}"
        case Unit(name=name, state=state, content=content):
            return f"{name}  {state.value}{'' if content is not None else ' (of the distribution)'}"
        case User(name=name, group=group, groups=groups, uid=uid):
            number = f" uid {uid}" if uid is not None else ""
            return f"{name}:{','.join((group, *groups))}{number}"
        case Login(name=name, ssh_authorized_keys=keys):
            return f"{name}  {len(keys)} ssh key{'' if len(keys) == 1 else 's'}"
        case Port(protocol=protocol, purpose=purpose, sources=sources):
            numbers = item.identity[1].partition("/")[0]
            return f"{numbers}/{protocol}  {purpose}  from {', '.join(sources) or 'anyone'}"
        case _:
            return item.identity[1]
