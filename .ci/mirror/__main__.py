"""``python -m mirror``: fill a mirror."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from imagegen.errors import ImagegenError
from imagegen.run import Runner
from mirror.build import ModuleMaker, Workshop
from mirror.debian import DebianArchive
from mirror.debian_kubernetes import DebianMaker
from mirror.gomodules import GoBuilder
from mirror.layout import Mirror
from mirror.podimages import FIREWALL_SUITE, PodImages
from mirror.selection import Selection, is_from_debian, select

_CACHE = Path.home() / ".cache" / "imagegen"


def main() -> int:
    options = _parse_arguments()
    try:
        selection = select(options.purpose, options.kubernetes, options.cluster)
    except ImagegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    work: Path = options.work.absolute()
    shop = Workshop(
        mirror=Mirror(options.to.absolute()), say=lambda line: print(line, file=sys.stderr, flush=True)
    )
    if options.plan:
        return _show(shop, selection)
    runner = Runner(log=lambda line: print(f"  {line}", file=sys.stderr) if options.verbose else None)
    go = GoBuilder(runner=runner, work=work, jobs=options.jobs)
    with shop.mirror.lock():
        _fill(shop, selection, go, set(options.part))
        if not options.keep_caches:
            go.remove_caches()
    done = shop.outcome
    print(f"made {len(done.made)}, already there {len(done.found)}, missed {len(done.missed)}: {options.to}")
    for reason in dict.fromkeys(done.missed.values()):
        labels = [label for label, other in done.missed.items() if other == reason]
        print(f"  missed {', '.join(labels)}: {reason.splitlines()[-1].strip()}")
    if done.missed and options.strict:
        return 1
    return 0 if done.made or done.found else 1


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mirror", description=__doc__)
    parser.add_argument("--to", type=Path, default=_CACHE / "mirror", help="the mirror's folder")
    parser.add_argument("--work", type=Path, default=_CACHE / "mirror-build", help="where sources are built")
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=("all", "demo", "tests"),
        default="all",
        help="all: two minors and 1.20.2; demo: what the quickstart needs; tests: its version and 1.20.2",
    )
    parser.add_argument(
        "--kubernetes", action="append", default=[], metavar="VERSION", help="all parts of this version"
    )
    parser.add_argument(
        "--cluster", action="append", default=[], type=Path, metavar="FILE", help="what this cluster needs"
    )
    parser.add_argument(
        "--part",
        action="append",
        default=[],
        metavar="NAME",
        help="of these, only NAME; image-NAME for an image",
    )
    parser.add_argument(
        "--plan", action="store_true", help="say what is missing, make nothing; 1 when some is"
    )
    parser.add_argument("--strict", action="store_true", help="fail when one part cannot be had")
    parser.add_argument("--keep-caches", action="store_true", help="leave the Go caches below --work")
    parser.add_argument("--jobs", type=int, default=2, help="parallel compilations")
    parser.add_argument("--verbose", action="store_true", help="show every command")
    return parser.parse_args()


def _fill(shop: Workshop, selection: Selection, go: GoBuilder, only: set[str]) -> None:
    debian = DebianArchive(runner=go.runner, work=go.work)
    modules = ModuleMaker(go=go, debian=debian)
    packages = DebianMaker(runner=go.runner, debian=debian, work=go.work, jobs=go.jobs, cache=go.build_cache)
    for part in selection.parts.values():
        if not only or part.name in only:
            shop.add(part, packages if is_from_debian(part) else modules)
    firewall = DebianArchive(runner=go.runner, work=go.work, suite=FIREWALL_SUITE)
    images = PodImages(runner=go.runner, go=go, firewall=firewall, packages=packages, mirror=shop.mirror)
    for name, releases in selection.images.values():
        if not only or f"image-{name}" in only:
            shop.add_image(name, releases, images)
    shutil.rmtree(go.work / "stage", ignore_errors=True)


def _show(shop: Workshop, selection: Selection) -> int:
    """Print what is not in the mirror, one line each."""
    missing = [
        f"{p.name} {p.version}" for p in selection.parts.values() if not shop.mirror.path(p.url).is_file()
    ]
    missing += [
        f"image {reference}" for reference in selection.images if not shop.mirror.has_manifest(reference)
    ]
    print("\n".join(missing) or "nothing is missing")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
