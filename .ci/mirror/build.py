"""Fills a mirror part by part; what cannot be had is noted, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from imagegen.kubernetes.releases import KUBERNETES_PARTS, Part, Releases, known_parts, load_releases
from imagegen.model.version import parse_version
from imagegen.run import CommandError
from mirror.debian import DebianArchive
from mirror.gomodules import GoBuilder, Unavailable
from mirror.images import add_image, has_image
from mirror.layout import Mirror, make_stage, pack_part
from mirror.podimages import PodImages
from mirror.recipe import find_recipe


class Maker(Protocol):
    """Makes parts in one way. Raises Unavailable and CommandError."""

    def make(self, part: Part) -> tuple[Path, str]:
        """The finished file, and what it was made from."""
        ...


@dataclass(slots=True)
class Outcome:
    """What a run made, found and missed; ``missed`` maps a part to the reason."""

    made: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    missed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Brings parts into ``mirror``. ``say`` gets one line for each that was not there."""

    mirror: Mirror
    say: Callable[[str], None]
    outcome: Outcome = field(default_factory=Outcome)

    def add(self, part: Part, maker: Maker) -> None:
        """Bring one part into the mirror, unless it is there."""

        def make() -> None:
            source, origin = maker.make(part)
            self.mirror.add(part, source, origin)

        self._work(f"{part.name} {part.version}", self.mirror.has(part), make)

    def add_image(self, name: str, releases: Releases, images: PodImages) -> None:
        """Bring one container image into the mirror, unless it is there."""
        reference, origin = releases.image(name), images.origin(name, releases)
        self._work(
            f"image {reference}",
            has_image(self.mirror, reference, origin),
            lambda: add_image(self.mirror, images.make(name, releases), origin),
        )

    def _work(self, label: str, is_there: bool, make: Callable[[], None]) -> None:
        if is_there:
            self.outcome.found.append(label)
            return
        start = time.monotonic()
        try:
            make()
        except (Unavailable, CommandError) as error:
            # the same reason again is told once, with all that it keeps away
            if str(error) not in self.outcome.missed.values():
                self.say(f"{label}: not to be had: {error}")
            self.outcome.missed[label] = str(error)
            return
        self.outcome.made.append(label)
        self.say(f"{label}: {time.monotonic() - start:.0f} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleMaker:
    """Builds parts from published Go modules."""

    go: GoBuilder
    debian: DebianArchive

    def make(self, part: Part) -> tuple[Path, str]:
        recipe = find_recipe(part)
        if recipe is None:
            raise Unavailable("no package registry has its source")
        stage = make_stage(self.go.work, part)
        members: list[tuple[str, Path]] = []
        for member, program in recipe.programs:
            target = stage / program.name
            self.go.download(program.module)
            self.go.build(program, target, self._seccomp() if program.cgo else None)
            members.append((member, target))
        for member, module, path in recipe.files:
            members.append((member, self.go.download(module) / path))
        return pack_part(part, stage, members), recipe.origin

    def _seccomp(self) -> dict[str, str]:
        """Where the C compiler finds libseccomp: unpacked from Debian's package instead of installed."""
        root = self.debian.unpack("libseccomp-dev")
        libraries = root / "usr/lib/x86_64-linux-gnu"
        return {
            "PKG_CONFIG": "true",
            "CGO_CFLAGS": f"-O2 -I{root / 'usr/include'}",
            "CGO_LDFLAGS": f"-L{libraries} -lseccomp",
        }


def list_parts(versions: Iterable[str]) -> list[Part]:
    """What clusters of these Kubernetes versions may need, each part once, Kubernetes first."""
    parts: dict[str, Part] = {}
    for version in versions:
        releases = load_releases(parse_version(version))
        names = [*KUBERNETES_PARTS, *(name for name in known_parts() if name not in KUBERNETES_PARTS)]
        for name in names:
            part = releases.part(name)
            parts.setdefault(part.url, part)
    return list(parts.values())
