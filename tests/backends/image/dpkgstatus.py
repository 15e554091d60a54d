"""A status file of dpkg, and what it says."""

from __future__ import annotations

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
