"""Brings the Packers that judge our builds: Debian's 1.6.6, and a current one with its plug-ins.

The current one is built from Go modules by ``python -m tests.judges.packers``, which takes twelve minutes on
two cores: too long for a test, so without it in the cache the old one judges alone and the tests say so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagegen.backends.packer.versions import PackerStyle
from tests.judges.tools import CACHE, Unavailable, unpack_package

#: the newest of each that the Go module proxy serves in one piece
MODULES = {
    "packer": ("github.com/hashicorp/packer", "v1.16.0"),
    "googlecompute": ("github.com/hashicorp/packer-plugin-googlecompute", "v1.2.7"),
    "qemu": ("github.com/hashicorp/packer-plugin-qemu", "v1.0.9"),
    "virtualbox": ("github.com/hashicorp/packer-plugin-virtualbox", "v1.0.4"),
    "vmware": ("github.com/hashicorp/packer-plugin-vmware", "v1.2.0"),
    "hcl2json": ("github.com/tmccombs/hcl2json", "v0.6.8"),
}
HOME = CACHE / "packer-1.16.0"


@dataclass(frozen=True, kw_only=True)
class Packer:
    """One Packer that is ready to run."""

    style: PackerStyle
    program: Path
    env: Mapping[str, str]

    def run(
        self, *arguments: str | Path, cwd: Path, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.program), *map(str, arguments)],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": str(cwd), "LC_ALL": "C.UTF-8", **self.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


def acquire_packer(style: PackerStyle) -> Packer:
    """Raises Unavailable with the reason."""
    quiet = {"CHECKPOINT_DISABLE": "1", "PACKER_NO_COLOR": "1"}
    if style is PackerStyle.COMPAT:
        program = unpack_package("bookworm", "packer") / "usr/bin/packer"
        return Packer(style=style, program=program, env=quiet)
    if not (HOME / "packer").exists():
        raise Unavailable(
            f"no current Packer in {HOME}; python -m tests.judges.packers builds it, in about twelve minutes"
        )
    return Packer(
        style=style, program=HOME / "packer", env=quiet | {"PACKER_PLUGIN_PATH": str(HOME / "plugins")}
    )


def acquire_hcl2json() -> Path:
    program = HOME / "hcl2json"
    if not program.exists():
        raise Unavailable(f"no hcl2json in {HOME}; python -m tests.judges.packers builds it")
    return program


def build_all(names: Iterable[str] = MODULES) -> None:
    """Build what is missing, one program after the other; needs Go and the module proxy."""
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="packers-") as name:
        for part in names:
            if part in ("packer", "hcl2json"):
                if not (HOME / part).exists():
                    _build(part, HOME / part, Path(name))
            elif not any(HOME.glob(f"plugins/github.com/hashicorp/{part}/*")):
                program = Path(name) / f"packer-plugin-{part}"
                _build(part, program, Path(name))
                _install(part, program)


def _build(part: str, program: Path, work: Path) -> None:
    module, version = MODULES[part]
    print(f"building {module}@{version}", flush=True)
    found = subprocess.run(
        ["go", "mod", "download", "-json", f"{module}@{version}"], check=True, capture_output=True, cwd=work
    )
    # their go.mod files replace modules, which `go install` refuses: so from a copy of the source
    source = work / part
    shutil.copytree(json.loads(found.stdout)["Dir"], source)
    for path in [source, *source.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)
    # a plug-in that calls itself a development version cannot be installed
    flags = f"-s -w -X {module}/version.VersionPrerelease="
    partial = program.with_suffix(".partial")
    subprocess.run(
        ["nice", "-n", "19", "go", "build", "-trimpath", "-ldflags", flags, "-o", partial, "."],
        check=True,
        cwd=source,
        env=os.environ | {"CGO_ENABLED": "0"},
    )
    partial.rename(program)
    shutil.rmtree(source)


def _install(part: str, program: Path) -> None:
    subprocess.run(
        [HOME / "packer", "plugins", "install", "--path", program, f"github.com/hashicorp/{part}"],
        check=True,
        env=os.environ | {"CHECKPOINT_DISABLE": "1", "PACKER_PLUGIN_PATH": str(HOME / "plugins")},
    )


if __name__ == "__main__":
    build_all(sys.argv[1:] or MODULES)
