"""Container images: by the registry protocol, pinned by digest, one archive each."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from imagegen.errors import UsageError
from imagegen.fetch import FetchedPart, FetchError
from imagegen.fetch.http import HttpClient
from imagegen.fetch.images import fetch_images, parse_reference
from imagegen.fetch.sources import mirror_path
from tests.conftest import require_judge
from tests.fetch.conftest import Fetcher, Site, sha256

PAUSE = "registry.k8s.io/pause:3.10"


def make_layer() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("pause")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"\x7fELF"))
    return packed.getvalue()


LAYER = make_layer()
PACKED = gzip.compress(LAYER, mtime=0)
CONFIG = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(LAYER)}"]},
    }
).encode()


def describe(body: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256(body)}", "size": len(body)}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe(CONFIG, "application/vnd.oci.image.config.v1+json"),
        "layers": [describe(PACKED, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
).encode()


def make_index(*platforms: str) -> bytes:
    entries = []
    for platform in platforms:
        body = MANIFEST if platform == "amd64" else platform.encode()
        entry = describe(body, "application/vnd.oci.image.manifest.v1+json")
        entries.append(entry | {"platform": {"os": "linux", "architecture": platform}})
    media_type = "application/vnd.oci.image.index.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()


INDEX = make_index("arm64", "amd64")


def put_image(site: Site, top: bytes = INDEX, *troubles: int | str, reference: str = PAUSE) -> str:
    """Hold an image as a mirror does; returns the mirror's URL."""
    base = "/" + mirror_path(parse_reference(reference).base)
    site.put(f"{base}/manifests/{reference.rpartition(':')[2]}", top, *troubles)
    for body in {top, MANIFEST}:
        site.put(f"{base}/manifests/sha256:{sha256(body)}", body)
    for body in (CONFIG, PACKED):
        site.put(f"{base}/blobs/sha256:{sha256(body)}", body)
    return site.base


def pull(fetch: Fetcher, mirror: str | None, reference: str = PAUSE) -> FetchedPart:
    client = HttpClient(backoff_s=0.002, connect_timeout_s=2, read_timeout_s=2)
    found = fetch_images(
        [reference], lock=fetch.lock, mirror=mirror, cache_dir=fetch.cache, offline=True, client=client
    )
    return found[reference]


@pytest.mark.parametrize("top", [INDEX, MANIFEST], ids=["index", "manifest"])
def test_packs_an_oci_archive(site: Site, fetch: Fetcher, top: bytes) -> None:
    image = pull(fetch, put_image(site, top))
    with tarfile.open(image.path) as archive:
        names = archive.getnames()
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        for name in names:
            if name.startswith("blobs/sha256/"):
                body = archive.extractfile(name).read()  # type: ignore[union-attr]
                assert hashlib.sha256(body).hexdigest() == name.rpartition("/")[2]
    blobs = {sha256(body) for body in (MANIFEST, CONFIG, PACKED)}
    assert set(names) == {"index.json", "oci-layout", *(f"blobs/sha256/{digest}" for digest in blobs)}
    (entry,) = index["manifests"]
    assert entry["digest"] == f"sha256:{sha256(MANIFEST)}"
    assert entry["annotations"]["io.containerd.image.name"] == PAUSE


def test_pins_the_digest_and_binds(site: Site, fetch: Fetcher) -> None:
    mirror = put_image(site)
    first = pull(fetch, mirror)
    url = parse_reference(PAUSE).download.url
    assert fetch.lock.sha256(url) == sha256(INDEX)
    put_image(site, MANIFEST)
    site.requests.clear()
    assert pull(fetch, mirror).sha256 == first.sha256
    assert site.requests == []


def test_same_bytes_from_a_warm_cache_without_lock_and_mirror(site: Site, fetch: Fetcher) -> None:
    first = pull(fetch, put_image(site))
    (fetch.root / "imagegen.lock").unlink()
    again = pull(fetch, None)
    assert (again.sha256, again.origin) == (first.sha256, "cache")


def test_reference_by_digest_needs_no_tag(site: Site, fetch: Fetcher) -> None:
    mirror = put_image(site)
    reference = f"registry.k8s.io/pause@sha256:{sha256(MANIFEST)}"
    assert pull(fetch, mirror, reference).size > len(PACKED)
    assert not any(path.endswith("/3.10") for path, _ in site.requests)


def test_token_is_fetched_and_shown(site: Site, fetch: Fetcher) -> None:
    token = site.put("/token?service=here&scope=repository%3Aa%3Apull", b'{"token": "tok-123"}')
    mirror = put_image(site, INDEX, f"challenge:{token.partition('?')[0]}")
    pull(fetch, mirror)
    shown = site.shown("Authorization", "/v2/")
    assert shown[0] == ""
    assert set(shown[1:]) == {"Bearer tok-123"}


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"token": 1}', b'{"token": "a\\nb"}'])
def test_useless_token(site: Site, fetch: Fetcher, answer: bytes) -> None:
    token = site.put("/token?service=here&scope=repository%3Aa%3Apull", answer)
    mirror = put_image(site, INDEX, f"challenge:{token.partition('?')[0]}")
    with pytest.raises(FetchError, match="no token"):
        pull(fetch, mirror)


def test_registry_that_never_accepts_the_token(site: Site, fetch: Fetcher) -> None:
    token = site.put("/token?service=here&scope=repository%3Aa%3Apull", b'{"token": "t"}')
    mirror = put_image(site, INDEX, *[f"challenge:{token.partition('?')[0]}"] * 30)
    with pytest.raises(FetchError, match="answered 401"):
        pull(fetch, mirror)


def test_manifest_types_are_asked_for(site: Site, fetch: Fetcher) -> None:
    pull(fetch, put_image(site))
    assert len(site.shown("Accept", "/manifests/")) == 3
    assert all("image.index" in accept for accept in site.shown("Accept", "/manifests/"))


@pytest.mark.parametrize(
    ("top", "problem"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "not JSON"),
        (b"{}", "names no config"),
        (make_index("arm64"), "none for linux/amd64"),
        (b'{"manifests": [1, null]}', "none for linux/amd64"),
        (b'{"config": {}, "layers": []}', "wanted a sha256 digest"),
        (b'{"config": {"digest": "sha256:../../x"}, "layers": []}', "wanted a sha256 digest"),
        (b'{"config": {"digest": "md5:0"}, "layers": []}', "wanted a sha256 digest"),
    ],
)
def test_broken_manifest(site: Site, fetch: Fetcher, top: bytes, problem: str) -> None:
    with pytest.raises(FetchError, match=problem):
        pull(fetch, put_image(site, top))


def test_blob_with_another_sum(site: Site, fetch: Fetcher) -> None:
    mirror = put_image(site)
    path = "/" + mirror_path(f"{parse_reference(PAUSE).base}/blobs/sha256:{sha256(PACKED)}")
    site.put(path, b"evil")
    with pytest.raises(FetchError, match=sha256(b"evil")) as caught:
        pull(fetch, mirror)
    assert "IMG602" in str(caught.value)
    assert not (fetch.root / "imagegen.lock").exists()


def test_every_missing_image_is_listed(fetch: Fetcher) -> None:
    with pytest.raises(FetchError) as caught:
        fetch_images([PAUSE, "ghcr.io/a/b:v1"], lock=fetch.lock, cache_dir=fetch.cache, offline=True)
    assert "registry.k8s.io/pause 3.10" in str(caught.value)
    assert "ghcr.io/a/b v1" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["pause", "pause:3.10", "a/b:1", "registry.k8s.io/pause", "r.io/../x:1", "r.io/A:1", ""]
)
def test_reference_that_is_not_fully_qualified(text: str) -> None:
    with pytest.raises(UsageError, match="wanted an image"):
        parse_reference(text)


def test_docker_hub_has_another_host() -> None:
    assert parse_reference("docker.io/busybox:1").base == "https://registry-1.docker.io/v2/library/busybox"


@pytest.mark.judge
def test_skopeo_reads_the_archive(site: Site, fetch: Fetcher, tmp_path: Path) -> None:
    skopeo = require_judge("skopeo")
    image = pull(fetch, put_image(site))
    target = tmp_path / "copy.tar"
    done = skopeo.run(
        "copy", "--insecure-policy", f"oci-archive:{image.path}:3.10", f"docker-archive:{target}:{PAUSE}"
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(target) as archive:
        (entry,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert entry["RepoTags"] == [PAUSE]
    shown = skopeo.run("inspect", "--config", f"docker-archive:{target}")
    assert json.loads(shown.stdout)["config"]["Entrypoint"] == ["/pause"]
