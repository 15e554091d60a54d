"""What a run is to bring: everything of some versions, or what certain clusters need and no more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from imagegen.diagnostics import Report
from imagegen.errors import UsageError
from imagegen.kubernetes.releases import Part, Releases, load_releases
from imagegen.model.load import load_cluster
from imagegen.model.version import Version, parse_version
from imagegen.plan.build import build_plan
from imagegen.plan.parts import list_images
from imagegen.plan.parts import list_parts as list_planned_parts
from imagegen.plan.profiles import load_profiles
from mirror.build import list_parts
from mirror.debian_kubernetes import BINARIES
from mirror.debian_kubernetes import VERSION as DEBIAN_VERSION
from mirror.podimages import CONTROL_PLANE
from mirror.recipe import KUBERNETES_VERSIONS

#: images that we can make, by their name in the catalogue
IMAGES = ("pause", "coredns", "flannel", "metrics-server", *CONTROL_PLANE)
EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart" / "cluster.yaml"


@dataclass(slots=True)
class Selection:
    """Parts and images by what identifies them, in the order in which they are made."""

    parts: dict[str, Part] = field(default_factory=dict)
    images: dict[str, tuple[str, Releases]] = field(default_factory=dict)

    def add_version(self, text: str) -> None:
        """Every part and image that clusters of one Kubernetes version may need; raises UsageError."""
        releases = load_releases(_parse(text))
        for part in list_parts([text]):
            self.parts.setdefault(part.url, part)
        for name in IMAGES:
            # an add-on of old versions is no Go module of its own yet
            if name != "metrics-server" or text in KUBERNETES_VERSIONS:
                self.images.setdefault(releases.image(name), (name, releases))

    def add_cluster(self, path: Path) -> None:
        """What the nodes of one cluster need; raises UsageError when its file is wrong."""
        report = Report()
        cluster = load_cluster(path, report)
        plan = build_plan(cluster, load_profiles(cluster.profile_dirs, report), report) if cluster else None
        if cluster is None or plan is None:
            raise UsageError(f"{path}: {report.render_text()}")
        releases = load_releases(cluster.kubernetes.version)
        for part in list_planned_parts(plan):
            self.parts.setdefault(part.url, part)
        for reference in list_images(plan):
            for name in IMAGES:
                if releases.image(name) == reference:
                    self.images.setdefault(reference, (name, releases))


def select(purpose: str, versions: Iterable[str] = (), clusters: Iterable[Path] = ()) -> Selection:
    """``versions`` and ``clusters``, or what ``purpose`` stands for: ``all``, ``demo`` or ``tests``."""
    selection = Selection()
    wanted, files = list(versions), list(clusters)
    if not wanted and not files:
        if purpose == "demo":
            files = [EXAMPLE]
        elif purpose == "tests":
            wanted = [str(read_example_version()), DEBIAN_VERSION]
        else:
            wanted = [*KUBERNETES_VERSIONS, DEBIAN_VERSION]
    for version in wanted:
        selection.add_version(version)
    for path in files:
        selection.add_cluster(path)
    return selection


def read_example_version() -> Version:
    """The Kubernetes version of the quickstart, which the demo and the tests boot."""
    cluster = load_cluster(EXAMPLE, Report())
    if cluster is None:
        raise UsageError(f"{EXAMPLE} is not a cluster file")
    return cluster.kubernetes.version


def is_from_debian(part: Part) -> bool:
    """Whether Debian's packages hold exactly this version of the part."""
    if part.name in BINARIES:
        return part.version == load_releases(parse_version(DEBIAN_VERSION)).version(part.name)
    return part.version == DEBIAN_VERSION


def _parse(text: str) -> Version:
    try:
        return parse_version(text)
    except ValueError as error:
        raise UsageError(str(error)) from error
