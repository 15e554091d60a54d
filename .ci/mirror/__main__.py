"""``python -m mirror``: fill a mirror."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from imagegen.kubernetes.releases import Part, load_releases
from imagegen.model.version import parse_version
from imagegen.run import Runner
from mirror.build import Maker, ModuleMaker, Workshop, list_parts
from mirror.debian import DebianArchive
from mirror.debian_kubernetes import RELEASES as DEBIAN_RELEASES
from mirror.debian_kubernetes import VERSION as DEBIAN_VERSION
from mirror.debian_kubernetes import DebianMaker, list_debian_parts
from mirror.gomodules import GoBuilder
from mirror.layout import Mirror
from mirror.podimages import FIREWALL_SUITE, PodImages
from mirror.recipe import KUBERNETES_VERSIONS

_CACHE = Path.home() / ".cache" / "imagegen"


def main() -> int:
    parser = argparse.ArgumentParser(prog="mirror", description=__doc__)
    parser.add_argument("--to", type=Path, default=_CACHE / "mirror", help="the mirror's folder")
    parser.add_argument("--work", type=Path, default=_CACHE / "mirror-build", help="where sources are built")
    parser.add_argument(
        "--kubernetes", action="append", metavar="VERSION", help="instead of the pinned versions"
    )
    parser.add_argument(
        "--part", action="append", metavar="NAME", help="only these parts; image-NAME for an image"
    )
    parser.add_argument("--jobs", type=int, default=2, help="parallel compilations")
    parser.add_argument("--verbose", action="store_true", help="show every command")
    options = parser.parse_args()
    runner = Runner(log=lambda line: print(f"  {line}", file=sys.stderr) if options.verbose else None)
    work: Path = options.work.absolute()
    shop = Workshop(
        mirror=Mirror(options.to.absolute()), say=lambda line: print(line, file=sys.stderr, flush=True)
    )
    debian = DebianArchive(runner=runner, work=work)
    modules = ModuleMaker(go=GoBuilder(runner=runner, work=work, jobs=options.jobs), debian=debian)
    packages = DebianMaker(runner=runner, debian=debian, work=work, jobs=options.jobs)
    versions = options.kubernetes or [*KUBERNETES_VERSIONS, DEBIAN_VERSION]
    jobs: list[tuple[Part, Maker]] = [
        (part, modules) for part in list_parts(v for v in versions if v != DEBIAN_VERSION)
    ]
    if DEBIAN_VERSION in versions:
        jobs += [(part, packages) for part in list_debian_parts()]
    firewall = DebianArchive(runner=runner, work=work, suite=FIREWALL_SUITE)
    images = PodImages(runner=runner, go=modules.go, firewall=firewall, packages=packages, mirror=shop.mirror)
    with shop.mirror.lock():
        for part, maker in jobs:
            if not options.part or part.name in options.part:
                shop.add(part, maker)
        for version in versions:
            is_debian = version == DEBIAN_VERSION
            releases = DEBIAN_RELEASES if is_debian else load_releases(parse_version(version))
            for name in ("pause",) if is_debian else ("pause", "coredns", "flannel"):
                if not options.part or f"image-{name}" in options.part:
                    shop.add_image(name, releases, images)
    done = shop.outcome
    print(f"made {len(done.made)}, already there {len(done.found)}, missed {len(done.missed)}: {options.to}")
    for label, reason in done.missed.items():
        print(f"  missed {label}: {reason.splitlines()[-1].strip()}")
    return 0 if done.made or done.found else 1


if __name__ == "__main__":
    sys.exit(main())
