"""What people see: data on stdout, talk on stderr, colours and progress where they can be shown."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from imagegen.cli.progressview import ProgressView
    from imagegen.diagnostics import Report
    from imagegen.progress import Progress

_COLORS = {"error": "31;1", "warning": "33;1", "note": "36;1", "help": "32", "place": "1", "dim": "2"}
_HEAD = re.compile(r"^(?P<place>\S.*?: )?(?P<severity>error|warning|note)(?P<code>\[IMG\d+\])?: ", re.M)
#: for a stderr that cannot show them
_PLAIN = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "…": "...", "→": "->"})
_HELP = re.compile(r"^  = (help|also): ", re.M)


@dataclass(slots=True)
class Terminal:
    """The two streams and how much to say on them."""

    quiet: bool = False
    verbose: bool = False
    color: str = "auto"
    _view: ProgressView | None = field(default=None, repr=False)

    def data(self, text: str) -> None:
        """The result that was asked for, as it is, to stdout."""
        sys.stdout.write(text)

    def say(self, text: str) -> None:
        """One remark to stderr, unless ``--quiet``."""
        if not self.quiet:
            self.say_always(text)

    def detail(self, text: str) -> None:
        """One remark to stderr with ``--verbose`` only."""
        if self.verbose:
            self.say_always(text)

    def say_always(self, text: str) -> None:
        self._pause()
        if not (sys.stderr.encoding or "").lower().startswith("utf"):
            text = text.translate(_PLAIN)
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def error(self, message: str, hint: str | None = None) -> None:
        """An error that belongs to no place in a file."""
        from imagegen.diagnostics import printable

        text = "error: " + "\n".join(printable(line) for line in message.splitlines())
        if hint:
            text += f"\n  = help: {printable(hint)}"
        self.say_always(self.paint_findings(text, sys.stderr))

    def show_report(self, report: Report, *, to_stdout: bool = False) -> None:
        """All findings as text; errors are shown even with ``--quiet``, warnings are not."""
        if self.quiet and not report.has_errors:
            return
        stream = sys.stdout if to_stdout else sys.stderr
        text = self.paint_findings(report.render_text(), stream)
        if text:
            self._pause()
            stream.write(text)
            stream.flush()

    def paint(self, text: str, style: str, stream: TextIO | None = None) -> str:
        """``text`` in a style of ``_COLORS`` when ``stream`` (stderr) shows colours."""
        if not self.has_color(stream or sys.stderr):
            return text
        return f"\x1b[{_COLORS[style]}m{text}\x1b[0m"

    def paint_findings(self, text: str, stream: TextIO) -> str:
        if not self.has_color(stream):
            return text

        def paint_head(match: re.Match[str]) -> str:
            severity = match["severity"]
            head = self.paint(f"{severity}{match['code'] or ''}", severity, stream)
            return f"{self.paint(match['place'] or '', 'place', stream) if match['place'] else ''}{head}: "

        painted = _HEAD.sub(paint_head, text)
        return _HELP.sub(lambda m: f"  = {self.paint(m[1], 'help', stream)}: ", painted)

    def has_color(self, stream: TextIO) -> bool:
        """``--color`` decides; auto means a terminal that is not dumb, and no NO_COLOR."""
        if self.color != "auto":
            return self.color == "always"
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def progress(self) -> Progress:
        """Where long work reports what it does."""
        from imagegen.progress import SILENT, Progress

        if self.quiet:
            return SILENT
        from imagegen.cli.progressview import ProgressView

        self._view = ProgressView(self)
        return Progress(self._view.on_event)

    def close(self) -> None:
        self._pause()

    def _pause(self) -> None:
        if self._view is not None:
            self._view.stop()
