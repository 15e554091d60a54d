"""Large files: time and memory stay in proportion. Times are processor times, because machines are shared."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEAD = """\
version: 1
name: big
kubernetes: {version: 1.36.4}
network: {nodes: 10.0.0.0/10, services: 10.64.0.0/16, pods: 10.128.0.0/9}
nodes:
  - {name: etcd-0, roles: [etcd], address: 10.0.0.10}
  - {name: master-0, roles: [master], address: 10.0.0.11}
"""

SCRIPT = """
    import sys, time
    from pathlib import Path
    from imagegen.diagnostics import Report
    from imagegen.model.load import load_cluster
    # ru_maxrss would count what the parent had when it forked
    peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    load_cluster(Path(sys.argv[2]), Report())
    before, began, report = peak(), time.process_time(), Report()
    cluster = load_cluster(Path(sys.argv[1]), report)
    took = time.process_time() - began
    began = time.process_time()
    text = report.render_text()
    print(took, peak() - before, cluster is not None, len(report.findings), time.process_time() - began)
"""


def worker(number: int) -> str:
    high, low = divmod(number, 256)
    address = f"10.{1 + high // 256}.{high % 256}.{low}"
    mac = f"52:54:00:00:{high:02x}:{low:02x}"
    return f'  - {{name: worker-{number}, roles: [worker], address: {address}, mac: "{mac}"}}\n'


def measure(text: str, folder: Path) -> tuple[float, float, bool, int, float]:
    """Seconds, MiB over a small file, whether there is a cluster, findings, seconds to show them."""
    small, large = folder / "small.yaml", folder / "large.yaml"
    small.write_text(HEAD)
    large.write_text(text)
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(large), str(small)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took, mib, good, count, showing = done.stdout.split()
    return float(took), float(mib), good == "True", int(count), float(showing)


@pytest.mark.process
def test_ten_thousand_nodes(tmp_path: Path) -> None:
    text = HEAD + "".join(worker(number) for number in range(10_000))
    took, mib, good, _, _ = measure(text, tmp_path)
    assert good
    assert took < 3
    assert mib < 120


@pytest.mark.process
def test_fifty_nodes(tmp_path: Path) -> None:
    took, _, good, _, _ = measure(HEAD + "".join(worker(number) for number in range(48)), tmp_path)
    assert good
    assert took < 0.1


@pytest.mark.process
@pytest.mark.parametrize(
    ("old", "new"), [("address", "adress"), ("worker-", "Worker_"), (": 10.1.", ": 10.99.")]
)
def test_thirty_thousand_mistakes(old: str, new: str, tmp_path: Path) -> None:
    text = HEAD + "".join(worker(number) for number in range(10_000)).replace(old, new)
    took, mib, good, count, showing = measure(text, tmp_path)
    assert not good
    assert took < 4
    assert showing < 0.5
    assert mib < 150
    assert 100 < count < 1000
