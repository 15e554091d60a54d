"""Parts from cache, mirror and release site; pinned and binding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagegen.errors import UsageError
from imagegen.fetch import Download, FetchError
from imagegen.fetch.sources import mirror_path
from tests.fetch.conftest import Fetcher, Site, sha256

BODY = bytes(range(256)) * 3000


def put_in_mirror(root: Path, url: str, body: bytes) -> Path:
    path = root / mirror_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def test_fetches_verifies_and_pins(site: Site, fetch: Fetcher) -> None:
    kubelet, etcd = site.put_part("kubelet", BODY), site.put_part("etcd.tar.gz", b"etcd")
    result = fetch(kubelet, etcd)
    assert result.of(kubelet).path.read_bytes() == BODY
    assert result.of(etcd).origin == "release site"
    assert result.size == len(BODY) + 4
    entry = fetch.lock.entries[kubelet.url]
    assert (entry.name, entry.version, entry.sha256, entry.size) == (
        "kubelet",
        "1.0.0",
        sha256(BODY),
        len(BODY),
    )


def test_second_fetch_asks_nobody(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    fetch(kubelet)
    site.requests.clear()
    stamp = (fetch.root / "imagegen.lock").stat().st_mtime_ns
    assert fetch(kubelet).of(kubelet).origin == "cache"
    assert site.requests == []
    assert (fetch.root / "imagegen.lock").stat().st_mtime_ns == stamp


def test_asks_once_for_a_part_that_is_wanted_twice(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    assert len(fetch(kubelet, kubelet).parts) == 1
    assert site.count("/kubelet") == 1


def test_lock_binds_even_when_the_release_site_changes_its_sum(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    fetch(kubelet)
    for path in (fetch.cache / "sha256").iterdir():
        path.unlink()
    site.put_part("kubelet", b"something else")
    with pytest.raises(FetchError) as caught:
        fetch(kubelet)
    message = str(caught.value)
    assert sha256(BODY) in message
    assert sha256(b"something else") in message
    assert "IMG602" in message
    assert fetch.files() == []
    assert fetch.lock.sha256(kubelet.url) == sha256(BODY)


def test_part_without_checksum_file_is_pinned_at_the_first_fetch(site: Site, fetch: Fetcher) -> None:
    flannel = Download(name="flannel", version="1", url=site.put("/flannel.tgz", b"first"))
    assert fetch(flannel).of(flannel).sha256 == sha256(b"first")
    for path in (fetch.cache / "sha256").iterdir():
        path.unlink()
    site.put("/flannel.tgz", b"second")
    with pytest.raises(FetchError, match="IMG602"):
        fetch(flannel)


def test_mirror_folder_comes_before_the_release_site(site: Site, fetch: Fetcher, tmp_path: Path) -> None:
    kubelet = site.put_part("kubelet", BODY)
    mirror = tmp_path / "mirror"
    put_in_mirror(mirror, kubelet.url, b"built from source")
    put_in_mirror(mirror, kubelet.checksum_url, sha256(b"built from source").encode())
    result = fetch(kubelet, mirror=mirror)
    assert result.of(kubelet).path.read_bytes() == b"built from source"
    assert result.of(kubelet).origin == "mirror"
    assert site.requests == []


def test_release_site_has_what_the_mirror_has_not(site: Site, fetch: Fetcher, tmp_path: Path) -> None:
    kubelet = site.put_part("kubelet", BODY)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    assert fetch(kubelet, mirror=mirror).of(kubelet).origin == "release site"


def test_mirror_by_url_has_the_host_as_first_element(site: Site, fetch: Fetcher) -> None:
    url = "https://dl.example.invalid/release/v1/kubelet"
    kubelet = Download(name="kubelet", version="1", url=url, checksum_url=f"{url}.sha256")
    site.put("/m/dl.example.invalid/release/v1/kubelet", BODY)
    site.put("/m/dl.example.invalid/release/v1/kubelet.sha256", sha256(BODY).encode())
    result = fetch(kubelet, mirror=f"{site.base}/m/")
    assert result.of(kubelet).origin == "mirror"
    assert url in fetch.lock.entries


def test_mirror_gets_its_login_and_messages_do_not(site: Site, fetch: Fetcher) -> None:
    url = "https://dl.example.invalid/kubelet"
    kubelet = Download(name="kubelet", version="1", url=url)
    elsewhere = site.base.replace("localhost", "127.0.0.1") + "/other"
    site.put("/dl.example.invalid/kubelet", b"", f"redirect:{elsewhere}")
    with pytest.raises(FetchError) as caught:
        fetch(kubelet, mirror=site.base.replace("//", "//ann:s3cret-word@"), offline=True)
    assert "s3cret-word" not in str(caught.value)
    assert site.shown("Authorization", "/dl.example.invalid/kubelet")[0].startswith("Basic ")
    assert site.shown("Authorization", "/other") == [""]


def test_login_stays_with_its_host(site: Site, fetch: Fetcher) -> None:
    site.put("/dl.example.invalid/kubelet", b"", f"redirect:{site.base}/other")
    site.put("/other", BODY)
    kubelet = Download(name="kubelet", version="1", url="https://dl.example.invalid/kubelet")
    fetch(kubelet, mirror=site.base.replace("//", "//ann:s3cret-word@"))
    assert site.shown("Authorization", "/other")[0].startswith("Basic ")


def test_missing_mirror_folder_is_a_usage_error(fetch: Fetcher, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        fetch(mirror=tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"ftp://x"):
        fetch(mirror="ftp://x/y")


def test_file_url_is_a_folder(site: Site, fetch: Fetcher, tmp_path: Path) -> None:
    kubelet = site.put_part("kubelet", BODY)
    mirror = tmp_path / "a mirror"
    put_in_mirror(mirror, kubelet.url, BODY)
    put_in_mirror(mirror, kubelet.checksum_url, sha256(BODY).encode())
    assert fetch(kubelet, mirror=mirror.as_uri()).of(kubelet).origin == "mirror"


def test_offline_with_a_warm_cache_works_without_a_lock_file(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    fetch(kubelet)
    (fetch.root / "imagegen.lock").unlink()
    site.requests.clear()
    assert fetch(kubelet, offline=True).of(kubelet).sha256 == sha256(BODY)
    assert site.requests == []
    assert fetch.lock.sha256(kubelet.url) == sha256(BODY)


def test_what_came_is_pinned_although_something_is_missing(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    gone = Download(
        name="gone", version="9", url=f"{site.base}/gone", checksum_url=f"{site.base}/gone.sha256"
    )
    with pytest.raises(FetchError) as caught:
        fetch(kubelet, gone)
    assert [failure.download for failure in caught.value.failures] == [gone]
    assert fetch.lock.sha256(kubelet.url) == sha256(BODY)


def test_lock_file_is_canonical(site: Site, fetch: Fetcher) -> None:
    parts = [site.put_part(name, name.encode()) for name in ("b", "a")]
    fetch(*parts)
    text = (fetch.root / "imagegen.lock").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    fetch(*reversed(parts))
    assert (fetch.root / "imagegen.lock").read_text() == text


@pytest.mark.parametrize(
    "url", ["https://h/../x", "https://h/a/./b", "https://h/a%2f..%2fb", "https://h/x?y=1", "x/y"]
)
def test_url_without_a_safe_place_in_a_mirror(url: str) -> None:
    with pytest.raises(ValueError, match="no place"):
        mirror_path(url)
