"""The catalogue of releases: complete for every minor, and its addresses well formed."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from imagegen.errors import UsageError
from imagegen.kubernetes.releases import (
    KUBERNETES_PARTS,
    known_minors,
    known_parts,
    load_releases,
    newest_patch,
)
from imagegen.model.support import RENDERED_MINORS
from imagegen.model.version import Version, parse_version

OFFICIAL_SITES = {"dl.k8s.io", "github.com"}


def test_the_minors_are_those_that_the_model_lets_through() -> None:
    assert known_minors() == tuple(f"1.{minor}" for minor in RENDERED_MINORS)


@pytest.mark.parametrize("minor", known_minors())
def test_every_part_of_every_minor_has_a_place(minor: str) -> None:
    releases = load_releases(newest_patch(minor))
    for name in known_parts():
        for arch in ("amd64", "arm64"):
            part = releases.part(name, arch)
            assert part.version == releases.version(name)
            for url in (part.url, part.checksum_url):
                if url is None:
                    continue
                parts = urlsplit(url)
                assert parts.scheme == "https"
                assert parts.hostname in OFFICIAL_SITES
                assert "{" not in url
            assert part.version in part.url
            assert arch in part.url
            assert bool(part.members) == (part.kind == "tar.gz")
            assert part.file_name in part.url


@pytest.mark.parametrize("minor", known_minors())
def test_images_are_fully_qualified(minor: str) -> None:
    releases = load_releases(newest_patch(minor))
    for name in ("pause", "coredns", "flannel", "flannel-cni-plugin"):
        assert re.fullmatch(r"[a-z0-9.]+\.[a-z]+/[a-z0-9/-]+:v?\d[\w.-]*", releases.image(name))


def test_versions_never_go_back_from_minor_to_minor() -> None:
    rows = [load_releases(newest_patch(minor)) for minor in known_minors()]
    for name in ("etcd", "containerd", "runc", "coredns", "cni-plugins"):
        found = [parse_version(row.version(name)) for row in rows]
        assert found == sorted(found), name


def test_kubernetes_parts_follow_the_users_patch() -> None:
    releases = load_releases(Version(1, 36, 99))
    assert {releases.version(name) for name in KUBERNETES_PARTS} == {"1.36.99"}


def test_members_are_found_by_name() -> None:
    part = load_releases(newest_patch("1.36")).part("etcd")
    assert part.member("etcdctl") == f"etcd-v{part.version}-linux-amd64/etcdctl"
    with pytest.raises(KeyError):
        part.member("zookeeper")


def test_an_unknown_minor_is_a_usage_error_that_names_the_range() -> None:
    with pytest.raises(UsageError, match=r"from 1\.6 to 1\.\d+, got 1\.99\.0"):
        load_releases(Version(1, 99, 0))
