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

#: Packer, its plug-ins as packer/plugins.pkr.hcl pins them, and a reader of HCL
MODULES = {
    "packer": ("github.com/hashicorp/packer", "v1.16.0"),
    "googlecompute": ("github.com/hashicorp/packer-plugin-googlecompute", "v1.2.7"),
    "qemu": ("github.com/hashicorp/packer-plugin-qemu", "v1.1.4"),
    "virtualbox": ("github.com/hashicorp/packer-plugin-virtualbox", "v1.1.5"),
    "vmware": ("github.com/vmware/packer-plugin-vmware", "v2.1.0"),
    "hcl2json": ("github.com/tmccombs/hcl2json", "v0.6.8"),
}
_PROGRAMS = ("packer", "hcl2json")
HOME = CACHE / "packer-1.16.0"


@dataclass(frozen=True, kw_only=True)
class Packer:
    """One Packer that is ready to run."""

    style: PackerStyle
    program: Path
    env: Mapping[str, str]

    def run(
        self, *arguments: str | Path, cwd: Path, timeout: float = 600
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
    if missing := [part for part in MODULES if not _has(part)]:
        raise Unavailable(
            f"no current {' and '.join(missing)} in {HOME}; python -m tests.judges.packers builds what is "
            "missing, in up to twelve minutes"
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
            if _has(part):
                continue
            if part in _PROGRAMS:
                _build(part, HOME / part, Path(name))
            else:
                program = Path(name) / f"packer-plugin-{part}"
                _build(part, program, Path(name))
                _install(part, program)


def find_plugin(part: str) -> str:
    """How required_plugins names the source of a plug-in."""
    owner, _, name = MODULES[part][0].rpartition("/")
    return f"{owner}/{name.removeprefix('packer-plugin-')}"


def _has(part: str) -> bool:
    if part in _PROGRAMS:
        return (HOME / part).exists()
    return any(HOME.glob(f"plugins/{find_plugin(part)}/packer-plugin-{part}_{MODULES[part][1]}_*_SHA256SUM"))


def _build(part: str, program: Path, work: Path) -> None:
    module, version = MODULES[part]
    print(f"building {module}@{version}", flush=True)
    source = work / part
    _copy_source(module, version, source)
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


def _copy_source(module: str, version: str, source: Path) -> None:
    """Their go.mod files replace modules, which `go install` refuses: so a copy of the source. Proxies do not
    serve all of these versions.
    """
    found = subprocess.run(
        ["go", "mod", "download", "-json", f"{module}@{version}"], capture_output=True, cwd=source.parent
    )
    if found.returncode != 0:
        clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", version, f"https://{module}"]
        subprocess.run([*clone, source], check=True)
        return
    shutil.copytree(json.loads(found.stdout)["Dir"], source)
    for path in [source, *source.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)


def _install(part: str, program: Path) -> None:
    subprocess.run(
        [HOME / "packer", "plugins", "install", "--path", program, find_plugin(part)],
        check=True,
        env=os.environ | {"CHECKPOINT_DISABLE": "1", "PACKER_PLUGIN_PATH": str(HOME / "plugins")},
    )


if __name__ == "__main__":
    build_all(sys.argv[1:] or MODULES)
