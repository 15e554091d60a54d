"""Runs Packer: verified parts in place, a throw-away key in a private folder, the image into OUT.

A build that fails leaves no machine and no image, only two logs that say why.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagegen.backends.image.layers import default_layer_root, hash_inputs
from imagegen.backends.output import OutputFolder
from imagegen.backends.packer.folder import BUILDERS, PackerFolder
from imagegen.backends.packer.versions import CURRENT, OLD, PackerStyle, choose_style
from imagegen.errors import ImagegenError, MissingToolError, UsageError
from imagegen.fetch import FetchResult
from imagegen.fetch.images import parse_reference
from imagegen.kubernetes.releases import Part
from imagegen.model.cluster import Target
from imagegen.plan.parts import make_download
from imagegen.progress import SILENT, Progress
from imagegen.run import Background, CommandError, Runner, Tool, ending_with_us, find_tool

TOOLS = (
    Tool(
        name="packer",
        package="packer",
        purpose="build images with Packer (or a newer one from its maker)",
        version_arguments=("version",),
    ),
    Tool(
        name="ssh-keygen",
        package="openssh-client",
        purpose="make the throw-away key of a Packer build",
        version_arguments=("-?",),
    ),
    Tool(
        name="ssh", package="openssh-client", purpose="test the finished machine", version_arguments=("-V",)
    ),
)

#: an installer over a slow line, in emulation
_TIMEOUT_SECONDS = 4 * 3600.0
_LOG = "packer.log"
_CONSOLE = "console.log"
#: where a builder's image is, below its output folder; None where it stays in the cloud
_RESULTS = {
    "qemu": "qcow2",
    "virtualbox-iso": "ova",
    "virtualbox-ovf": "ova",
    "vmware-iso": "ova",
    "vmware-vmx": "ova",
    "googlecompute": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackerJob:
    """What to run. ``builder`` as in ``qemu.cloud``; ``variables`` win over everything that imagegen says."""

    builder: str
    variables: Mapping[str, str]
    out: Path
    cluster: str
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PackerResult:
    """``path`` below OUT, or None when the image is in a cloud: then ``manifest`` says where."""

    roles: str
    path: str | None
    size_bytes: int
    manifest: Path | None = None


def choose_builder(wanted: str | None, targets: Sequence[Target]) -> str:
    """The builder by name, or the first of the cluster's targets; raises UsageError for an unknown one."""
    known = [builder for target in targets for builder in BUILDERS[target]]
    if wanted is None:
        return known[0]
    if wanted not in known:
        raise UsageError(
            f"there is no builder {wanted!r} for the targets of this cluster",
            hint=f"one of: {', '.join(known)}; other targets are added in the cluster file",
        )
    return wanted


#: what Packer (its root path, its list of CD files, its templates) or QEMU's options read as their own
_UNFIT = re.compile(r"[\\*?\[\],]|\{\{")


def check_place(out: Path) -> None:
    """Raise UsageError for an output folder whose path Packer cannot be given."""
    found = _UNFIT.search(str(out.absolute()))
    if found is not None:
        raise UsageError(
            f"Packer cannot build in {out.absolute()}: {found[0]} in a path means something to it",
            hint="choose another folder with -o OUT",
        )


def read_style(runner: Runner) -> PackerStyle:
    """Which Packer is installed, by what it says of itself.

    Raises MissingToolError when it is one that no build is written for.
    """
    done = runner.run(
        ["packer", "version"], env=_make_environment(), keep=_list_passed(), timeout=60, check=False
    )
    found = re.search(r"Packer v(\d+)\.(\d+)\.(\d+)", done.stdout)
    if found is None:
        raise MissingToolError(
            f"{find_tool('packer')} is not HashiCorp's Packer: it does not say its version",
            hint="cracklib has a program of this name, too; put Packer before it on PATH",
        )
    style = choose_style((int(found[1]), int(found[2]), int(found[3])))
    if style is None:
        raise MissingToolError(
            f"Packer {'.'.join(found.groups())} is installed; wanted {'.'.join(map(str, OLD))} or, for the "
            f"pinned plug-ins, {'.'.join(map(str, CURRENT))} or newer",
            hint="install another, and put it first on PATH",
        )
    return style


#: what Packer and its plug-ins may be told through the environment
_PASSED = ("PACKER_", "PKR_VAR_", "GOOGLE_", "CLOUDSDK_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def _list_passed() -> list[str]:
    """The names alone: their values may be tokens."""
    return [name for name in os.environ if name.upper().startswith(_PASSED)]


def _make_environment() -> dict[str, str]:
    """Base images are cached beside our own downloads; nobody is asked whether there is a newer Packer."""
    cache = os.environ.get("PACKER_CACHE_DIR") or str(default_layer_root().with_name("packer"))
    return {"PACKER_CACHE_DIR": cache, "CHECKPOINT_DISABLE": "1", "PACKER_NO_COLOR": "1"}


def put_downloads(
    folder: OutputFolder,
    build: PackerFolder,
    parts: Mapping[tuple[str, str], Part],
    result: FetchResult,
    checksums: Mapping[str, str],
) -> None:
    """Stage ``downloads/`` of one build: parts by SHA-256, container images by digest."""
    sources: dict[str, Path] = {}
    for binary in build.payload.binaries:
        part = result.of(make_download(parts[binary.part, binary.version]))
        sources[part.sha256] = part.path
    for image in build.payload.images:
        reference = parse_reference(image.reference)
        digest = checksums.get(reference.download.url) or reference.digest
        sources[f"{digest}.tar"] = result.images[image.reference].path
    for name, source in sorted(sources.items()):
        path = f"{build.path}/downloads/{name}"
        if folder.keep(path, name):
            continue
        with folder.make_file(path, inputs=name) as target:
            shutil.copyfile(source, target)


def run_packer(
    runner: Runner,
    build: PackerFolder,
    job: PackerJob,
    style: PackerStyle,
    progress: Progress = SILENT,
) -> PackerResult:
    """Build the image of one set of roles into ``OUT/images``.

    Raises ImagegenError that names the logs when Packer fails; then there is no machine and no new image.
    """
    place = job.out / build.path
    name = build.role_plan.name
    kind = _RESULTS[job.builder.partition(".")[0]]
    with OutputFolder(job.out, cluster=job.cluster, force=job.force) as folder, _private_folder() as work:
        runner.run(["sh", str(place / "new-key.sh"), str(work)], timeout=60)
        if style is PackerStyle.CURRENT:
            with progress.step("plug-ins of Packer"):
                _bring_plugins(runner, place)
        # in the staging folder: whatever ends us, nothing of it stays
        output = folder.staging.absolute() / "packer"
        argv = [*ending_with_us("TERM"), *_list_arguments(place, job, work, output)]
        with progress.step(f"{name} by {job.builder}"), _telling(place, work):
            _watch(runner.start(argv, output=work / _LOG, env=_make_environment(), keep=_list_passed()))
            image = None if kind is None else _find_image(output, kind)
        if image is None:
            kept = _keep_manifest(output, place)
            return PackerResult(roles=name, path=None, size_bytes=0, manifest=kept)
        path = f"images/{job.cluster}-{name}.{kind}"
        inputs = hash_inputs({"packer": job.builder, "files": _digest_files(build)})
        with folder.make_file(path, inputs=inputs) as target:
            image.rename(target)
        folder.commit(lambda path: False)
    return PackerResult(roles=name, path=path, size_bytes=(job.out / path).stat().st_size)


def _bring_plugins(runner: Runner, place: Path) -> None:
    """What is installed in the pinned version is not downloaded again."""
    try:
        runner.run(["packer", "init", str(place)], env=_make_environment(), keep=_list_passed(), timeout=900)
    except CommandError as error:
        raise ImagegenError(
            f"Packer has not got its plug-ins: {error}",
            hint=f"see {place / 'plugins.pkr.hcl'}; 'packer plugins install --path FILE' needs no network",
        ) from error


def _watch(packer: Background) -> None:
    """Wait for Packer's end; whatever ends us ends Packer and its machine, too."""
    try:
        status = packer.wait(_TIMEOUT_SECONDS)
    finally:
        packer.end(patience=30.0)
    if status is None:
        raise ImagegenError(f"it took longer than {_TIMEOUT_SECONDS / 3600:g} hours")
    if status != 0:
        raise ImagegenError(_find_reason(packer.output.read_text(encoding="utf-8", errors="replace")))


def _digest_files(build: PackerFolder) -> list[str]:
    return sorted(f"{path} {hash_inputs({'body': body.hex()})}" for path, body in build.files.items())


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """For the key: nobody else looks in, and it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="imagegen-packer-") as name:
        yield Path(name)


def _list_arguments(place: Path, job: PackerJob, work: Path, output: Path) -> list[str]:
    argv = ["packer", "build", "-color=false", "-timestamp-ui", f"-only=*.{job.builder}"]
    if _RESULTS[job.builder.partition(".")[0]] is not None:
        argv += ["-except=compress"]  # images are as those of a direct build
    values = {
        "work": str(work),
        "output": str(output),
        "pytest": shlex.join([sys.executable, "-m", "pytest"]),
        **job.variables,
    }
    for name, value in values.items():
        argv += ["-var", f"{name}={value}"]
    return [*argv, str(place)]


@contextlib.contextmanager
def _telling(place: Path, work: Path) -> Iterator[None]:
    """On failure, keep the logs in the build's own work folder, which git ignores, and say so."""
    try:
        yield
    except ImagegenError as error:
        kept = place / "work"
        kept.mkdir(mode=0o700, exist_ok=True)
        found = []
        for name in (_LOG, _CONSOLE):
            if (work / name).exists():
                shutil.copyfile(work / name, kept / name)
                found.append(str(kept / name))
        where = f"read {' and '.join(found)}" if found else "run it with --verbose"
        raise ImagegenError(f"Packer built no image: {error}", hint=where) from error


def _keep_manifest(output: Path, place: Path) -> Path:
    """Packer's own manifest in the build's work folder, which git ignores."""
    kept = place / "work" / "manifest.json"
    kept.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(next(output.glob("*.manifest.json")), kept)
    return kept


def _find_reason(text: str) -> str:
    """The lines of Packer's output that say why, at most fifteen: those marked as errors, else the end."""
    lines = [line for line in text.splitlines() if line.strip()]
    marked = [
        line for line in lines if re.search(r"[Ee]rror|imagegen: |FAILED|[Tt]imeout|Permission denied", line)
    ]
    return "\n".join(["", *(marked or lines)[-15:]])


def _find_image(output: Path, kind: str) -> Path:
    found = sorted(output.glob(f"*/*.{kind}"))
    if len(found) != 1:
        raise ImagegenError(f"Packer said it was done, but made {len(found)} files *.{kind}")
    return found[0]
