"""Builds programs out of published Go modules by the ordinary ``go`` client, each in a scratch module."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagegen.run import Runner


class Unavailable(Exception):
    """Something cannot be had on this machine; the message says what and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoModule:
    """``version`` with its ``v``."""

    path: str
    version: str

    def __str__(self) -> str:
        return f"{self.path}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoProgram:
    """``package`` is the import path; ``variables`` are set with ``-X``; ``cgo`` links C in statically.

    ``without`` are imports that are taken out of the package's ``main.go``, where they only register
    something and need modules that cannot be had. ``instead`` are newer modules to take for those that
    today's compiler breaks.
    """

    module: GoModule
    package: str
    name: str
    variables: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ("netgo", "osusergo")
    cgo: bool = False
    without: tuple[str, ...] = ()
    instead: tuple[GoModule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GoBuilder:
    """``work`` holds the scratch modules and Go's caches, so that an interrupted build goes on where it was.

    The caches are its own: Kubernetes grows the user's by many GB, and nobody would look for them there.
    """

    runner: Runner
    work: Path
    jobs: int = 2
    #: why no module can be had, as the first answer said; empty as long as some can
    out_of_reach: list[str] = field(default_factory=list)
    downloaded: set[str] = field(default_factory=set)

    @property
    def build_cache(self) -> Path:
        return self.work / "go-build"

    def remove_caches(self) -> None:
        """Empty Go's caches of compiled packages and of sources."""
        if shutil.which("go") is not None and (self.work / "go-mod").exists():
            self.runner.run(["go", "clean", "-modcache"], cwd=self._folder("download"), env=self._env())
        shutil.rmtree(self.build_cache, ignore_errors=True)

    def download(self, module: GoModule) -> Path:
        """The unpacked source of a module; raises Unavailable."""
        if shutil.which("go") is None:
            raise Unavailable("go is not installed (https://go.dev/doc/install, 1.26 or newer)")
        if self.out_of_reach:
            raise Unavailable(f"Go modules are out of reach: {self.out_of_reach[0]}")
        done = self.runner.run(
            ["go", "mod", "download", "-json", str(module)],
            cwd=self._folder("download"),
            env=self._env(),
            check=False,
        )
        if done.returncode != 0:
            reason = read_go_error(done.stdout, done.stderr)
            if not self.downloaded and _is_about_the_way(reason):
                self.out_of_reach.append(reason)
            raise Unavailable(f"{module}: {reason}")
        self.downloaded.add(str(module))
        return Path(json.loads(done.stdout)["Dir"])

    def build(self, program: GoProgram, target: Path, env: Mapping[str, str] | None = None) -> None:
        """Build one static program into ``target``; raises Unavailable and CommandError."""
        scratch = self._prepare_copy(program) if program.without else self._prepare(program)
        flags = ["-s", "-w", *(f"-X {name}={value}" for name, value in program.variables)]
        if program.cgo:
            flags.append("-extldflags=-static")
        argv = [
            "nice",
            "-n",
            "10",
            "go",
            "build",
            "-p",
            str(self.jobs),
            "-trimpath",
            "-ldflags",
            " ".join(flags),
        ]
        argv += ["-tags", ",".join(program.tags), "-o", str(target), program.package]
        self.runner.run(
            argv, cwd=scratch, env=self._env() | {"CGO_ENABLED": str(int(program.cgo))} | dict(env or {})
        )

    def _prepare(self, program: GoProgram) -> Path:
        module = program.module
        source = self.download(module)
        scratch = self._folder(str(module).replace("/", "_"))
        done = self.runner.run(
            ["go", "mod", "edit", "-json", str(source / "go.mod")], cwd=scratch, env=self._env()
        )
        text = render_scratch_module(module, json.loads(done.stdout), program.instead)
        if not (scratch / "go.mod").is_file():
            shutil.copyfile(source / "go.sum", scratch / "go.sum")
            (scratch / "go.mod").write_text(text, "utf-8")
        return scratch

    def _prepare_copy(self, program: GoProgram) -> Path:
        """A changed copy of the module's own source; it is built as if it were checked out."""
        source = self.download(program.module)
        scratch = self._folder(f"{program.module}-changed".replace("/", "_"))
        shutil.rmtree(scratch)
        shutil.copytree(source, scratch, copy_function=shutil.copyfile)
        for folder in (scratch, *(p for p in scratch.rglob("*") if p.is_dir())):
            # the module cache is read-only
            folder.chmod(0o755)
        main = scratch / "main.go"
        lines = main.read_text("utf-8").splitlines(keepends=True)
        unwanted = {f'_ "{name}"' for name in program.without}
        kept = [line for line in lines if line.strip() not in unwanted]
        if len(lines) - len(kept) != len(unwanted):
            raise Unavailable(f"{program.module}: main.go does not import {', '.join(program.without)}")
        main.write_text("".join(kept), "utf-8")
        return scratch

    def _folder(self, name: str) -> Path:
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _env(self) -> dict[str, str]:
        """The user's own settings of the Go client and of proxies, and what the build needs."""
        names = ("http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")
        kept = {k: v for k, v in os.environ.items() if k.startswith("GO") or k in names or k.lower() in names}
        return kept | {
            "GOFLAGS": "-mod=mod -buildvcs=false",
            "GOWORK": "off",
            "GOTOOLCHAIN": "local",
            "GOCACHE": str(self.build_cache),
            "GOMODCACHE": str(self.work / "go-mod"),
        }


def _is_about_the_way(reason: str) -> bool:
    """Whether go could not ask at all; asking for the next module would only take as long again."""
    signs = ("GOPROXY=off", "dial tcp", "no such host", "i/o timeout", "connection refused", "TLS handshake")
    return any(sign in reason for sign in signs)


def render_scratch_module(
    module: GoModule, described: Mapping[str, object], instead: Sequence[GoModule] = ()
) -> str:
    """A ``go.mod`` that requires ``module`` and resolves it as its own ``go.mod`` would in its repository.

    ``described`` is ``go mod edit -json`` of that file. A module that lives in the same repository is
    replaced there by a local folder; here it is required by version instead. Kubernetes publishes its staging
    folders as v0.MINOR.PATCH.
    """
    requires: list[dict[str, str]] = described.get("Require") or []  # type: ignore[assignment]
    replaces: list[dict[str, dict[str, str]]] = described.get("Replace") or []  # type: ignore[assignment]
    staged = {r["Old"]["Path"] for r in replaces if r["New"]["Path"].startswith("./staging/")}
    staged_version = f"v0.{module.version.removeprefix('v1.')}"
    lines = ["module mirror.invalid/build", "", f"go {described['Go']}", "", "require ("]
    lines.append(f"\t{module.path} {module.version}")
    for require in requires:
        version = staged_version if require["Path"] in staged else require["Version"]
        lines.append(f"\t{require['Path']} {version}")
    lines += [")", "", "replace ("]
    lines += [f"\t{path} => {path} {staged_version}" for path in sorted(staged)]
    lines += [f"\t{newer.path} => {newer.path} {newer.version}" for newer in instead]
    for replace in replaces:
        old, new = replace["Old"], replace["New"]
        if "Version" in new:
            left = f"{old['Path']} {old['Version']}" if "Version" in old else old["Path"]
            lines.append(f"\t{left} => {new['Path']} {new['Version']}")
    return "\n".join([*lines, ")", ""])


def read_go_error(stdout: str, stderr: str) -> str:
    """Why ``go mod download -json`` failed: the error it describes in JSON, else its last words."""
    try:
        reason = str(json.loads(stdout)["Error"])
    except (ValueError, KeyError, TypeError):
        reason = stderr
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return lines[-1] if lines else "go mod download failed"
