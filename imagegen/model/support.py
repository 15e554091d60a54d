"""Which minors exist, and what this release can render. The one place to widen when a release learns more."""

from __future__ import annotations

#: every Kubernetes minor that the model knows (major 1)
KNOWN_MINORS = range(6, 38)

#: the minors whose flags, configuration files and add-ons this release renders
RENDERED_MINORS = range(6, 38)

#: older minors are rendered whole, too, but their programs were never at hand to boot a cluster of them
FIRST_BOOTED_MINOR = 20
