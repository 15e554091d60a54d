"""Writes programs.csv beside this file: every flag that the programs of some versions print.

Usage: record.py SOURCE …, where SOURCE is ``dump-VERSION.json`` (of ``build.sh``), or a folder of programs as
a mirror has it, whose ``--help`` is read: …/release/vVERSION/bin/linux/amd64. ``--help`` hides some flags.
A cell is empty for a flag that the version does not have, ``yes`` when it has it, ``deprecated`` when it says
so. Versions that are not given keep their column.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

from make_tables import is_stray

RECORD = Path(__file__).with_name("programs.csv")
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet")

#: (component, flag) → cell
Flags = dict[tuple[str, str], str]


def read_dump(path: Path) -> Flags:
    """The flags that ``main.go dump`` printed."""
    flags = json.loads(path.read_text())["flags"]
    return {
        (component, flag["name"].replace("_rc_", "-rc-")): "deprecated" if flag.get("deprecated") else "yes"
        for component in COMPONENTS
        for flag in flags[component]
    }


def read_help(folder: Path) -> Flags:
    """The flags in ``--help`` of the programs in a folder."""
    found: Flags = {}
    for component in COMPONENTS:
        done = subprocess.run([folder / component, "--help"], capture_output=True, text=True, check=True)
        heads = list(re.finditer(r"^ +(?:-\w, )?--([a-z0-9_-]+)", done.stdout, re.MULTILINE))
        for head, after in zip(heads, [*heads[1:], None], strict=False):
            text = done.stdout[head.start() : after.start() if after else None]
            found[component, head[1].replace("_", "-")] = "deprecated" if "(DEPRECATED: " in text else "yes"
    return found


def read_record() -> dict[str, Flags]:
    """Version → its flags, as recorded; empty when there is no record."""
    if not RECORD.exists():
        return {}
    with RECORD.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    versions = [name for name in rows[0] if name not in ("component", "flag")]
    return {v: {(r["component"], r["flag"]): r[v] for r in rows if r[v]} for v in versions}


def write_record(record: dict[str, Flags]) -> None:
    versions = sorted(record, key=lambda version: [int(part) for part in version.split(".")])
    with RECORD.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["component", "flag", *versions])
        for key in sorted({key for flags in record.values() for key in flags}):
            writer.writerow([*key, *(record[version].get(key, "") for version in versions)])


if __name__ == "__main__":
    record = read_record()
    for source in map(Path, sys.argv[1:]):
        match = re.search(r"\d+\.\d+\.\d+", source.name if source.is_file() else source.parts[-4])
        if match is None:
            raise SystemExit(f"{source}: no version in its name")
        flags = read_dump(source) if source.is_file() else read_help(source)
        linked = source.is_file()
        record[match.group()] = {k: cell for k, cell in flags.items() if not (linked and is_stray(*k))}
    write_record(record)
