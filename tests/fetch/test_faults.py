"""Downloads that go wrong: truncated, oversized, corrupt, redirected; a full disk; a killed process."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from imagegen.errors import ImagegenError, UsageError
from imagegen.fetch import Download, FetchError, LockEntry, read_lock
from imagegen.fetch import engine as engine_module
from imagegen.fetch.cache import Cache
from imagegen.fetch.http import Cancelled, HttpClient
from imagegen.fetch.lockfile import write_lock
from imagegen.fetch.sources import mirror_path
from tests.fetch.conftest import Fetcher, Site, serve, sha256

BODY = bytes(range(256)) * 4000


def test_server_error_twice_is_tried_again(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY, 503, 500)
    assert fetch(kubelet).of(kubelet).sha256 == sha256(BODY)
    assert site.count("/kubelet") == 3


def test_server_error_for_ever_ends(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY, *([502] * 100))
    with pytest.raises(FetchError, match="answered 502"):
        fetch(kubelet)
    assert site.count("/kubelet") == 5


def test_retry_after_is_heeded(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY, 503)
    site.files["/kubelet"].headers["Retry-After"] = "0"
    fetch(kubelet)
    assert site.count("/kubelet") == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_refusals_are_not_repeated(site: Site, fetch: Fetcher, status: int) -> None:
    kubelet = site.put_part("kubelet", BODY, *([status] * 9))
    with pytest.raises(FetchError, match=f"answered {status}"):
        fetch(kubelet)
    assert site.count("/kubelet") == 1


def test_truncated_download_is_resumed_where_it_stopped(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY, "stop:300000", "stop:300000")
    assert fetch(kubelet).of(kubelet).path.read_bytes() == BODY
    ranges = [asked for path, asked in site.requests if path == "/kubelet"]
    assert ranges == ["", "bytes=300000-", "bytes=600000-"]


def test_server_that_always_stops_early_but_brings_something_gets_there(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY, *(["stop:50000"] * 20))
    assert fetch(kubelet).of(kubelet).path.read_bytes() == BODY


def test_server_that_stops_at_once_ends(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY, *(["stop:0"] * 100))
    with pytest.raises(FetchError, match="IMG601"):
        fetch(kubelet)
    assert site.count("/kubelet") == 5


def test_next_run_resumes_what_the_last_one_left(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY, "stop:400000", *([503] * 20))
    with pytest.raises(FetchError):
        fetch(kubelet)
    site.files["/kubelet"].troubles.clear()
    site.requests.clear()
    fetch(kubelet)
    assert ("/kubelet", "bytes=400000-") in site.requests


@pytest.mark.parametrize(("trouble", "requests"), [("no-range", 2), ("wrong-range", 3)])
def test_server_without_ranges_starts_anew(site: Site, fetch: Fetcher, trouble: str, requests: int) -> None:
    kubelet = site.put_part("kubelet", BODY, "stop:400000", trouble)
    assert fetch(kubelet).of(kubelet).path.read_bytes() == BODY
    assert site.count("/kubelet") == requests


def test_old_bytes_of_another_file_are_thrown_away(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    cache = Cache(fetch.cache)
    cache.prepare()
    cache.partial(kubelet.url).write_bytes(b"\0" * 500)
    assert fetch(kubelet).of(kubelet).path.read_bytes() == BODY


def test_old_bytes_longer_than_the_file_are_thrown_away(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    cache = Cache(fetch.cache)
    cache.prepare()
    cache.partial(kubelet.url).write_bytes(BODY + b"more")
    assert fetch(kubelet).of(kubelet).path.read_bytes() == BODY


def test_wrong_checksum_names_both_sums_and_keeps_nothing(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    site.put("/kubelet", BODY[:-1] + b"!")
    with pytest.raises(FetchError) as caught:
        fetch(kubelet)
    assert "IMG602" in str(caught.value)
    assert sha256(BODY) in str(caught.value)
    assert sha256(BODY[:-1] + b"!") in str(caught.value)
    assert fetch.files() == []
    assert not (fetch.root / "imagegen.lock").exists()


def test_wrong_checksum_in_the_mirror_is_not_papered_over(site: Site, fetch: Fetcher, tmp_path: Path) -> None:
    kubelet = site.put_part("kubelet", BODY)
    for url, body in ((kubelet.url, b"broken"), (kubelet.checksum_url, sha256(BODY).encode())):
        path = tmp_path / "mirror" / mirror_path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    with pytest.raises(FetchError, match="IMG602"):
        fetch(kubelet, mirror=tmp_path / "mirror")
    assert site.requests == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "holds no SHA-256 sum"),
        (b"<html>not found</html>", "holds no SHA-256 sum"),
        (f"{'0' * 64}  other\n".encode(), "only other"),
        (f"{'0' * 64}  kubelet\n{'1' * 64}  kubelet\n".encode(), "2 different sums"),
        (b"\xff\xfe" * 300, "holds no SHA-256 sum"),
    ],
)
def test_useless_checksum_file(site: Site, fetch: Fetcher, text: bytes, problem: str) -> None:
    kubelet = site.put_part("kubelet", BODY)
    site.put("/kubelet.sha256", text)
    with pytest.raises(FetchError, match=problem) as caught:
        fetch(kubelet)
    assert "IMG603" in str(caught.value)
    assert site.count("/kubelet") == 0


def test_endless_checksum_file(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    site.put("/kubelet.sha256", b"0" * (2 << 20))
    with pytest.raises(FetchError, match="at most 1048576 bytes"):
        fetch(kubelet)


def test_oversized_download_is_cut_off(site: Site, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_PART_SIZE", 100_000)
    kubelet = site.put_part("kubelet", BODY)
    with pytest.raises(FetchError, match="wanted at most 100000 bytes, got 1024000"):
        fetch(kubelet)
    assert fetch.files() == []


def test_download_is_never_decompressed_on_the_way(site: Site, fetch: Fetcher) -> None:
    import gzip

    body = gzip.compress(BODY)
    archive = site.put_part("x.tar.gz", body)
    site.files["/x.tar.gz"].headers["Content-Encoding"] = "gzip"
    assert fetch(archive).of(archive).path.read_bytes() == body
    assert site.shown("Accept-Encoding", "/x.tar.gz") == ["identity"] * 2


def test_corrupt_cache_file_is_fetched_anew(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    path = fetch(kubelet).of(kubelet).path
    path.chmod(0o644)
    path.write_bytes(BODY[:-1] + b"!")
    result = fetch(kubelet)
    assert result.of(kubelet).origin == "release site"
    assert path.read_bytes() == BODY


def test_corrupt_cache_file_is_not_used_offline(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    path = fetch(kubelet).of(kubelet).path
    path.chmod(0o644)
    path.write_bytes(b"evil")
    with pytest.raises(FetchError, match="IMG601"):
        fetch(kubelet, offline=True)


def test_cache_file_that_is_a_link_is_not_used(site: Site, fetch: Fetcher, tmp_path: Path) -> None:
    kubelet = site.put_part("kubelet", BODY)
    path = fetch(kubelet).of(kubelet).path
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert fetch(kubelet).of(kubelet).origin == "release site"
    assert not path.is_symlink()


def test_offline_and_cold_lists_every_missing_part(fetch: Fetcher) -> None:
    parts = [
        Download(
            name=f"part{n}",
            version="1",
            url=f"https://h.invalid/{n}",
            checksum_url=f"https://h.invalid/{n}.s",
        )
        for n in range(7)
    ]
    with pytest.raises(FetchError) as caught:
        fetch(*parts, offline=True)
    message = str(caught.value)
    assert message.startswith("7 of 7 parts could not be fetched")
    assert all(f"part{n} 1: https://h.invalid/{n}" in message for n in range(7))
    assert caught.value.hint


def test_host_that_is_down_is_waited_for_once(fetch: Fetcher) -> None:
    with socket.socket() as closed:
        closed.bind(("localhost", 0))
        base = f"http://localhost:{closed.getsockname()[1]}"
        parts = [Download(name=f"p{n}", version="1", url=f"{base}/{n}") for n in range(50)]
        start = time.monotonic()
        with pytest.raises(FetchError) as caught:
            engine_module.fetch_downloads(
                parts, lock=fetch.lock, cache_dir=fetch.cache, client=HttpClient(backoff_s=0.2)
            )
    assert len(caught.value.failures) == 50
    assert time.monotonic() - start < 3
    assert "onnection refused" in str(caught.value)


@pytest.fixture
def secure_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site) -> Iterator[Site]:
    """The same over https, with a certificate that only ``SSL_CERT_FILE`` makes good."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "site.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    server = ThreadingHTTPServer(("localhost", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    try:
        yield serve(server, "https")
    finally:
        server.shutdown()
        server.server_close()


def test_redirect_to_https_is_followed(secure_site: Site, fetch: Fetcher) -> None:
    target = secure_site.put("/storage/kubelet", BODY)
    kubelet = Download(
        name="kubelet", version="1", url=secure_site.put("/kubelet", b"", f"redirect:{target}")
    )
    assert fetch(kubelet).of(kubelet).sha256 == sha256(BODY)


@pytest.mark.parametrize("hops", [1, 2])
def test_redirect_to_http_is_refused(secure_site: Site, site: Site, fetch: Fetcher, hops: int) -> None:
    target = site.put("/kubelet", BODY)
    if hops == 2:
        target = secure_site.put("/hop", b"", f"redirect:{target}")
    kubelet = Download(
        name="kubelet", version="1", url=secure_site.put("/kubelet", b"", f"redirect:{target}")
    )
    with pytest.raises(FetchError, match="not https") as caught:
        fetch(kubelet)
    assert "IMG604" in str(caught.value)
    assert site.requests == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/y", "//"])
def test_redirect_elsewhere_is_refused(site: Site, fetch: Fetcher, target: str) -> None:
    kubelet = Download(
        name="kubelet", version="1", url=site.put("/kubelet", b"", *[f"redirect:{target}"] * 30)
    )
    with pytest.raises(FetchError, match=r"IMG60[14]"):
        fetch(kubelet)
    assert fetch.files() == []


def test_redirect_in_a_circle_ends(site: Site, fetch: Fetcher) -> None:
    url = f"{site.base}/kubelet"
    site.put("/kubelet", b"", *[f"redirect:{url}"] * 50)
    with pytest.raises(FetchError, match="more than 10 times"):
        fetch(Download(name="kubelet", version="1", url=url))


def test_certificate_that_nobody_vouches_for(
    secure_site: Site, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    kubelet = Download(name="kubelet", version="1", url=secure_site.put("/kubelet", BODY))
    with pytest.raises(FetchError, match="certificate"):
        fetch(kubelet)


def test_full_disk_names_the_need_before_the_download(
    site: Site, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubelet = site.put_part("kubelet", BODY)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("imagegen.fetch.space.shutil.disk_usage", lambda path: usage)
    with pytest.raises(FetchError, match="1024000 bytes needed, 1000 free") as caught:
        fetch(kubelet)
    assert "IMG605" in str(caught.value)
    assert str(fetch.cache) in str(caught.value)


@pytest.mark.process
def test_disk_that_fills_up_on_the_way(site: Site, fetch: Fetcher, tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk: the same write fails at the same place."""
    kubelet = site.put_part("kubelet", BODY)
    program = f"""
import errno, resource, signal, sys
from pathlib import Path
from imagegen.fetch import Download, FetchError, Lock
from imagegen.fetch.engine import fetch_downloads
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    fetch_downloads([Download(name="kubelet", version="1", url={kubelet.url!r})], lock=Lock(),
                    cache_dir=Path({str(fetch.cache)!r}))
except FetchError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "1 of 1 parts could not be fetched" in done.stdout
    assert "File too large" in done.stdout
    assert fetch.files() == []


@pytest.mark.process
def test_killed_process_leaves_nothing_that_looks_finished(site: Site, fetch: Fetcher) -> None:
    body = BODY * 20
    kubelet = site.put_part("kubelet", body)
    program = f"""
from pathlib import Path
from imagegen.fetch import Download, read_lock
from imagegen.fetch.engine import fetch_downloads
fetch_downloads([Download(name="kubelet", version="1.0.0", url={kubelet.url!r},
                          checksum_url={kubelet.checksum_url!r})],
                lock=read_lock(Path({str(fetch.root / "imagegen.lock")!r})),
                cache_dir=Path({str(fetch.cache)!r}))
"""
    for delay in (0.0, 0.002, 0.005, 0.01, 0.03):
        process = subprocess.Popen([sys.executable, "-c", program])
        while process.poll() is None and not site.count("/kubelet"):
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in (fetch.cache / "sha256").glob("*"):
            assert sha256(path.read_bytes()) == path.name
        read_lock(fetch.root / "imagegen.lock")
        site.requests.clear()
    assert fetch(kubelet).of(kubelet).path.read_bytes() == body


@pytest.mark.process
def test_concurrent_fetches_download_once(site: Site, fetch: Fetcher) -> None:
    parts = [site.put_part(f"part{n}", BODY + bytes([n])) for n in range(6)]
    listed = ", ".join(
        f"Download(name={p.name!r}, version='1.0.0', url={p.url!r}, checksum_url={p.checksum_url!r})"
        for p in parts
    )
    program = f"""
from pathlib import Path
from imagegen.fetch import Download, read_lock
from imagegen.fetch.engine import fetch_downloads
fetch_downloads([{listed}], lock=read_lock(Path({str(fetch.root / "imagegen.lock")!r})),
                cache_dir=Path({str(fetch.cache)!r}))
"""
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert all(site.count(f"/{part.name}") == 1 for part in parts)
    assert len(fetch.lock.entries) == 6


def test_lock_of_another_process_is_waited_for(site: Site, fetch: Fetcher) -> None:
    kubelet = site.put_part("kubelet", BODY)
    cache = Cache(fetch.cache)
    cache.prepare()
    with cache.lock(kubelet.url, threading.Event()):
        thread = threading.Thread(target=fetch, args=(kubelet,))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert site.requests == []
    thread.join(10)
    assert fetch(kubelet).of(kubelet).origin == "cache"


@pytest.mark.process
def test_interruption_does_not_wait_for_a_silent_server(site: Site, fetch: Fetcher) -> None:
    parts = [site.put_part(f"part{n}", BODY, "stall") for n in range(6)]
    listed = ", ".join(f"Download(name={p.name!r}, version='1', url={p.url!r})" for p in parts)
    program = f"""
from pathlib import Path
from imagegen.fetch import Download, Lock
from imagegen.fetch.engine import fetch_downloads
fetch_downloads([{listed}], lock=Lock(), cache_dir=Path({str(fetch.cache)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(site.requests) < 4:
        time.sleep(0.01)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=10)[1]
    assert time.monotonic() - start < 5


def test_interruption_ends_transfers(site: Site, fetch: Fetcher) -> None:
    client = HttpClient(backoff_s=60)
    kubelet = site.put_part("kubelet", BODY, *([503] * 9))
    timer = threading.Timer(0.2, client.cancel.set)
    timer.start()
    start = time.monotonic()
    with pytest.raises(Cancelled):
        engine_module.fetch_downloads([kubelet], lock=fetch.lock, cache_dir=fetch.cache, client=client)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 2, "parts": {}}',
        '{"version": 1, "parts": []}',
        '{"version": 1, "parts": {"u": 1}}',
        '{"version": 1, "parts": {"u": {"name": "n", "version": "1", "sha256": "zz", "size": 1}}}',
        '{"version": 1, "parts": {"u": {"name": "n", "version": "1", "sha256": "'
        + "0" * 64
        + '", "size": -1}}}',
        "[" * 100_000,
        "\0\0\0",
    ],
)
def test_broken_lock_file_stops(fetch: Fetcher, text: str) -> None:
    path = fetch.root / "imagegen.lock"
    path.write_text(text)
    with pytest.raises(UsageError, match="IMG606") as caught:
        read_lock(path)
    assert caught.value.hint
    assert path.read_text() == text


def test_lock_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_lock(tmp_path)


def test_two_writers_with_two_sums_do_not_agree_silently(tmp_path: Path) -> None:
    path = tmp_path / "imagegen.lock"
    entry = LockEntry(name="a", version="1", sha256="0" * 64, size=1)
    write_lock(path, [("https://h/a", entry)])
    with pytest.raises(ImagegenError, match="IMG602"):
        write_lock(path, [("https://h/a", LockEntry(name="a", version="1", sha256="1" * 64, size=1))])
    assert read_lock(path).sha256("https://h/a") == "0" * 64


def test_writers_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "imagegen.lock"

    def write(n: int) -> None:
        write_lock(path, [(f"https://h/{n}", LockEntry(name="a", version="1", sha256="0" * 64, size=n))])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_lock(path).entries) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["imagegen.lock"]


def test_kernel_frees_the_lock_of_a_dead_holder(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.prepare()
    with cache.lock("u", threading.Event()):
        pass
    name = next((tmp_path / "locks").iterdir())
    handle = os.open(name, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.close(handle)
    with cache.lock("u", threading.Event()):
        pass


def test_cache_that_cannot_be_made(fetch: Fetcher) -> None:
    fetch.cache.write_text("a file")
    with pytest.raises(UsageError, match="cannot use the cache"):
        fetch()
