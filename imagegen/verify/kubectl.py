"""kubectl as the checks of a running cluster use it: objects in and out, and ports forwarded for a while."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagegen.errors import ImagegenError
from imagegen.run import Completed, Runner, Tool

KUBECTL = Tool(
    name="kubectl",
    package="kubernetes-client",
    purpose="ask the cluster's API",
    version_arguments=("version", "--client"),
)
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")
_FORWARD_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """``program`` with its kubeconfig. ``namespace`` goes with every command."""

    runner: Runner
    program: str
    kubeconfig: Path
    namespace: str = "default"

    def argv(self, *words: str) -> list[str]:
        head = [self.program, "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace]
        return [*head, *words]

    def run(self, *words: str, stdin: bytes | None = None, timeout: float = 60.0) -> Completed:
        """Raises CommandError with what kubectl said, MissingToolError."""
        return self.runner.run(self.argv(*words), stdin=stdin, timeout=timeout)

    def get(self, *words: str) -> Any:
        """What ``kubectl get`` finds, parsed."""
        return json.loads(self.run("get", *words, "--output", "json").stdout)

    def apply(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Create or change objects. kubectl does not look at them first: a slow server takes longer to
        describe its whole API than kubectl waits.
        """
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "--validate=false", "--filename", "-", stdin=json.dumps(body).encode())

    @contextlib.contextmanager
    def forward(self, target: str, port: int) -> Iterator[int]:
        """The port of 127.0.0.1 that leads to ``port`` of ``target`` (``pod/NAME``) inside the block."""
        with tempfile.TemporaryDirectory() as name:
            output = Path(name) / "output"
            argv = self.argv("port-forward", target, f":{port}", "--address", "127.0.0.1")
            background = self.runner.start(argv, output=output)
            try:
                deadline = time.monotonic() + _FORWARD_SECONDS
                while (match := _FORWARDING.search(output.read_text(encoding="utf-8"))) is None:
                    if background.poll() is not None or time.monotonic() >= deadline:
                        raise ImagegenError(f"port-forward to {target}: {background.last_lines(3)}")
                    time.sleep(0.05)
                yield int(match[1])
            finally:
                background.end()
