"""The typed exceptions that cross rooms. Only ``cli`` turns them into exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagegen.diagnostics import Report


class ImagegenError(Exception):
    """Something failed; the message says what was wanted and what was got. Exit code 1.

    ``hint`` is one line that says what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(ImagegenError):
    """The user's input is wrong; ``report`` holds every finding. Exit code 2."""

    exit_code = 2

    def __init__(self, report: Report) -> None:
        super().__init__("the input has errors")
        self.report = report


class UsageError(ImagegenError):
    """The command line asks for what cannot be done (no such node, output is a file). Exit code 2."""

    exit_code = 2


class MissingToolError(ImagegenError):
    """A program that the work needs is not installed; the hint names its package. Exit code 3."""

    exit_code = 3
