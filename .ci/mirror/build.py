"""Builds the parts of the catalogue one by one; what cannot be had is noted and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from imagegen.kubernetes.releases import KUBERNETES_PARTS, Part, known_parts, load_releases
from imagegen.model.version import parse_version
from imagegen.run import CommandError
from mirror.debian import DebianArchive
from mirror.gomodules import GoBuilder, Unavailable
from mirror.layout import Mirror, write_archive
from mirror.recipe import Recipe, find_recipe


@dataclass(slots=True)
class Outcome:
    """What a run made, found and missed; ``missed`` maps a part to the reason."""

    made: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    missed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Everything a build needs. ``say`` gets one line a part."""

    mirror: Mirror
    go: GoBuilder
    debian: DebianArchive
    say: Callable[[str], None]
    outcome: Outcome = field(default_factory=Outcome)

    def add(self, part: Part) -> None:
        """Bring one part into the mirror, unless it is there."""
        label = f"{part.name} {part.version}"
        if self.mirror.has(part):
            self.outcome.found.append(label)
            return
        recipe = find_recipe(part)
        if recipe is None:
            self._miss(label, "no package registry has its source")
            return
        start = time.monotonic()
        try:
            self.mirror.add(part, self._make(part, recipe), recipe.origin)
        except (Unavailable, CommandError) as error:
            self._miss(label, str(error))
            return
        self.outcome.made.append(label)
        self.say(f"{label}: {time.monotonic() - start:.0f} s")

    def _miss(self, label: str, reason: str) -> None:
        self.outcome.missed[label] = reason
        self.say(f"{label}: not to be had: {reason}")

    def _make(self, part: Part, recipe: Recipe) -> Path:
        stage = self.go.work / "stage" / f"{part.name}-{part.version}"
        stage.mkdir(parents=True, exist_ok=True)
        members: list[tuple[str, Path]] = []
        for member, program in recipe.programs:
            target = stage / program.name
            self.go.build(program, target, self._seccomp() if program.cgo else None)
            members.append((member, target))
        for member, module, path in recipe.files:
            members.append((member, self.go.download(module) / path))
        if part.kind == "raw":
            return members[0][1]
        archive = stage / part.file_name
        order = {member: position for position, member in enumerate(part.members)}
        write_archive(archive, sorted(members, key=lambda entry: order[entry[0]]))
        return archive

    def _seccomp(self) -> dict[str, str]:
        """Where the C compiler finds libseccomp, unpacked from Debian's package instead of installed."""
        root = self.debian.unpack("libseccomp-dev")
        libraries = root / "usr/lib/x86_64-linux-gnu"
        return {
            "PKG_CONFIG": "true",
            "CGO_CFLAGS": f"-O2 -I{root / 'usr/include'}",
            "CGO_LDFLAGS": f"-L{libraries} -lseccomp",
        }


def list_parts(versions: Iterable[str]) -> list[Part]:
    """Every part that clusters of these Kubernetes versions may need, each once, Kubernetes itself first."""
    parts: dict[str, Part] = {}
    for version in versions:
        releases = load_releases(parse_version(version))
        names = [*KUBERNETES_PARTS, *(name for name in known_parts() if name not in KUBERNETES_PARTS)]
        for name in names:
            part = releases.part(name)
            parts.setdefault(part.url, part)
    return list(parts.values())
