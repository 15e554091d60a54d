"""Why is this here: answers about a code, something on a machine, a flag or a field of a daemon."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imagegen.diagnostics import CODES, printable
from imagegen.kubernetes.config_fields import config_fields
from imagegen.kubernetes.flags import Flag, every_flag, find_flag
from imagegen.kubernetes.gates import COMPANIONS, GateRow, Gates, State, all_rows, find_rows, load_gates
from imagegen.model.version import Version
from imagegen.plan.items import File, Item, Port, Ref, Unit
from imagegen.plan.merge import name_item
from imagegen.plan.outline import describe_item
from imagegen.plan.plan import Plan

_UNIT_FOLDER = "/etc/systemd/system/"
_MANY = 12
_CONFIGURATIONS = ("/etc/kubernetes/", "/etc/etcd/", "/etc/containerd/", "/etc/cni/")
_ALWAYS = "before every version that imagegen renders"
#: a file of objects, for the API or for a daemon
_OBJECT = re.compile(r"^apiVersion: ", re.MULTILINE)
_DAEMONS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A title and labelled facts, in reading order."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()

    def render_text(self) -> str:
        width = max((len(label) for label, _ in self.facts), default=0)
        rows = [f"  {label.ljust(width)}  {printable(value)}\n" for label, value in self.facts]
        return "".join([f"{printable(self.title)}\n", *rows])

    def as_dict(self) -> dict[str, object]:
        """The machine form that ``--format json`` prints; a label may repeat, so the facts are pairs."""
        return {"title": self.title, "facts": [list(fact) for fact in self.facts]}


def explain_code(code: str) -> Explanation | None:
    """The documentation of a finding; None when no imported module knows the code."""
    entry = CODES.get(code.upper())
    if entry is None:
        return None
    return Explanation(title=f"{entry.code}: {entry.title}", facts=(("what", entry.explanation),))


def explain_path(plan: Plan, wanted: str) -> tuple[Explanation, ...]:
    """Everything in ``plan`` called so: a path, unit, package, user, sysctl, module, port or image.

    When nothing is: the places where a unit passes that flag or a configuration file sets that field.
    One explanation for each different item; nodes that have the same are listed together.
    """
    places = _find_items(plan, lambda item: is_called(item, wanted))
    if places:
        return tuple(_explain_settings(item, names, plan) for item, names in places.items())
    setting = _match_setting(wanted)
    uses = _find_items(plan, lambda item: setting.search(_read_settings(item)) is not None)
    return tuple(_explain_use(item, names, setting) for item, names in uses.items())


def _find_items(plan: Plan, is_meant: Callable[[Item], bool]) -> dict[Item, list[str]]:
    """Each different item that is meant, with the nodes that have it."""
    found: dict[Item, list[str]] = {}
    for item, nodes in _iter_items(plan):
        if is_meant(item):
            found.setdefault(item, []).extend(nodes)
    return found


def _iter_items(plan: Plan) -> Iterator[tuple[Item, list[str]]]:
    """Every item with the nodes that have it; an item may come more than once."""
    for role_plan in plan.role_plans:
        nodes = [node.name for node in plan.cluster.nodes if node.roles == role_plan.roles]
        for item in role_plan.items:
            yield item, nodes
    for node_plan in plan.node_plans():
        for item in node_plan.items:
            yield item, [node_plan.node.name]


def _match_setting(wanted: str) -> re.Pattern[str]:
    """A line that passes ``--wanted`` or sets the field ``wanted:``."""
    name = re.escape(wanted.partition("=")[0].lstrip("-"))
    field = "" if wanted.startswith("-") else f"|^[ -]*{name}:.*$"
    pair = rf"|^ *- name: {name}\n +value: .*$"
    return re.compile(rf"--{name}(?:[= ][^\\\n]*|$){pair}{field}", re.MULTILINE)


def _read_settings(item: Item) -> str:
    """The text in which a daemon's flags and fields may be: of its unit, or of its configuration file."""
    if isinstance(item, Unit):
        return item.content or ""
    if isinstance(item, File) and item.path.startswith(_CONFIGURATIONS):
        return "".join(part for part in item.content if isinstance(part, str))
    return ""


def _explain_use(item: Item, nodes: list[str], setting: re.Pattern[str]) -> Explanation:
    found = [" ".join(match.group().split()) for match in setting.finditer(_read_settings(item))]
    whole = _explain_item(item, nodes)
    facts = [("says", line) for line in dict.fromkeys(found)]
    return Explanation(title=whole.title, facts=(*facts, *whole.facts))


def _explain_settings(item: Item, nodes: list[str], plan: Plan) -> Explanation:
    """The item; of a daemon's unit or file also the user's lines and the rows of the table behind it."""
    whole, text = _explain_item(item, nodes), _read_settings(item)
    facts = list(whole.facts)
    gates = load_gates(plan.cluster.kubernetes.version)
    daemons = _name_daemons(item) if text else ()
    for component in daemons:
        for name in plan.cluster.kubernetes.extra_args_of(component):
            if _passes_flag(component, name, text) or _has_field(component, name, text):
                path = f"kubernetes.extra_args.{component}.{name}"
                facts.append(("input", f"{plan.cluster.span_of(path) or plan.cluster.name}: {path}"))
        facts += _list_gates(component, text, gates)
    for component in _name_readers(item, daemons) if _OBJECT.search(text) else ():
        facts += _list_gates(component, text, gates, with_flags=False)
    return Explanation(title=whole.title, facts=tuple(facts))


def _list_gates(
    component: str, text: str, gates: Gates, *, with_flags: bool = True
) -> Iterator[tuple[str, str]]:
    """The rows of a component that a text asks for, each as a fact."""
    for row in all_rows():
        if row.component not in {component, "all"} or (row.kind == "flag" and not with_flags):
            continue
        if row.state_in(gates.version_of(row.component)) in (State.REMOVED, State.NOT_YET):
            continue
        if (life := _tell_life(row)) and _names_row(text, row):
            yield "gate", f"{component} {row.item}: {life}"


def _name_daemons(item: Item) -> tuple[str, ...]:
    """The daemons whose unit or file this is, by its name; kubeadm's one file is about several."""
    name = item.identity[1].rpartition("/")[2]
    if name == "kubeadm.yaml":
        return (*_DAEMONS[1:], "kubeadm")
    folder = "containerd" if item.identity[1].startswith("/etc/containerd/") else ""
    known = (*_DAEMONS, "containerd")
    return tuple(daemon for daemon in known if daemon in (folder, name.partition(".")[0]))


def _name_readers(item: Item, daemons: tuple[str, ...]) -> tuple[str, ...]:
    """Who reads the objects in a file: the API, the API server at its start, the add-on itself."""
    addon = item.identity[1].rpartition("/")[2].partition("-")[2].removesuffix(".yaml")
    return ("cluster", *(() if daemons else ("kube-apiserver",)), *((addon,) if addon in COMPANIONS else ()))


def _passes_flag(component: str, name: str, text: str) -> bool:
    """etcd's file has its flags as fields, kubeadm's as pairs or, before v1beta4, as a map."""
    has_map = component == "etcd" or "extraArgs:" in text
    pattern = rf"(?:--|name: ){re.escape(name)}(?:=|$)" + (rf"|^ *{re.escape(name)}:" * has_map)
    return re.search(pattern, text, re.MULTILINE) is not None


def _has_field(component: str, flag: str, text: str) -> bool:
    field = config_fields(component).get(flag)
    return (
        field is not None and re.search(rf"^ *{re.escape(field.path[-1])}:", text, re.MULTILINE) is not None
    )


def _names_row(text: str, row: GateRow) -> bool:
    """Whether a row is about something that stands in the text: a flag, a field, an API."""
    name, _, value = row.item.removeprefix("--").partition(" ")
    match row.kind:
        case "flag":
            return _passes_flag(row.component, name, text)
        case "field":
            kind, *keys = name.split(".")
            if kind != "Pod" and not re.search(rf"^kind: {kind}$", text, re.MULTILINE):
                return False
            # the keys in their order; how deep each stands is not looked at
            pattern = r"(?s:.*)".join(rf"^[ -]*{re.escape(key)}:" for key in keys)
            pattern += f" {re.escape(value)}$" * bool(value)
        case "label":
            pattern = rf"^ *{re.escape(row.item)}:"
        case "api" if row.component == "containerd":
            pattern = f"^{value.replace(' ', ' = ')}$"
        case "api":
            kind = rf"\nkind: {re.escape(value)}" if value else ""
            pattern = rf"^apiVersion: (?:\S+/)?{re.escape(name)}{kind}$"
        case "behaviour" if row.component in COMPANIONS:
            pattern = rf"(?<![\w-]){re.escape(row.item.rpartition(' ')[2])}(?![\w-])"
        case _:
            return False
    return re.search(pattern, text, re.MULTILINE) is not None


def _tell_life(row: GateRow) -> str:
    """Since when, and what else happened to it; empty when the row tells no version."""
    told = [f"since {row.introduced.minor_text}"] if row.introduced is not None else []
    told += [f"{row.change} from {row.changed.minor_text} on"] if row.changed is not None else []
    told += [f"deprecated in {row.deprecated.minor_text}"] if row.deprecated is not None else []
    told += [f"removed in {row.removed.minor_text}"] if row.removed is not None else []
    return ", ".join(told)


def is_called(item: Item, wanted: str) -> bool:
    """Whether people may mean ``item`` by ``wanted``."""
    key = item.identity[1]
    if key == wanted:
        return True
    if isinstance(item, Unit):
        return wanted in {_UNIT_FOLDER + item.name, item.name.removesuffix(".service")}
    if isinstance(item, Port):
        return wanted.isdigit() and item.first <= int(wanted) <= item.last
    return False


def _explain_item(item: Item, nodes: list[str]) -> Explanation:
    facts = [("what", describe_item(item).partition("  ")[2])]
    if item.origin.reason:
        facts.append(("why", item.origin.reason))
    facts.append(("from", str(item.origin)))
    phase = "bake: once, in the image" if item.phase.value == "bake" else "boot: from the node's seed"
    facts.append(("when", phase))
    if isinstance(item, File):
        facts += [
            ("holds", f"{part.name}{'' if part.public else ' (secret)'}")
            for part in dict.fromkeys(item.content)
            if isinstance(part, Ref)
        ]
    names = dict.fromkeys(nodes)
    shown = ", ".join(list(names)[:_MANY]) + (" …" if len(names) > _MANY else "")
    facts.append(("on", f"{len(names)} node{'' if len(names) == 1 else 's'}: {shown}"))
    return Explanation(title=name_item(item), facts=tuple(facts))


def explain_flag(
    wanted: str, *, version: Version | None = None, component: str | None = None
) -> tuple[Explanation, ...]:
    """What the version table knows of a flag, field, API or gate: since when, until when, what replaces it.

    ``wanted`` may lack the leading dashes, and may name its component: ``kubelet/--network-plugin``.
    With ``version`` the state in that Kubernetes version is said too.
    """
    bare = wanted.partition("=")[0]
    prefix, slash, rest = bare.partition("/")
    if slash and (prefix in _DAEMONS or any(row.component == prefix for row in all_rows())):
        component, bare = prefix, rest
    rows = find_rows(bare) or find_rows(f"--{bare.lstrip('-')}")
    if not rows:
        folded = bare.lstrip("-").lower()
        # a kind may be named by its group and version alone
        rows = tuple(row for row in all_rows() if folded in _spell(row.item))
    found = [
        _explain_row(row, version) for row in rows if component is None or row.component in {component, "all"}
    ]
    told = {row.component for row in rows}
    if "all" not in told:
        daemons = [name for name in _DAEMONS if name not in told and component in {None, name}]
        found += _list_quiet_flags(bare.lstrip("-"), daemons, version)
    return tuple(found)


def _spell(item: str) -> tuple[str, str]:
    """An item, and its first word, as people may write them."""
    bare = item.lstrip("-").lower()
    return bare, bare.partition(" ")[0]


def list_flag_names(component: str = "") -> tuple[str, ...]:
    """Every flag that a daemon has in some version, with dashes; without a name those of all daemons."""
    daemons = [daemon for daemon in _DAEMONS if component in ("", daemon)]
    return tuple({f"--{name}": None for daemon in daemons for name in every_flag(daemon)})


def _list_quiet_flags(name: str, daemons: list[str], version: Version | None) -> Iterator[Explanation]:
    """Flags of which the version table tells no story, because nothing ever happened to them."""
    for daemon in daemons:
        flag = find_flag(daemon, name)
        if flag is None:
            continue
        facts = [("since", flag.first.minor_text if flag.first else _ALWAYS)]
        if flag.deprecated is not None:
            facts.append(("deprecated in", flag.deprecated.minor_text))
        if flag.withdrawn is not None:
            facts.append(("no longer deprecated in", flag.withdrawn.minor_text))
        if flag.last is not None:
            facts.append(("last in", flag.last.minor_text))
        if version is not None:
            facts.insert(
                0, (_name_version(daemon, version), _state_flag(flag, _own_version(daemon, version)))
            )
        yield Explanation(title=f"{daemon} --{name} (flag)", facts=tuple(facts))


def _own_version(component: str, version: Version) -> Version:
    return load_gates(version).version_of(component)


def _name_version(component: str, version: Version) -> str:
    """``in 1.36.4``, or of a part with versions of its own ``in etcd 3.6.16``."""
    own = _own_version(component, version)
    return f"in {component} {own}" if component in COMPANIONS else f"in {version}"


def _state_flag(flag: Flag, version: Version) -> str:
    if not flag.is_in(version):
        return "not available"
    return "deprecated" if flag.is_deprecated(version) else "available"


def _explain_row(row: GateRow, version: Version | None) -> Explanation:
    facts: list[tuple[str, str]] = []
    if row.kind == "flag" and row.introduced is None and row.alpha is None:
        facts.append(("since", _ALWAYS))
    for label, since in (
        ("alpha since", row.alpha),
        ("since", row.introduced),
        ("stable since", row.stable),
        ("deprecated in", row.deprecated),
        ("removed in", row.removed),
    ):
        if since is not None:
            facts.append((label, since.minor_text))
    if row.changed is not None:
        facts.append((f"from {row.changed.minor_text} on", row.change))
    if row.replacement:
        facts.append(("instead", row.replacement))
    if row.note:
        facts.append(("note", row.note))
    if row.evidence:
        facts.append(("evidence", row.evidence))
    if version is not None:
        state = row.state_in(_own_version(row.component, version))
        facts.insert(0, (_name_version(row.component, version), state.value))
    owner = "all components" if row.component == "all" else row.component
    return Explanation(title=f"{owner} {row.item} ({row.kind})", facts=tuple(facts))
