"""Writes flags.csv of the package, and fields.csv beside this file, from what ``main.go dump`` printed.

Usage: make_tables.py DUMP.json … with names that end in the version, such as dump-1.36.4.json. Refreshed by
hand when Kubernetes has a new minor; ``build.sh`` makes the dumps.
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


def read_dumps(paths: list[Path]) -> dict[str, dict[str, dict[str, list[object]]]]:
    """Minor → the dump, oldest minor first."""
    dumps = {}
    for path in paths:
        match = re.search(r"(\d+\.\d+)\.\d+\.json$", path.name)
        if match is None:
            raise SystemExit(f"{path}: no version in its name")
        dumps[match.group(1)] = json.loads(path.read_text())
    return dict(sorted(dumps.items(), key=lambda pair: int(pair[0].split(".")[1])))


def span_of(minors: list[str], present: list[str]) -> tuple[str, str]:
    """First and last minor, each empty at the end of what was read."""
    first, last = present[0], present[-1]
    inside = [m for m in minors if minors.index(first) <= minors.index(m) <= minors.index(last)]
    if inside != present:
        raise SystemExit(f"gap: {present}")
    return ("" if first == minors[0] else first, "" if last == minors[-1] else last)


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
                name = str(flag["name"])
                if is_stray(component, name):
                    continue
                seen.setdefault((component, name), []).append(minor)
                if flag.get("deprecated"):
                    deprecated.setdefault((component, name), []).append(minor)
    # up to 1.34 the API server took them from its process's own flags, which the judge does not see
    seen |= {("kube-apiserver", name): minors for name in _TOLERATION}
    with FLAGS.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["component", "flag", "first", "last", "deprecated"])
        for key in sorted(seen):
            since = deprecated.get(key, [""])[0]
            writer.writerow([*key, *span_of(minors, seen[key]), since])


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
            writer.writerow([*key, *span_of(minors, seen[key])])


if __name__ == "__main__":
    found = read_dumps([Path(argument) for argument in sys.argv[1:]])
    write_flags(found)
    write_fields(found)
