"""What a layer keeps from the one below it; with stand-ins for the programs, which take minutes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from imagegen.backends.image import disk, rootfs
from imagegen.backends.image.debianpackages import read_packages
from imagegen.backends.image.imageplan import ImagePlan, plan_image
from imagegen.backends.image.layers import LayerCache
from imagegen.backends.image.recipe import Workshop, build_role_layer
from imagegen.backends.image.sources import Digests
from imagegen.plan.items import Package
from imagegen.run import Runner
from tests.backends.image.dpkgstatus import PACKAGES, STATUS, make_stanza, write_lists
from tests.plan.plans import make_plan, write_cluster

EPOCH = 1_767_225_600
ADDUSER = make_stanza("adduser", "3.152", "all", "a")
ZLIB = make_stanza("zlib1g", PACKAGES[1].version, "amd64", "b")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """The base has one of two packages; mmdebstrap fetches younger lists, which have the other."""
    part = tmp_path / "part"
    part.write_bytes(b"program")

    def build_base(runner: Runner, base: rootfs.BaseSystem, target: Path, **_: Any) -> None:
        (target / rootfs.BASE_TAR).touch()
        write_lists(target / rootfs.LISTS, ADDUSER)

    def add_packages(
        runner: Runner, base: object, packages: object, base_layer: object, target: Path, **_: Any
    ) -> None:
        for name, text in ((rootfs.BASE_TAR, ""), ("dpkg-status", STATUS)):
            (target / name).write_text(text)
        write_lists(target / rootfs.LISTS, ZLIB)

    def build_role(runner: Runner, role: object, system_tar: Path, target: Path, **_: Any) -> None:
        assert system_tar.exists()
        (target / "dpkg-status").write_text(STATUS)

    monkeypatch.setattr(rootfs, "build_base", build_base)
    monkeypatch.setattr(rootfs, "add_packages", add_packages)
    monkeypatch.setattr(rootfs, "build_role", build_role)
    monkeypatch.setattr(disk, "complete_disk", lambda *_, **__: None)
    cache = LayerCache(root=tmp_path / "layers")
    return Workshop(runner=Runner(), cache=cache, find_source=lambda source: part, epoch=EPOCH)


def _plan(folder: Path, *, is_all_base: bool = False) -> ImagePlan:
    """The image of the workers; with ``is_all_base``, every package of theirs is in the base."""
    plan = make_plan(write_cluster(folder))
    worker = next(one for one in plan.role_plans if one.name == "worker")
    packages = [item.name for item in worker.items if isinstance(item, Package)] if is_all_base else []
    return plan_image(
        plan.cluster,
        worker,
        packages,
        plan.cluster.image.formats,
        digests=Digests(binaries={}, images={}),
        epoch=EPOCH,
    )


def _sums(layer: Path) -> dict[str, str]:
    return {package.name: package.sha256[:1] for package in read_packages(layer)}


def test_a_role_knows_the_sums_of_its_base_and_of_its_own_packages(shop: Workshop, tmp_path: Path) -> None:
    image = _plan(tmp_path)
    assert _sums(build_role_layer(shop, image)) == {"adduser": "a", "zlib1g": "b"}
    system = shop.cache.find("system", image.system_key)
    assert system is not None
    assert not (system / rootfs.LISTS).exists(), "lists are large, and nobody asks for them again"


def test_a_role_without_packages_of_its_own_asks_the_lists_of_the_base(
    shop: Workshop, tmp_path: Path
) -> None:
    image = _plan(tmp_path, is_all_base=True)
    assert _sums(build_role_layer(shop, image)) == {"adduser": "a", "zlib1g": ""}
    assert not shop.cache.has("system", image.system_key)


def test_a_role_is_made_from_its_packages_layer_when_the_base_is_gone(shop: Workshop, tmp_path: Path) -> None:
    image = _plan(tmp_path)
    first = build_role_layer(shop, image)
    shop.cache.release()
    shutil.rmtree(first)
    shutil.rmtree(tmp_path / "layers" / f"base-{image.base_key}")
    assert _sums(build_role_layer(shop, image)) == {"adduser": "a", "zlib1g": "b"}
    assert not shop.cache.has("base", image.base_key)
