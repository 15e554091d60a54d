"""Checks the user's own flags against the programs of that version, and the programs against each other."""

from __future__ import annotations

from difflib import get_close_matches

from imagegen.diagnostics import Report, register_code
from imagegen.kubernetes.config_fields import config_fields
from imagegen.kubernetes.flags import find_flag, list_flags
from imagegen.kubernetes.flannel import uses_etcd_v2
from imagegen.kubernetes.gates import GateRow, Gates, State
from imagegen.kubernetes.manifests import calico
from imagegen.kubernetes.releases import load_releases
from imagegen.model.cluster import Cluster, Cni, Runtime
from imagegen.model.compatibility import IMPOSSIBLE_PAIR

UNKNOWN_FLAG = register_code(
    "IMG401",
    "a component does not know this flag",
    "A daemon that finds a flag it does not know exits at once, so the node would never come up. The flags "
    "of each version were read from the programs themselves. A flag may have been removed, or come later.",
)
DEPRECATED_FLAG = register_code(
    "IMG402",
    "a flag is deprecated",
    "The flag works in this version and goes away in a later one; the hint names what takes its place. A "
    "note is about flags of which no version is known that lacks them: the program only says at its start "
    "that it would rather read a file.",
)
BAD_FLAG_VALUE = register_code(
    "IMG403",
    "the value of a flag does not fit",
    "etcd and kube-proxy are started with a configuration file, into which this flag is written as a field. "
    "The value cannot be read as the type of that field.",
)


def check_companions(cluster: Cluster, gates: Gates, report: Report) -> None:
    """Whether the kubelet and the containerd that goes with it have a CRI in common (IMG125)."""
    if cluster.runtime is not Runtime.CONTAINERD or gates.is_changed(
        "runtime", "CRI v1 preferred, v1alpha2 fallback"
    ):
        return
    if gates.state("containerd", "CRI v1alpha2") is State.REMOVED:
        version, containerd = gates.version, gates.version_of("containerd")
        last = gates.row("containerd", "CRI v1alpha2").deprecated
        assert last is not None
        report.error(
            IMPOSSIBLE_PAIR,
            f"the kubelet of {version} speaks CRI v1alpha2, which containerd {containerd} no longer serves",
            cluster.span_of("runtime") or cluster.span_of("kubernetes.version"),
            hint=f"containerd {last.minor_text} is the last that serves it; CRI v1 came with Kubernetes 1.23",
            path="runtime",
        )


FOREIGN_IMAGES = register_code(
    "IMG404",
    "images that only a registry has",
    "The mirror that imagegen's own builder fills holds the images of CoreDNS, pause, flannel, "
    "metrics-server and the control plane. What the message names is made by nobody but its project: a "
    "mirror must hold copies of it, laid out like its registry, or that registry must be in reach.",
)


def check_images(cluster: Cluster, report: Report) -> None:
    """Which images a mirror must hold beside those that it is filled with (IMG404)."""
    if cluster.network.cni is not Cni.CALICO:
        return
    releases = load_releases(cluster.kubernetes.version)
    images = " and ".join(releases.image(name) for name in calico.IMAGES)
    report.note(
        FOREIGN_IMAGES,
        f"cni calico needs {images}",
        cluster.span_of("network.cni"),
        hint="copy them into the mirror, or let fetch reach the registry",
        path="network.cni",
    )


def check_flannel(cluster: Cluster, gates: Gates, report: Report) -> None:
    """Whether flannel and etcd have a version of etcd's API in common (IMG125)."""
    if cluster.network.cni is not Cni.FLANNEL_ETCD or not uses_etcd_v2(gates):
        return
    if gates.state("etcd", "--enable-v2") is State.REMOVED:
        flannel, etcd = gates.version_of("flannel"), gates.version_of("etcd")
        report.error(
            IMPOSSIBLE_PAIR,
            f"flannel {flannel} speaks version 2 of etcd's API, which etcd {etcd} no longer serves",
            cluster.span_of("network.cni"),
            hint="use cni: flannel, or a newer Kubernetes with its newer flannel",
            path="network.cni",
        )


def check_extra_args(cluster: Cluster, gates: Gates, report: Report) -> None:
    """Every flag under ``kubernetes.extra_args`` (IMG401, IMG402, IMG403)."""
    for component, flags in cluster.kubernetes.extra_args:
        for name, value in flags:
            path = f"kubernetes.extra_args.{component}.{name}"
            if _check_name(cluster, gates, report, component, name, path):
                _check_value(cluster, report, component, name, value, path)


def _check_name(cluster: Cluster, gates: Gates, report: Report, component: str, name: str, path: str) -> bool:
    version = gates.version_of(component)
    row = gates.find(component, f"--{name}")
    state = State.AVAILABLE if row is None else row.state_in(version)
    span = cluster.span_of(path)
    known = list_flags(component, version)
    if name not in known or state in (State.REMOVED, State.NOT_YET):
        message = f"{component} {version} has no flag --{name}"
        hint = _explain_absence(row, component, name) or _suggest(name, list(known))
        report.error(UNKNOWN_FLAG, message, span, hint=hint, path=path)
        return False
    flag = known[name]
    since = row.deprecated if row is not None and state is State.DEPRECATED else flag.deprecated
    if since is not None and (state is State.DEPRECATED or flag.is_deprecated(version)):
        message = f"--{name} of {component} is deprecated since {since.minor_text}"
        hint = _name_replacement(row)
        # the kubelet says it of every flag that is a field of its file, and has taken them ever since
        goes = hint is not None or flag.last is not None or (row is not None and row.removed is not None)
        tell = report.warning if goes else report.note
        tell(DEPRECATED_FLAG, message, span, hint=hint, path=path)
    return True


def _check_value(cluster: Cluster, report: Report, component: str, name: str, value: str, path: str) -> None:
    field = config_fields(component).get(name)
    if field is None:
        return
    try:
        field.parse_value(value)
    except ValueError:
        report.error(
            BAD_FLAG_VALUE,
            f"wanted {_TYPES[field.type]} for --{name} of {component}, got {value!r}",
            cluster.span_of(path),
            path=path,
        )


_TYPES = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "booleans": "NAME=true or NAME=false, separated by commas",
    "nanoseconds": "a duration such as 5m or 500ms",
}


def _explain_absence(row: GateRow | None, component: str, name: str) -> str | None:
    if row is not None and row.removed is not None:
        replacement = _name_replacement(row)
        return f"removed in {row.removed.minor_text}" + (f"; {replacement}" if replacement else "")
    flag = find_flag(component, name)
    if flag is not None and flag.first is not None:
        return f"there from {flag.first.minor_text} on"
    if flag is not None and flag.last is not None:
        return f"last seen in {flag.last.minor_text}"
    return None


def _name_replacement(row: GateRow | None) -> str | None:
    return f"use {row.replacement}" if row is not None and row.replacement else None


def _suggest(name: str, known: list[str]) -> str | None:
    close = get_close_matches(name, known, 1)
    return f"did you mean --{close[0]}?" if close else None
