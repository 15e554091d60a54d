"""The wheel works outside the checkout: it brings its data, its schema and its command."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    script = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, folder], cwd=ROOT, check=True, capture_output=True)
    (made,) = folder.glob("imagegen-*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, and beside it the libraries of this interpreter without the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def _run(environment: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Start imagegen from the unpacked wheel; -I and -S keep the checkout and its .pth file out."""
    script = (
        "import sys\n"
        f"sys.path[:0] = [{str(environment)!r}, {sysconfig.get_path('purelib')!r}]\n"
        "from imagegen.cli.main import main\n"
        "import imagegen\n"
        f"assert imagegen.__file__.startswith({str(environment)!r}), imagegen.__file__\n"
        f"main({list(words)!r})\n"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_data_travels_inside(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("profiles/base.yaml", "examples/quickstart/cluster.yaml", "examples/ha/cluster.yaml"):
        assert f"imagegen/data/{name}" in names
    assert any(name.startswith("imagegen/data/cloud-init/") for name in names)
    assert "imagegen/py.typed" in names
    assert not any("secrets" in name or "__pycache__" in name or name.startswith("tests") for name in names)


def test_the_path_from_new_to_seed(environment: Path, tmp_path: Path) -> None:
    for words in (
        ("--version",),
        ("new", "here"),
        ("check", "here"),
        ("plan", "here", "--node", "worker-0"),
        ("render", "here", "-o", "here/out"),
        ("seed", "here", "-o", "here/out", "--node", "master-0"),
        ("pki", "verify", "here"),
        ("schema",),
    ):
        done = _run(environment, tmp_path, *words)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "here" / "out" / "nodes" / "master-0" / "seed.iso").stat().st_size > 30_000


def test_two_wheels_are_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    script = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={**os.environ, "TZ": "Asia/Kathmandu", "LC_ALL": "C"},
    )
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
