"""Completion: scripts that shells accept, and names that come from the cluster file under way."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from imagegen.cli.main import cli
from imagegen.cli.terminal import Terminal
from tests.cli.conftest import Imagegen


def _complete(words: list[str], incomplete: str) -> list[str]:
    shell = ShellComplete(cli, {"obj": Terminal()}, "imagegen", "_IMAGEGEN_COMPLETE")
    return [item.value for item in shell.get_completions(words, incomplete)]


def test_verbs_and_options() -> None:
    assert _complete([], "ch") == ["check"]
    assert "--strict" in _complete(["check"], "--")
    assert _complete(["completion"], "") == ["bash", "zsh", "fish"]
    assert "quickstart" in _complete(["new", "--example"], "")


def test_nodes_and_roles_come_from_the_cluster_file(quickstart: Path) -> None:
    assert _complete(["seed", str(quickstart), "--node"], "w") == ["worker-0", "worker-1"]
    assert _complete(["plan", str(quickstart), "--role"], "") == ["etcd", "master", "worker"]


def test_completion_never_complains(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("[")
    assert _complete(["seed", str(tmp_path / "bad.yaml"), "--node"], "w") == []
    assert _complete(["seed", "--node"], "w") == []


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_accepts_its_script(shell: str, imagegen: Imagegen, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(imagegen("completion", shell).out)
    assert "_IMAGEGEN_COMPLETE" in script.read_text()
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", script], check=True, capture_output=True)
