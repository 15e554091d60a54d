"""Shows a lab coming up: a live table on a terminal, a line for every step elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING

from imagegen.cli.progressview import _has_screen

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from imagegen.cli.terminal import Terminal
    from imagegen.lab.watch import Watch

#: without a terminal, a sign of life is printed no less often than this
_LINE_SECONDS = 60.0


class LabView:
    """Listens to a ``Watch``; a context manager that takes the table off the screen at the end."""

    def __init__(self, terminal: Terminal, nodes: Collection[str] | None = None) -> None:
        """``nodes``: those to tell about; None means all."""
        self._terminal = terminal
        self._nodes = nodes
        self._live: Live | None = None
        self._told: set[tuple[str, str]] = set()
        self._last_line = time.monotonic()

    def __enter__(self) -> LabView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def on_change(self, watch: Watch) -> None:
        """Show how far the lab is."""
        if self._terminal.quiet:
            return
        if _has_screen():
            self._draw(watch)
        else:
            self._tell(watch)

    def _draw(self, watch: Watch) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, no_color=not self._terminal.has_color(sys.stderr))
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(make_table(watch), refresh=True)

    def _tell(self, watch: Watch) -> None:
        for node in watch.nodes.values():
            if self._nodes is not None and node.name not in self._nodes:
                continue
            for event, seconds in node.times.items():
                if (node.name, event.value) not in self._told:
                    self._told.add((node.name, event.value))
                    self._say(f"{seconds:6.1f} s  {node.name}: {event.value}")
        if self._nodes is None and watch.api_seconds is not None and ("", "ready") not in self._told:
            self._told.add(("", "ready"))
            self._say(f"{watch.api_seconds:6.1f} s  the API server is ready")
        if time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._say(f"{watch.seconds:6.1f} s  …")

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._terminal.say(text)


def make_table(watch: Watch) -> Table:
    """The nodes as a table for a terminal."""
    from rich.table import Table

    from imagegen.lab.timeline import list_headings, list_rows

    title = f"{watch.lab.cluster.name}: {watch.seconds:.0f} s"
    if watch.api_seconds is not None:
        title += f", API after {watch.api_seconds:.0f} s"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in list_headings():
        is_time = heading not in ("node", "roles", "phase")
        table.add_column(heading, justify="right" if is_time else "left", overflow="fold")
    for node, row in zip(watch.nodes.values(), list_rows(watch.nodes.values()), strict=True):
        style = "red" if node.trouble else "green" if node.is_complete else ""
        table.add_row(*row, style=style)
    return table
