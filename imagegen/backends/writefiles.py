"""One entry of cloud-init's ``write_files``: text stays readable, everything else becomes base64."""

from __future__ import annotations

import base64
import gzip
import re

import yaml

from imagegen.emit import emit_yaml

#: text longer than this is compressed: nobody reads it in place, and seeds travel through small channels
LARGE_BYTES = 32 * 1024

#: What a block scalar cannot carry byte for byte (control characters, CR, NEL, U+2028, U+2029, the byte order
#: mark, a first line that starts with space, more or less than one final line break) or yamllint minds (space
#: at line ends).
_NOT_LITERAL = re.compile(
    "[^\n\t\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
    r"|[ \t]\n|\A[ \t\n]|\n\n\Z|[ \t]\Z"
)
_LINE_START = re.compile(r"(?m)^(?=[^\n])")
_PLAIN = re.compile(r"/[A-Za-z0-9_@/.+=-]*")
_NAME = re.compile(r"[a-z_][a-z0-9_.-]*")


def emit_entry(
    path: str,
    body: bytes,
    *,
    mode: str = "0644",
    owner: str = "root",
    group: str = "root",
    defer: bool = False,
) -> str:
    """The entry as YAML text, a list item at column 0. ``mode`` is four octal digits.

    ``defer`` is for files of users that cloud-init or a package makes later: ``write_files`` runs before them
    and one unknown owner would end the whole module.
    """
    lines = [f"- path: {path if _PLAIN.fullmatch(path) else _scalar(path)}\n", f"  permissions: '{mode}'\n"]
    if (owner, group) != ("root", "root"):
        pair = f"{owner}:{group}"
        lines.append(
            f"  owner: {pair if _NAME.fullmatch(owner) and _NAME.fullmatch(group) else _scalar(pair)}\n"
        )
    if defer:
        lines.append("  defer: true\n")
    lines.append(_emit_body(body))
    return "".join(lines)


def _scalar(text: str) -> str:
    if "\n" in text:  # a block scalar would need the indentation of its place
        quoted: str = yaml.safe_dump(text, default_style='"', width=2**31 - 1, allow_unicode=True)
        return quoted.rstrip("\n")
    return emit_yaml({"k": text})[3:].rstrip("\n")


def _emit_body(body: bytes) -> str:
    if not body:
        return "  content: ''\n"
    text = _decode_literal(body)
    if text is not None:
        head = "  content: |" if text.endswith("\n") else "  content: |-"
        # an empty line carries no indentation
        indented = _LINE_START.sub("    ", text.removesuffix("\n"))
        return f"{head}\n{indented}\n"
    packed = gzip.compress(body, compresslevel=9, mtime=0) if len(body) > 1024 else body
    if len(packed) < len(body) * 9 // 10:
        return f"  encoding: gz+b64\n  content: {base64.b64encode(packed).decode()}\n"
    return f"  encoding: b64\n  content: {base64.b64encode(body).decode()}\n"


def _decode_literal(body: bytes) -> str | None:
    """The text when a block scalar carries it unchanged, else None."""
    if len(body) > LARGE_BYTES:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if _NOT_LITERAL.search(text) else text
