"""What can go wrong in the lab, typed."""

from __future__ import annotations

from imagegen.errors import ImagegenError


class LabError(ImagegenError):
    """The lab cannot do what was asked; the message says what and the hint where to look."""


class BootFailureError(LabError):
    """A machine panicked, fell into emergency mode, ended or took too long; the message holds its last
    lines.
    """
