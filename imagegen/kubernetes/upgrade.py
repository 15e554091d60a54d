"""What changes for a cluster on the way to a newer Kubernetes, minor by minor, out of the version tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from imagegen.errors import UsageError
from imagegen.kubernetes import kubeadm, kubelet
from imagegen.kubernetes.flags import find_flag
from imagegen.kubernetes.gates import COMPANIONS as OWN_VERSIONS
from imagegen.kubernetes.gates import GateRow, all_rows, load_gates
from imagegen.kubernetes.releases import known_minors, load_releases, newest_patch
from imagegen.model.cluster import Cluster, Layout
from imagegen.model.version import Version, parse_version

#: parts of a node that carry versions of their own
COMPANIONS = ("etcd", "containerd", "runc", "cni-plugins", "pause", "coredns", "flannel")


class Effect(StrEnum):
    REMOVED = "removed"
    DEPRECATED = "deprecated"
    CHANGED = "changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that happens in ``minor``.

    ``path`` is its place in the cluster file, empty when the user does not name it; ``instead`` what to do,
    ``evidence`` where that is known from.
    """

    minor: str
    component: str
    item: str
    effect: Effect
    says: str = ""
    instead: str = ""
    evidence: str = ""
    path: str = ""

    @property
    def concerns_the_user(self) -> bool:
        return bool(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One minor of the way: the release to go to, and what happens there."""

    version: Version
    companions: tuple[tuple[str, str, str], ...]
    changes: tuple[Change, ...]


def plan_upgrade(cluster: Cluster, target: Version) -> tuple[Step, ...]:
    """One step a minor, for no minor may be left out; raises UsageError when the target is not newer."""
    load_releases(target)
    start = cluster.kubernetes.version
    if target <= start:
        raise UsageError(
            f"wanted a version newer than {start}, got {target}",
            hint=f"for example {newest_patch(known_minors()[-1])}",
        )
    named = dict(_name_user_items(cluster))
    steps, before = [], start
    for number in range(start.minor + (start.minor != target.minor), target.minor + 1):
        minor = f"{target.major}.{number}"
        version = target if number == target.minor else newest_patch(minor)
        changes = tuple(_list_changes(before, version, named)) if number > start.minor else ()
        steps.append(Step(version=version, companions=_compare_companions(before, version), changes=changes))
        before = version
    return tuple(steps)


def list_untouched(cluster: Cluster, steps: Iterable[Step]) -> tuple[tuple[str, str], ...]:
    """(component, item) of what the user names in ``extra_args`` and that no step changes, sorted."""
    changed = {(change.path, change.item) for step in steps for change in step.changes}
    named = {
        (component, item): path
        for (component, item), path in _name_user_items(cluster)
        if path in _places(cluster)
    }
    return tuple(sorted(pair for pair, path in named.items() if (path, pair[1]) not in changed))


def _places(cluster: Cluster) -> frozenset[str]:
    args = cluster.kubernetes.extra_args
    return frozenset(f"kubernetes.extra_args.{owner}.{name}" for owner, flags in args for name, _ in flags)


def _name_user_items(cluster: Cluster) -> Iterator[tuple[tuple[str, str], str]]:
    """What the user names, as (component, item), and its place in the cluster file."""
    for component, flags in cluster.kubernetes.extra_args:
        for name, value in flags:
            path = f"kubernetes.extra_args.{component}.{name}"
            yield (component, f"--{name}"), path
            if name in ("feature-gates", "runtime-config", "admission-control") or name.endswith(
                "-admission-plugins"
            ):
                for word in value.split(","):
                    yield (component, word.partition("=")[0].strip()), path
    yield ("cluster", "dockershim"), "runtime" if cluster.runtime.value == "docker" else ""
    yield from _name_layout_items(cluster)
    mode = f"KubeProxyConfiguration.mode {cluster.network.proxy.value}"
    yield ("kube-proxy", mode), "network.proxy" if cluster.span_of("network.proxy") else ""


def _name_layout_items(cluster: Cluster) -> Iterator[tuple[tuple[str, str], str]]:
    """What a control plane of pods has and people's manifests name: labels and taints of masters."""
    layout = cluster.kubernetes.layout
    if layout is Layout.SYSTEMD:
        return
    for key in kubelet.CONTROL_PLANE_KEYS:
        yield ("cluster", key), "kubernetes.layout"
        yield ("cluster", f"taint {key}"), "kubernetes.layout"
    if layout is Layout.KUBEADM:
        for api in kubeadm.APIS:
            yield (kubeadm.COMPONENT, api), "kubernetes.layout"


def _list_changes(before: Version, after: Version, named: dict[tuple[str, str], str]) -> Iterator[Change]:
    """What happens in one step: of parts with versions of their own only what the user names."""
    minor, told = after.minor_text, set()
    old, new = load_gates(before), load_gates(after)
    for row in all_rows():
        if row.component in OWN_VERSIONS and (row.component, row.item) not in named:
            continue
        for effect, says in _effects_of(row, old.version_of(row.component), new.version_of(row.component)):
            told.add((row.component, row.item))
            for component, path in _find_places(row, named):
                yield Change(
                    minor=minor,
                    component=component,
                    item=row.item,
                    effect=effect,
                    says=says,
                    instead=row.replacement or _name_field(component, row.item, effect, minor),
                    evidence=row.evidence,
                    path=path,
                )
    for (component, item), path in named.items():
        if item.startswith("--") and (component, item) not in told and ("all", item) not in told:
            yield from _list_quiet(minor, component, item, path)


def _effects_of(row: GateRow, before: Version, after: Version) -> Iterator[tuple[Effect, str]]:
    """What the row tells of the versions above ``before`` and up to ``after``."""
    if row.removed is not None and before < row.removed <= after:
        yield Effect.REMOVED, ""
    elif row.deprecated is not None and before < row.deprecated <= after:
        yield Effect.DEPRECATED, ""
    if row.changed is not None and before < row.changed <= after:
        yield Effect.CHANGED, row.change


def _find_places(row: GateRow, named: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    """(component, path): what holds for all components concerns each that the user names it for."""
    if row.component == "all":
        places = [(component, path) for (component, item), path in named.items() if item == row.item and path]
        return places or [(row.component, "")]
    return [(row.component, _find_path(row, named))]


def _find_path(row: GateRow, named: dict[tuple[str, str], str]) -> str:
    # a gate or an API of the cluster may be named for any of its components
    paths = [p for (component, item), p in named.items() if p and item == row.item]
    return named.get((row.component, row.item), "") or (paths[0] if paths and row.kind == "gate" else "")


def _list_quiet(minor: str, component: str, item: str, path: str) -> Iterator[Change]:
    """Flags of which only the list of every minor's flags knows."""
    try:
        flag = find_flag(component, item.removeprefix("--"))
    except KeyError:
        return
    if flag is None or component == "etcd":
        return
    number = parse_version(f"{minor}.0")
    effect = None
    if flag.last is not None and flag.last.minor + 1 == number.minor:
        effect = Effect.REMOVED
    elif flag.deprecated is not None and flag.deprecated == number:
        effect = Effect.DEPRECATED
    if effect is not None:
        instead = _name_field(component, item, effect, minor)
        yield Change(minor=minor, component=component, item=item, effect=effect, path=path, instead=instead)


def _name_field(component: str, item: str, effect: Effect, minor: str) -> str:
    """What takes the place of a flag of which nothing is told: mostly a field of the same meaning."""
    is_flag = item.startswith("--") and effect is not Effect.CHANGED
    has_file = is_flag and _has_file(component, parse_version(f"{minor}.0"))
    return f"its field in the {component}'s file" if has_file else ""


def _has_file(component: str, version: Version) -> bool:
    """Whether the component reads a configuration file in this version, which its flags move to."""
    try:
        return load_gates(version).has(component, "--config")
    except KeyError:
        return False


def _compare_companions(old: Version, new: Version) -> tuple[tuple[str, str, str], ...]:
    """(part, from, to) of every companion that another release belongs to."""
    before, after = load_releases(old), load_releases(new)
    pairs = ((name, before.version(name), after.version(name)) for name in COMPANIONS)
    return tuple(pair for pair in pairs if pair[1] != pair[2])
