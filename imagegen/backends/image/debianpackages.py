"""What dpkg and apt know of installed Debian packages: their own fields, and the sums of their files.

A root knows what is installed but not the file it came from; the package lists that it was installed by do.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

#: dpkg's status and the sums of installed packages, in a layer
STATUS, SUMS = "dpkg-status", "package-sums"
#: raised when the same packages give another file of sums
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackage:
    """One installed package, as dpkg knows it. ``source`` is the source package and, where it differs, its
    version in parentheses; empty where it has the name of the package. ``sha256`` is that of the file that it
    came from; empty where that is not known.
    """

    name: str
    version: str
    architecture: str
    maintainer: str = ""
    homepage: str = ""
    source: str = ""
    sha256: str = ""

    @property
    def identity(self) -> str:
        """What the archive has one file of: ``NAME_VERSION_ARCHITECTURE``."""
        return f"{self.name}_{self.version}_{self.architecture}"


def parse_dpkg_status(text: str) -> tuple[DebianPackage, ...]:
    """The installed packages of ``/var/lib/dpkg/status`` (deb-control(5)), sorted by name."""
    stanzas = map(_parse_stanza, text.split("\n\n"))
    found = [_make_package(stanza) for stanza in stanzas if stanza.get("Status", "").endswith(" installed")]
    return tuple(sorted(found, key=lambda package: (package.name, package.architecture)))


def _parse_stanza(text: str) -> dict[str, str]:
    """Fields of one line; what goes on in the next line is no part of a value here."""
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and line[:1] != " ")


def _make_package(fields: Mapping[str, str]) -> DebianPackage:
    return DebianPackage(
        name=fields["Package"],
        version=fields["Version"],
        architecture=fields["Architecture"],
        maintainer=fields.get("Maintainer", ""),
        homepage=fields.get("Homepage", ""),
        source=fields.get("Source", ""),
    )


def save_sums(layer: Path, lists: Iterable[Path]) -> None:
    """Write into ``layer`` the sums of the packages that its dpkg status names, a line each like sha256sum.

    ``lists`` are tar archives of ``/var/lib/apt/lists``. A package that none of them has, or that two of them
    give different sums, gets none.
    """
    packages = parse_dpkg_status((layer / STATUS).read_text(encoding="utf-8"))
    wanted = {package.identity for package in packages}
    names = {package.name.encode() for package in packages}
    found: dict[str, set[str]] = {}
    for fields in _read_lists(lists, names):
        identity = _make_package(fields).identity
        if identity in wanted and "SHA256" in fields:
            found.setdefault(identity, set()).add(fields["SHA256"])
    rows = [f"{sums.pop()}  {identity}\n" for identity, sums in sorted(found.items()) if len(sums) == 1]
    (layer / SUMS).write_text("".join(rows), encoding="utf-8")


def _read_lists(lists: Iterable[Path], names: set[bytes]) -> Iterator[dict[str, str]]:
    """The stanzas of packages with these names; ``Package`` comes first (Debian's repository format)."""
    head = b"Package: "
    for archive in lists:
        with tarfile.open(archive) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.name.endswith("_Packages") else None
                for stanza in stream.read().split(b"\n\n") if stream else ():
                    if stanza.startswith(head) and stanza[len(head) : stanza.find(b"\n")] in names:
                        yield _parse_stanza(stanza.decode())


def read_packages(layer: Path) -> tuple[DebianPackage, ...]:
    """The installed packages of a layer with the sums that ``save_sums`` found, sorted by name."""
    lines = (layer / SUMS).read_text(encoding="utf-8").splitlines()
    sums = {identity: digest for digest, _, identity in (line.partition("  ") for line in lines)}
    packages = parse_dpkg_status((layer / STATUS).read_text(encoding="utf-8"))
    return tuple(replace(package, sha256=sums.get(package.identity, "")) for package in packages)
