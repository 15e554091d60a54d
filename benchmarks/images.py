"""Golden images against bare tools and mkosi: the same packages, files and disk size, in the same run.

Nobody has a cache of packages: mmdebstrap and mkosi are called without one, imagegen calls mmdebstrap. Nobody
fetches Kubernetes: what is put on the disk besides packages lies ready for all.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clusters import write_cluster
from benchmarks.process import Cost, run_best, run_measured
from benchmarks.rows import Row, say

HERE = Path(__file__).parent
IMAGEGEN = Path(sys.executable).with_name("imagegen")
_TOOLS = ("mmdebstrap", "mke2fs", "qemu-img", "grub-mkimage", "sfdisk", "mcopy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What is on the worker's disk: packages, and the archive of everything else."""

    packages: tuple[str, ...]
    payload: Path


def measure_images(folder: Path, times: int) -> Iterator[Row]:
    """Every row about images; each first build ``times`` times, in turns, the quickest counts."""
    missing = [name for name in _TOOLS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        say(f"no images: {', '.join(missing)} needed")
        return
    folder.mkdir()
    write_cluster(folder / "cluster.yaml", 8)
    say("parts for the images")
    built = Path.home() / ".cache/imagegen/mirror"
    mirror = os.environ.get("IMAGEGEN_MIRROR") or (str(built) if built.is_dir() else "")
    run_measured([IMAGEGEN, "fetch", "cluster.yaml", *(["--mirror", mirror] if mirror else [])], cwd=folder)
    contents = _read_contents(folder)
    bare, first = [], []
    for number in range(times):
        say(f"the worker's image, bare and by imagegen ({number + 1} of {times})")
        bare.append(_build_bare(folder, contents))
        shutil.rmtree(folder / "cache", ignore_errors=True)
        shutil.rmtree(folder / "out", ignore_errors=True)
        first.append(_build(folder, "worker"))
    best, plain = min(first, key=lambda cost: cost.wall), min(bare, key=lambda cost: cost.wall)
    yield Row("worker's image by bare tools", plain.wall, "s")
    yield Row("worker's image, nothing cached", best.wall, "s")
    yield Row("… against bare tools", best.wall / plain.wall, "×", 1.15)
    yield Row("… processor time against bare tools", best.cpu / plain.cpu, "×")
    yield from _measure_mkosi(folder, contents, best)
    yield from _measure_again(folder, best, times)
    yield from _measure_sizes(folder)


def _read_contents(folder: Path) -> Contents:
    from imagegen.backends.epoch import DEFAULT_EPOCH
    from imagegen.backends.image.layers import LayerCache
    from imagegen.backends.image.payload import plan_payload, write_payload
    from imagegen.backends.image.sources import list_part_keys, unpack_sources
    from imagegen.diagnostics import Report
    from imagegen.fetch import lock_path, read_lock
    from imagegen.fetch.everything import fetch_everything
    from imagegen.model.load import load_cluster
    from imagegen.plan.build import build_plan
    from imagegen.plan.items import Binary, ContainerImage
    from imagegen.plan.parts import list_parts, make_download
    from imagegen.plan.profiles import load_profiles

    report = Report()
    cluster = load_cluster(folder / "cluster.yaml", report)
    plan = cluster and build_plan(cluster, load_profiles((), report), report)
    if plan is None:
        sys.exit(report.render_text())
    worker = next(one for one in plan.role_plans if one.name == "worker")
    payload = plan_payload(worker.items)
    sources = [entry for entry in payload.entries if isinstance(entry, Binary | ContainerImage)]
    every_part = {(part.name, part.version): part for part in list_parts(plan)}
    parts = {key: every_part[key] for key in list_part_keys(sources)}
    result = fetch_everything(
        [make_download(part) for part in parts.values()],
        [source.reference for source in sources if isinstance(source, ContainerImage)],
        lock=read_lock(lock_path(folder / "cluster.yaml")),
        offline=True,
    )
    files = unpack_sources(sources, parts, result, LayerCache(root=folder / "parts"))
    write_payload(payload, files.__getitem__, folder / "payload.tar", epoch=DEFAULT_EPOCH)
    return Contents(packages=payload.packages, payload=folder / "payload.tar")


def _build_bare(folder: Path, contents: Contents) -> Cost:
    env = {"PACKAGES": ",".join(contents.packages), "PAYLOAD": str(contents.payload), "SIZE": "8G"}
    return run_measured([HERE / "bare-image.sh"], cwd=folder, env=env)


def _build(folder: Path, role: str, *more: str) -> Cost:
    """``imagegen build`` with a cache of layers of its own; the parts are shared."""
    parts = folder / "cache/imagegen/parts"
    if not parts.exists():
        from imagegen.fetch.cache import default_cache_dir

        parts.parent.mkdir(parents=True, exist_ok=True)
        parts.symlink_to(default_cache_dir())
    argv = [IMAGEGEN, "--quiet", "build", "cluster.yaml", "-o", "out", "--offline", "--role", role, *more]
    return run_measured(argv, cwd=folder, env={"XDG_CACHE_HOME": str(folder / "cache")})


def _measure_again(folder: Path, first: Cost, times: int) -> Iterator[Row]:
    say("a second role, a changed file, nothing changed")
    second = min(_build_second(folder) for _ in range(times))
    yield Row("second role from the shared base", second, "s")
    yield Row("… of the first", 100 * second / first.wall, "%", 25)
    changed = min(_build_changed(folder, number) for number in range(times))
    yield Row("one changed file", changed, "s", 10)
    argv = [
        IMAGEGEN,
        "--quiet",
        "build",
        "cluster.yaml",
        "-o",
        "out",
        "--role",
        "worker",
        "--profiles",
        "mine",
    ]
    same = run_best([*argv, "--offline"], cwd=folder, times=5, env={"XDG_CACHE_HOME": str(folder / "cache")})
    yield Row("nothing changed", same.wall, "s", 1)


def _build_second(folder: Path) -> float:
    """Seconds; nothing of the role is cached, and nothing of it stays there."""
    layers = folder / "cache/imagegen/layers"
    known = set(layers.iterdir())
    cost = _build(folder, "master")
    for layer in set(layers.iterdir()) - known:
        if layer.is_dir():
            shutil.rmtree(layer)
    (folder / "out/images/bench-master.qcow2").unlink()
    return cost.wall


def _build_changed(folder: Path, number: int) -> float:
    """Seconds; the content is another one each time."""
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine/worker.yaml").write_text(f"files:\n  - {{path: /etc/bench, content: changed {number}}}\n")
    return _build(folder, "worker", "--profiles", "mine").wall


def _measure_sizes(folder: Path) -> Iterator[Row]:
    golden = (folder / "out/images/bench-worker.qcow2").stat().st_size
    bare = (folder / "bare.qcow2").stat().st_size
    yield Row("worker's golden image, qcow2", golden / (1 << 20), "MiB")
    yield Row("… by bare tools", bare / (1 << 20), "MiB")


def _measure_mkosi(folder: Path, contents: Contents, ours: Cost) -> Iterator[Row]:
    mkosi = shutil.which("mkosi")
    if mkosi is None:
        say("no comparison with mkosi: it is not installed (apt-get install mkosi)")
        return
    say("mkosi")
    work = folder / "mkosi"
    work.mkdir()
    (work / "mkosi.conf").write_text(_write_mkosi_settings(contents))
    try:
        cost = run_measured([mkosi, "--force", "build"], cwd=work)
    except SystemExit as error:
        say(f"no comparison with mkosi: {error}")
        return
    finally:
        shutil.rmtree(work, ignore_errors=True)
    yield Row("worker's image by mkosi", cost.wall, "s")
    yield Row("faster than mkosi", cost.wall / ours.wall, "×", 1, at_least=True)


def _write_mkosi_settings(contents: Contents) -> str:
    """The words of mkosi 14, which is in Debian 12."""
    packages = "".join(f"    {name}\n" for name in contents.packages)
    return (
        "[Distribution]\nDistribution=debian\nRelease=trixie\n"
        "[Output]\nFormat=gpt_ext4\nBootable=no\nOutput=disk.qcow2\nQCow2=yes\n"
        # no system bus is needed, as in our own containers
        "[Host]\nNspawnKeepUnit=yes\n"
        f"[Partitions]\nRootSize=7G\n[Content]\nExtraTrees={contents.payload}\nPackages=\n{packages}"
    )
