"""Encryption at rest: age files for the private half of the secret store. Needs the package pyrage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagegen.errors import ImagegenError, MissingToolError


def _import_pyrage() -> Any:
    try:
        import pyrage  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingToolError(
            "the secret store is encrypted with age, but the Python package pyrage is not installed",
            hint="pip install 'imagegen[age]'",
        ) from error
    return pyrage


def _parse_lines(text: str, native: Callable[[str], Any], ssh: Callable[[str], Any], what: str) -> list[Any]:
    """One key a line, comments left out. The offending line is not shown: it may be an identity."""
    out = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            out.append((ssh if line.startswith("ssh-") else native)(line))
        except Exception as error:  # pyrage raises classes of its own per key kind
            raise ImagegenError(f"line {number} of the age {what} file is not a valid {what}") from error
    if not out:
        raise ImagegenError(f"the age {what} file names no {what}")
    return out


class Sealer:
    """Encrypts to ``recipients`` (text of a recipients file), decrypts with the keys in ``identity_file``."""

    def __init__(self, recipients: str, identity_file: Path | None) -> None:
        self._recipients_text = recipients
        self._identity_file = identity_file
        self._recipients: list[Any] | None = None
        self._identities: list[Any] | None = None

    def seal(self, plain: bytes) -> bytes:
        """``plain`` as a binary age file; raises ImagegenError when a recipient cannot be read."""
        pyrage = _import_pyrage()
        if self._recipients is None:
            self._recipients = _parse_lines(
                self._recipients_text,
                pyrage.x25519.Recipient.from_str,
                pyrage.ssh.Recipient.from_str,
                "recipient",
            )
        sealed: bytes = pyrage.encrypt(plain, self._recipients)
        return sealed

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """The content of the age file ``name``; raises ImagegenError without a fitting identity."""
        pyrage = _import_pyrage()
        if self._identities is None:
            self._identities = self._read_identities(name, pyrage)
        try:
            plain: bytes = pyrage.decrypt(sealed, self._identities)
        except Exception as error:
            raise ImagegenError(
                f"cannot decrypt {name}: {error}",
                hint=f"is {self._identity_file} the identity it was sealed to?",
            ) from error
        return plain

    def _read_identities(self, name: str, pyrage: Any) -> list[Any]:
        if self._identity_file is None:
            raise ImagegenError(
                f"{name} is encrypted with age and no identity was given",
                hint="set IMAGEGEN_AGE_IDENTITY to the path of your age identity file",
            )
        try:
            text = self._identity_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ImagegenError(
                f"cannot read the age identity file {self._identity_file}: {error}"
            ) from error
        if text.startswith("-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(text.encode())]
        return _parse_lines(
            text, pyrage.x25519.Identity.from_str, pyrage.x25519.Identity.from_str, "identity"
        )
