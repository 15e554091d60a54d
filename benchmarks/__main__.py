"""``python -m benchmarks``: measures, prints a table, writes it beside this file; exit code 1 when a
target is missed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.clusters import write_cluster
from benchmarks.images import measure_images
from benchmarks.process import Cost, run_best, run_measured
from benchmarks.rows import Row, say

HERE = Path(__file__).parent
IMAGEGEN = Path(sys.executable).with_name("imagegen")
SMALL, LARGE = 100, 10_000


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--large", type=int, default=LARGE, help="nodes of the large cluster")
    parser.add_argument("--loop", type=int, default=40, help="nodes of the shell loop")
    parser.add_argument("--only", choices=("text", "images"), help="leave out the other half")
    parser.add_argument(
        "--times", type=int, default=2, help="first builds of an image, of which the best counts"
    )
    parser.add_argument(
        "--write", action="store_true", help="keep the results in benchmarks/results*.json and .md"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagegen-bench-") as folder:
        measured: dict[str, list[Row]] = {}
        if options.only != "images":
            measured["results"] = list(measure_all(Path(folder), options.large, options.loop))
        if options.only != "text":
            measured["results-images"] = list(measure_images(Path(folder) / "images", options.times))
    for name, rows in measured.items():
        text = render_markdown(rows)
        sys.stdout.write(text)
        if options.write and rows:
            (HERE / f"{name}.md").write_text(text)
            facts = {"machine": describe_machine(), "rows": [asdict(row) for row in rows]}
            (HERE / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    missed = [row.name for rows in measured.values() for row in rows if row.is_missed]
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


def measure_all(folder: Path, large: int, loop: int) -> Iterator[Row]:
    """Every row, in the order of the report."""
    yield from measure_commands(folder)
    costs: dict[int, Cost] = {}
    for size in dict.fromkeys((SMALL, large)):
        say(f"seeds of {size:,} nodes")
        costs[size] = measure_seeds(folder / str(size), size)
    yield from report_seeds(costs, large)
    yield from measure_sizes(folder / str(SMALL) / "out/nodes")
    say(f"shell loop over {loop} nodes")
    yield from measure_loop(folder / "loop", loop, costs[large].wall / large)


def measure_commands(folder: Path) -> Iterator[Row]:
    say("short commands")
    version = run_best([IMAGEGEN, "--version"], cwd=folder, times=10)
    yield Row("--version", version.wall * 1000, "ms", 100)
    write_cluster(folder / "fifty.yaml", 50)
    check = run_best([IMAGEGEN, "check", "fifty.yaml"], cwd=folder, times=5)
    yield Row("check of 50 nodes", check.wall, "s", 0.5)


def measure_seeds(folder: Path, size: int) -> Cost:
    """PKI, text and ISOs from nothing, start-up included; small clusters three times, the best counts."""
    folder.mkdir()
    write_cluster(folder / "cluster.yaml", size)
    costs = []
    for _ in range(3 if size <= 1000 else 1):
        for made in ("out", "secrets"):
            shutil.rmtree(folder / made, ignore_errors=True)
        costs.append(run_measured([IMAGEGEN, "--quiet", "seed", "cluster.yaml", "-o", "out"], cwd=folder))
    return min(costs, key=lambda cost: cost.wall)


def report_seeds(costs: dict[int, Cost], large: int) -> Iterator[Row]:
    small, big = costs[SMALL], costs[large]
    yield Row(f"{SMALL} nodes", small.wall, "s", 2)
    yield Row(f"{large:,} nodes", big.wall, "s", 60)
    yield Row(f"{large:,} nodes, processor time", big.cpu, "s")
    yield Row(f"{large:,} nodes, peak memory", big.peak_mib, "MiB", 300)
    yield Row(f"cost a node, {large:,} against {SMALL}", (big.wall / large) / (small.wall / SMALL), "×", 1.3)


def measure_sizes(nodes: Path) -> Iterator[Row]:
    worker = nodes / "worker-0"
    yield Row("worker's seed ISO", (worker / "seed.iso").stat().st_size / 1024, "KiB", 400)
    packed = gzip.compress((worker / "user-data").read_bytes(), mtime=0)
    yield Row("worker's user-data after gzip", len(packed) / 1024, "KiB", 16)


def measure_loop(folder: Path, count: int, ours: float) -> Iterator[Row]:
    if not shutil.which("genisoimage") or not shutil.which("openssl"):
        say("no shell loop: genisoimage and openssl are needed")
        return
    folder.mkdir()
    cost = run_measured([HERE / "shell-loop.sh", str(count)], cwd=folder)
    yield Row("shell loop, a node", cost.wall / count * 1000, "ms")
    yield Row("imagegen, a node", ours * 1000, "ms")
    yield Row("faster than the shell loop", cost.wall / count / ours, "×", 20, at_least=True)


def render_markdown(rows: list[Row]) -> str:
    lines = ["| what | measured | target | |", "|---|---:|---:|---|"]
    for row in rows:
        target = "" if row.target is None else f"{'≥' if row.at_least else '≤'} {row.target:g} {row.unit}"
        verdict = "" if row.target is None else "missed" if row.is_missed else "met"
        lines.append(f"| {row.name} | {row.value:.3g} {row.unit} | {target} | {verdict} |")
    return f"{describe_machine()}\n\n" + "\n".join(lines) + "\n"


def describe_machine() -> str:
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} processors, {system}"


if __name__ == "__main__":
    main()
