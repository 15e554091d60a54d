"""A status file of dpkg, what it says, and package lists as apt keeps them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from imagegen.backends.image.debianpackages import DebianPackage

STATUS = """\
Package: zlib1g
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Maintainer: Mark Brown <broonie@debian.org>
Homepage: http://zlib.net/
Source: zlib
Version: 1:1.3.dfsg+really1.3.1-1+b1
Description: compression library
 Version: of the description, not of the package

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: adduser
Status: hold ok installed
Architecture: all
Version: 3.152
Conffiles:
 /etc/adduser.conf 00000000000000000000000000000000
"""
PACKAGES = (
    DebianPackage(name="adduser", version="3.152", architecture="all"),
    DebianPackage(
        name="zlib1g",
        version="1:1.3.dfsg+really1.3.1-1+b1",
        architecture="amd64",
        maintainer="Mark Brown <broonie@debian.org>",
        homepage="http://zlib.net/",
        source="zlib",
    ),
)


def make_stanza(name: str, version: str, architecture: str, digest: str) -> str:
    return (
        f"Package: {name}\nVersion: {version}\nInstalled-Size: 1\nArchitecture: {architecture}\n"
        f"Depends: libc6 (>= 2.14)\nFilename: pool/main/{name}.deb\nSHA256: {digest * 64}\n"
        "Description: a package\n Package: of the description\n"
    )


def write_lists(path: Path, *stanzas: str) -> Path:
    """As a base layer keeps them: one list among files that are none."""
    with tarfile.open(path, "w") as archive:
        for name, text in (("_InRelease", "Package: no list\n"), ("_Packages", "\n".join(stanzas))):
            info = tarfile.TarInfo(f"var/lib/apt/lists/example_dists_trixie{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path
