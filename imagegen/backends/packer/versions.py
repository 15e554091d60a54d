"""The two Packers that are served: a current one with plug-ins, and Debian's 1.6.6 with builders inside."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class PackerStyle(enum.StrEnum):
    CURRENT = "current"
    #: 1.6.6, the last free one; Debian 12 has it
    COMPAT = "compat"


#: the old one, and the first that finds the plug-ins which plugins.pkr.hcl pins
OLD = (1, 6, 6)
CURRENT = (1, 14, 0)


def choose_style(version: tuple[int, int, int]) -> PackerStyle | None:
    """What a build is written like for this Packer, or None when there is none for it."""
    if version >= CURRENT:
        return PackerStyle.CURRENT
    return PackerStyle.COMPAT if OLD <= version < (1, 7, 0) else None


#: attributes that Packer 1.6.6 does not know: file → the lines' first words
_NEWER = {
    "googlecompute.pkr.hcl": ("access_token", "image_guest_os_features"),
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
