"""Writes flags.csv of the package, and fields.csv beside this file, from what ``main.go dump`` printed, and
``read_sources.py`` for minors that are too old to be linked.

Usage: make_tables.py DUMP.json … with names that end in the version, such as dump-1.36.4.json. Refreshed by
hand when Kubernetes has a new minor; ``build.sh`` makes the dumps of the newer ones.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

FLAGS = Path(__file__).parents[3] / "imagegen" / "kubernetes" / "flags.csv"
FIELDS = Path(__file__).with_name("fields.csv")

_TOLERATION = {"default-not-ready-toleration-seconds", "default-unreachable-toleration-seconds"}
#: flags of packages that the judge links in beside kube-proxy; kube-proxy itself does not have them
_STRAY = {"containerd", "containerd-namespace"} | _TOLERATION

#: kube-proxy logs as the others do from here on
_PROXY_LOGGING = "1.28"
#: (component, flag) → a minor in which it was renamed and came back
_GAPS = {("kube-apiserver", "request-timeout"): "1.7", ("kube-proxy", "cleanup-iptables"): "1.8"}


def read_dumps(paths: list[Path]) -> dict[str, dict[str, dict[str, list[object]]]]:
    """Minor → the dump, oldest minor first."""
    dumps = {}
    for path in paths:
        match = re.search(r"(\d+\.\d+)\.\d+\.json$", path.name)
        if match is None:
            raise SystemExit(f"{path}: no version in its name")
        dumps[match.group(1)] = json.loads(path.read_text())
    return dict(sorted(dumps.items(), key=lambda pair: int(pair[0].split(".")[1])))


def span_of(minors: list[str], present: list[str], gap: str = "") -> tuple[str, str]:
    """First and last minor, each empty at the end of what was read; only the minor ``gap`` may lack it."""
    first, last = present[0], present[-1]
    inside = [m for m in minors if minors.index(first) <= minors.index(m) <= minors.index(last)]
    if set(inside) - set(present) - {gap}:
        raise SystemExit(f"gap: {present}")
    return ("" if first == minors[0] else first, "" if last == minors[-1] else last)


def last_run(minors: list[str], present: list[str]) -> list[str]:
    """The minors at the end of ``present`` that follow each other."""
    run = [present[-1]]
    for minor in reversed(present[:-1]):
        if minors.index(minor) != minors.index(run[0]) - 1:
            break
        run.insert(0, minor)
    return run


def is_stray(component: str, name: str) -> bool:
    """Whether the flag belongs to a package that the judge links in, not to the program itself."""
    if "_" in name or name.startswith("cloud-provider-gce-") or name in _TOLERATION:
        return True
    return component == "kube-proxy" and name in _STRAY


def write_flags(dumps: dict[str, dict[str, dict[str, list[object]]]]) -> None:
    minors = list(dumps)
    seen: dict[tuple[str, str], list[str]] = {}
    deprecated: dict[tuple[str, str], list[str]] = {}
    for minor, dump in dumps.items():
        for component, flags in dump["flags"].items():
            for flag in flags:
                assert isinstance(flag, dict)
                name = str(flag["name"]).replace("concurrent_rc_syncs", "concurrent-rc-syncs")
                if is_stray(component, name):
                    continue
                seen.setdefault((component, name), []).append(minor)
                if flag.get("deprecated"):
                    deprecated.setdefault((component, name), []).append(minor)
    # up to 1.34 the API server took them from its process's own flags, which the judge does not see
    seen |= {("kube-apiserver", name): minors for name in _TOLERATION}
    # nor does it link the logger that has these
    for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"):
        for name in ("log-json-info-buffer-size", "log-json-split-stream"):
            first = minors.index(seen.get((component, name), [_PROXY_LOGGING])[0])
            seen[component, name] = minors[first:]
        seen[component, "help"] = minors
    seen["kube-proxy", "version"] = minors
    with FLAGS.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["component", "flag", "first", "last", "deprecated", "withdrawn"])
        for key in sorted(seen):
            warned = deprecated.get(key, [""])
            after = [m for m in seen[key] if warned[0] and minors.index(m) > minors.index(warned[-1])]
            span = span_of(minors, seen[key], _GAPS.get(key, ""))
            writer.writerow([*key, *span, warned[0], after[0] if after else ""])


def write_fields(dumps: dict[str, dict[str, dict[str, list[object]]]]) -> None:
    minors = list(dumps)
    seen: dict[tuple[str, str], list[str]] = {}
    for minor, dump in dumps.items():
        for kind, fields in dump["fields"].items():
            for field in fields:
                seen.setdefault((kind, str(field)), []).append(minor)
    with FIELDS.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["kind", "field", "first", "last"])
        for key in sorted(seen):
            # a field that went away and came back is another field of the same name
            writer.writerow([*key, *span_of(minors, last_run(minors, seen[key]))])


if __name__ == "__main__":
    found = read_dumps([Path(argument) for argument in sys.argv[1:]])
    write_flags(found)
    write_fields(found)
