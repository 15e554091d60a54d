"""Files made to take time or memory: each ends in a few findings within a second and 200 MiB."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.model.texts import BASE, edit

HEAD = BASE.split("nodes:\n  - ")[0]
MANY = 240_000


def network(line: str) -> str:
    return edit(("network:\n", f"network:\n  {line}\n"))


BOMBS = {
    "duplicate keys": BASE + "a: 1\n" * 400_000,
    "tags": "- !x a\n" * 400_000,
    "merges": HEAD + "nodes: [" + "{<<: 1}," * 40_000 + "]\n",
    "unknown keys": BASE + "".join(f"k{n}: 1\n" for n in range(120_000)),
    "words for nodes": HEAD + "nodes: [" + "x," * MANY + "]\n",
    "empty nodes": HEAD + "nodes: [" + "{}," * MANY + "]\n",
    "as many empty nodes as are read": HEAD + "nodes: [" + "{}," * 20_000 + "]\n",
    "as many bad nodes as are read": HEAD + "nodes: [" + "{a: 1, b: 1, c: 1, d: 1}," * 20_000 + "]\n",
    "equal nodes": HEAD + "nodes: [" + "{name: a, roles: [worker], address: 10.240.0.3}," * 10_000 + "]\n",
    "bad name servers": network("nameservers: [" + "x," * MANY + "]"),
    "name servers": network("nameservers: [" + "9.9.9.9," * MANY + "]"),
    "as many name servers as are read": network("nameservers: [" + "9.9.9.9," * 1000 + "]"),
    "profiles": BASE + "profiles: [" + "x," * 1000 + "]\n",
    "roles": BASE.replace("[worker]", "[" + "worker," * MANY + "]"),
    "as many roles as are read": BASE.replace("[worker]", "[" + "worker," * 32 + "]"),
    "flags": edit(
        (
            "  version: 1.36.4",
            "  version: 1.36.4\n  extra_args: {kubelet: {"
            + ",".join(f"k{n}: 1" for n in range(120_000))
            + "}}",
        )
    ),
    "keys": edit(("    - ssh", "    - x\n" * 1000 + "    - ssh")),
    "a long value": edit(("name: demo", "name: " + "x" * 3_900_000)),
    "a long address": edit(("10.240.0.21", "1." * 1_900_000)),
    "a long duration": BASE + "pki: {lifetime: " + "1h" * 1_900_000 + "}\n",
    "a long number": edit(("version: 1\n", f"version: {'1' * 3_900_000}\n")),
    "a long unknown word": network("cni: " + "flannel" * 500_000),
    "a long key": BASE + "? " + "nodes" * 700_000 + "\n: 1\n",
}

SCRIPT = """
    import sys, time
    from pathlib import Path
    from imagegen.diagnostics import Report
    from imagegen.model.load import load_cluster
    report, began = Report(), time.process_time()
    cluster = load_cluster(Path(sys.argv[1]), report)
    text = report.render_text()
    took = time.process_time() - began
    # ru_maxrss would count what the parent had when it forked
    print(took, int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)
    print(report.has_errors and cluster is None, any(finding.span is None for finding in report.findings))
    print(len(report.findings), len(text))
"""


@pytest.mark.process
@pytest.mark.parametrize("name", list(BOMBS))
def test_i3_no_file_takes_long_or_much_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(BOMBS[name])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(path)], capture_output=True, text=True, check=True
    )
    seconds, mib, is_refused, is_lost, count, length = done.stdout.split()
    assert is_refused == "True"
    assert is_lost == "False"
    assert float(seconds) < 1.5  # a second on a machine that does nothing else
    assert int(mib) < 200
    assert int(count) <= 1001
    assert int(length) < 600_000
