"""Debian packages without installing them and without root: downloaded with lists of our own, then unpacked.

The archive is the one that the machine's own apt configuration names.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from imagegen.run import CommandError, Runner, find_tool
from mirror.gomodules import Unavailable

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianArchive:
    """One suite; ``work`` keeps its lists and what was downloaded."""

    runner: Runner
    work: Path
    suite: str = "bookworm"

    def unpack(self, *packages: str) -> Path:
        """A folder with the files of binary packages, without their dependencies; raises Unavailable."""
        root = self.work / self.suite / ("unpacked-" + "+".join(packages))
        if (root / ".complete").exists():
            return root
        root.mkdir(parents=True, exist_ok=True)
        self._apt("download", *packages, cwd=root)
        for package in sorted(root.glob("*.deb")):
            self.runner.run(["dpkg", "-x", str(package), str(root)])
        (root / ".complete").touch()
        return root

    def unpack_source(self, package: str) -> Path:
        """The folder of a source package, patched as Debian builds it; raises Unavailable."""
        root = self.work / self.suite / f"source-{package}"
        if (root / ".complete").exists():
            return next(p for p in root.iterdir() if p.is_dir())
        root.mkdir(parents=True, exist_ok=True)
        self._apt("source", "--only-source", package, cwd=root)
        (root / ".complete").touch()
        return next(p for p in root.iterdir() if p.is_dir())

    def _apt(self, *arguments: str, cwd: Path) -> None:
        if find_tool("apt-get") is None or not _KEYRING.is_file():
            raise Unavailable("this is not a Debian machine, so Debian's packages are out of reach")
        options = self._prepare_lists()
        try:
            self.runner.run(["apt-get", *options, *arguments], cwd=cwd, env=_proxies())
        except CommandError as error:
            raise Unavailable(
                f"{' '.join(arguments)} from {self.suite}: {str(error).splitlines()[-1].strip()}"
            ) from error

    def _prepare_lists(self) -> list[str]:
        state = self.work / self.suite / "apt"
        for name in ("lists/partial", "cache/archives/partial", "empty"):
            (state / name).mkdir(parents=True, exist_ok=True)
        sources = state / "sources.list"
        options = [
            f"Dir::Etc::SourceList={sources}",
            f"Dir::Etc::SourceParts={state / 'empty'}",
            f"Dir::State::Lists={state / 'lists'}",
            f"Dir::Cache={state / 'cache'}",
            "APT::Architecture=amd64",
            "APT::Get::List-Cleanup=false",
            "APT::Sandbox::User=",
        ]
        argv = [word for option in options for word in ("-o", option)]
        if not (state / "complete").exists():
            line = f"[signed-by={_KEYRING}] {find_archive()} {self.suite} main"
            sources.write_text(f"deb {line}\ndeb-src {line}\n", "utf-8")
            try:
                self.runner.run(["apt-get", *argv, "update"], env=_proxies())
            except CommandError as error:
                raise Unavailable(
                    f"the lists of Debian {self.suite}: {str(error).splitlines()[-1].strip()}"
                ) from error
            (state / "complete").touch()
        return argv


def find_archive(folder: Path = Path("/etc/apt")) -> str:
    """The address of the Debian archive in apt's own sources; raises Unavailable.

    Read from the files, because ``apt-get indextargets`` is silent until lists were downloaded.
    """
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for path in files:
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
        if path.suffix == ".sources":
            found = re.findall(r"^URIs:(.*)$", text, re.MULTILINE)
        else:
            found = re.findall(r"^deb(?:\s+\[[^\]]*\])?\s+(\S+)", text, re.MULTILINE)
        for address in " ".join(found).split():
            if address.rstrip("/").endswith("/debian"):
                return address
    raise Unavailable("apt's sources name no Debian archive")


def _proxies() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.lower() in {"http_proxy", "https_proxy", "no_proxy"}}
