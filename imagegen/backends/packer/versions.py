"""The two Packers that are served: a current one with plug-ins, and Debian's 1.6.6 with builders inside."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class PackerStyle(enum.StrEnum):
    CURRENT = "current"
    #: 1.6.6, the last free one; Debian 12 has it
    COMPAT = "compat"


#: attributes that Packer 1.6.6 does not know: file → the lines' first words
_NEWER = {
    "googlecompute.pkr.hcl": ("image_guest_os_features",),
}


def adapt_hcl(texts: Mapping[str, str], style: PackerStyle) -> dict[str, str]:
    """The HCL files for one of the two; for 1.6.6 without plug-ins and without newer attributes."""
    if style is PackerStyle.CURRENT:
        return dict(texts)
    return {
        name: _drop_lines(text, _NEWER.get(name, ()))
        for name, text in texts.items()
        if name != "plugins.pkr.hcl"
    }


def _drop_lines(text: str, words: tuple[str, ...]) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if line.split(" =")[0].strip() not in words)
