"""Runs a Python program on nodes over ssh, as root by sudo: in the lab, or wherever the cluster is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagegen.run import Runner, Tool

SSH = Tool(name="ssh", package="openssh-client", purpose="look at the nodes", version_arguments=("-V",))

_PROGRAM_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShell:
    """``words`` are those of ssh(1) before the command, by node: ``("-F", "ssh_config", "worker-0")``."""

    runner: Runner
    words: Mapping[str, tuple[str, ...]]

    def _argv(self, node: str, *command: str) -> list[str]:
        return [SSH.name, "-o", "BatchMode=yes", *self.words[node], "--", "sudo", "-n", *command]

    def run_python(self, node: str, program: str) -> str:
        """What a program writes that runs there as root. Raises CommandError with what ssh or it said."""
        argv = self._argv(node, "python3", "-")
        return self.runner.run(argv, stdin=program.encode(), timeout=_PROGRAM_SECONDS).stdout

    def run_script(self, node: str, script: str) -> str:
        """What a shell script writes that runs there as root. Raises CommandError."""
        argv = self._argv(node, "/bin/sh", "-s")
        return self.runner.run(argv, stdin=script.encode(), timeout=_PROGRAM_SECONDS).stdout


def list_words(
    address: str, *, user: str, key: Path | None = None, config: Path | None = None
) -> tuple[str, ...]:
    """The words of ssh for a node at ``address``."""
    words = ["-F", str(config)] if config is not None else []
    words += ["-i", str(key), "-o", "IdentitiesOnly=yes"] if key is not None else []
    return (*words, "-o", "ConnectTimeout=15", "-o", "StrictHostKeyChecking=accept-new", "-l", user, address)
