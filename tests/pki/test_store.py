"""The secret store: modes, links, names, batches, locks, encryption at rest."""

from __future__ import annotations

import multiprocessing
import os
import stat
import time
from pathlib import Path

import pyrage
import pytest

from imagegen.content import Ref
from imagegen.diagnostics import Report
from imagegen.errors import ImagegenError
from imagegen.pki.issue import issue_material
from imagegen.pki.resolve import resolve_content
from imagegen.pki.store import SecretStore, StoreError, open_store
from tests.pki.clusters import quickstart, with_workers
from tests.pki.seeded import SeededRandomness
from tests.pki.workshop import NOW, issue_store


def make_store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "secrets")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(umask: int, tmp_path: Path) -> None:
    old = os.umask(umask)
    try:
        make_store(tmp_path).write("pki/etcd/ca.key", b"secret")
    finally:
        os.umask(old)
    root = tmp_path / "secrets"
    assert [mode_of(path) for path in (root, root / "pki", root / "pki/etcd")] == [0o700] * 3
    assert mode_of(root / "pki/etcd/ca.key") == 0o600
    assert make_store(tmp_path).read("pki/etcd/ca.key") == b"secret"


def test_constructing_and_looking_touch_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert not store.exists("pki/ca.key")
    assert store.names() == []
    with pytest.raises(StoreError, match=r"pki/ca.key is not in the secret store"):
        store.read("pki/ca.key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_key_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    make_store(tmp_path).write("pki/ca.key", b"secret")
    (tmp_path / "secrets/pki/ca.key").chmod(mode)
    with pytest.raises(StoreError, match="may be read by others") as caught:
        make_store(tmp_path).read("pki/ca.key")
    assert "chmod 0600" in str(caught.value.hint)


def test_certificates_may_be_read_by_all(tmp_path: Path) -> None:
    make_store(tmp_path).write("pki/ca.crt", b"public")
    (tmp_path / "secrets/pki/ca.crt").chmod(0o644)
    assert make_store(tmp_path).read("pki/ca.crt") == b"public"


def test_open_directory_is_closed_and_a_writable_one_refused(tmp_path: Path) -> None:
    make_store(tmp_path).write("pki/ca.crt", b"1")
    (tmp_path / "secrets").chmod(0o755)
    make_store(tmp_path).write("pki/ca.crt", b"2")
    assert mode_of(tmp_path / "secrets") == 0o700
    (tmp_path / "secrets").chmod(0o777)
    with pytest.raises(StoreError, match="others may write"):
        make_store(tmp_path).write("pki/ca.crt", b"3")


def test_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/holiday.jpg").write_bytes(b"")
    with pytest.raises(StoreError, match="not a secret store"):
        make_store(tmp_path).write("pki/ca.crt", b"1")
    assert mode_of(tmp_path / "secrets") != 0o700


def test_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_bytes(b"")
    with pytest.raises(StoreError, match="not a directory"):
        make_store(tmp_path).write("pki/ca.crt", b"1")


@pytest.mark.parametrize("inside", ["pki/ca.key", "pki"])
def test_symbolic_links_are_not_followed(inside: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "ca.key").write_bytes(b"stolen")
    (outside / "ca.key").chmod(0o600)
    store = make_store(tmp_path)
    store.write("nodes/a/x.crt", b"")
    link = store.root / inside
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside / "ca.key" if inside.endswith("key") else outside)
    with pytest.raises(StoreError, match="symbolic link"):
        make_store(tmp_path).read("pki/ca.key")
    if inside == "pki":
        with pytest.raises(StoreError, match="symbolic link"):
            make_store(tmp_path).write("pki/ca.key", b"new")
    else:
        make_store(tmp_path).write("pki/ca.key", b"new")  # the link is replaced, not followed
    assert (outside / "ca.key").read_bytes() == b"stolen"


def test_fifo_and_directory_are_refused_without_hanging(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.write("pki/ca.crt", b"1")
    os.mkfifo(store.root / "pki/ca.key", 0o600)
    (store.root / "pki/sa.key").mkdir()
    for name in ("pki/ca.key", "pki/sa.key"):
        with pytest.raises(StoreError, match="not a regular file"):
            make_store(tmp_path).read(name)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/../b",
        "",
        ".lock",
        "a//b",
        "pki/",
        "a\x00b",
        "a\nb",
        "pki/ca.key.age",
        "a/.b",
    ],
)
def test_names_cannot_leave_the_store(name: str, tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for call in (store.exists, store.read, lambda n: store.write(n, b"x")):
        with pytest.raises(StoreError, match="not a name"):
            call(name)
    assert list(tmp_path.iterdir()) == []


def test_batch_is_all_or_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path)

    def fail_inside() -> None:
        with store.batch():
            store.write("pki/ca.key", b"1")
            assert store.read("pki/ca.key") == b"1"
            assert store.exists("pki/ca.key")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert not store.exists("pki/ca.key")
    with store.batch():
        store.write("pki/ca.key", b"2")
        store.write("nodes/n/bootstrap-token", b"t")
    assert make_store(tmp_path).names() == ["nodes/n/bootstrap-token", "pki/ca.key"]


def test_leftovers_of_a_killed_run_are_swept_and_never_seen(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.write("pki/ca.crt", b"1")
    (store.root / ".staging").mkdir()
    (store.root / ".staging/0").write_bytes(b"half")
    assert make_store(tmp_path).names() == ["pki/ca.crt"]
    make_store(tmp_path).write("pki/ca.crt", b"2")
    assert not (store.root / ".staging").exists()


def test_new_store_stays_out_of_repositories(tmp_path: Path) -> None:
    make_store(tmp_path).write("pki/ca.crt", b"1")
    assert (tmp_path / "secrets/.gitignore").read_text() == "*\n"


def test_write_that_fails_leaves_the_old_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    store.write("pki/ca.key", b"old")

    def full(_handle: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="No space left"):
        store.write("pki/ca.key", b"new")
    monkeypatch.undo()
    assert make_store(tmp_path).read("pki/ca.key") == b"old"
    assert not (store.root / ".staging").exists()


def _issue(root: str) -> bytes:
    store = SecretStore(Path(root))
    issue_material(quickstart(), store, Report(), now=NOW)
    return store.read("pki/ca.crt") + store.read("nodes/master-0/apiserver.key")


@pytest.mark.process
def test_two_runs_at_once_agree(tmp_path: Path) -> None:
    """Four processes start on an empty store; one issues, the others find its work."""
    with multiprocessing.get_context("fork").Pool(4) as pool:
        results = pool.map(_issue, [str(tmp_path / "secrets")] * 4, chunksize=1)
    assert len(set(results)) == 1


def test_lock_that_is_held_is_waited_for_and_then_named(tmp_path: Path) -> None:
    first, second = make_store(tmp_path), make_store(tmp_path)
    with first.lock():
        start = time.monotonic()
        with pytest.raises(StoreError, match="another imagegen"), second.lock(timeout=0.1):
            pass
        assert time.monotonic() - start < 5
    with second.lock(timeout=0.1), second.lock(timeout=0.1):
        pass


def test_many_small_entries_are_written_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A synchronisation a file would take minutes for 10,000 nodes."""
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    issue_store(with_workers(1000), tmp_path / "secrets")
    assert len(calls) < 100


@pytest.fixture
def identity(tmp_path: Path) -> tuple[Path, str]:
    key = pyrage.x25519.Identity.generate()
    file = tmp_path / "identity.txt"
    file.write_text(f"# a comment\n{key}\n")
    return file, str(key.to_public())


def open_sealed(tmp_path: Path, environ: dict[str, str]) -> SecretStore:
    return open_store(str(tmp_path / "cluster.yaml"), None, environ)


def test_private_entries_are_sealed_to_the_recipients(tmp_path: Path, identity: tuple[Path, str]) -> None:
    root = tmp_path / "secrets"
    root.mkdir()
    (root / ".age-recipients").write_text(f"# ops\n{identity[1]}\n")
    environ = {"IMAGEGEN_AGE_IDENTITY": str(identity[0])}
    cluster = quickstart()
    issue_material(cluster, open_sealed(tmp_path, environ), Report(), now=NOW, randomness=SeededRandomness())
    assert (root / "pki/ca.crt").exists()
    assert not (root / "pki/ca.key").exists()
    assert (root / "pki/ca.key.age").read_bytes().startswith(b"age-encryption.org/v1\n")
    names = open_sealed(tmp_path, environ).names()
    assert "pki/ca.key" in names
    again = issue_material(cluster, open_sealed(tmp_path, environ), Report(), now=NOW)
    assert again.changes == ()
    with pytest.raises(ImagegenError, match="no identity was given") as caught:
        open_sealed(tmp_path, {}).read("pki/ca.key")
    assert "IMAGEGEN_AGE_IDENTITY" in str(caught.value.hint)
    other = tmp_path / "other.txt"
    other.write_text(str(pyrage.x25519.Identity.generate()))
    with pytest.raises(ImagegenError, match=r"cannot decrypt pki/ca\.key"):
        open_sealed(tmp_path, {"IMAGEGEN_AGE_IDENTITY": str(other)}).read("pki/ca.key")


def test_sealing_removes_the_plain_file(tmp_path: Path, identity: tuple[Path, str]) -> None:
    make_store(tmp_path).write("pki/ca.key", b"plain")
    sealed = SecretStore(tmp_path / "secrets", recipients=identity[1], identity_file=identity[0])
    assert sealed.read("pki/ca.key") == b"plain"
    sealed.write("pki/ca.key", b"sealed")
    assert [path.name for path in (tmp_path / "secrets/pki").iterdir()] == ["ca.key.age"]
    assert sealed.read("pki/ca.key") == b"sealed"


def test_plain_store_is_sealed_once_there_are_recipients(tmp_path: Path, identity: tuple[Path, str]) -> None:
    issue_store(quickstart(), tmp_path / "secrets")
    sealed = SecretStore(tmp_path / "secrets", recipients=identity[1], identity_file=identity[0])
    names = sealed.names()
    key = sealed.read("pki/ca.key")
    assert issue_material(quickstart(), sealed, Report(), now=NOW).changes == ()
    left = [
        path for path in (tmp_path / "secrets").rglob("*") if path.name.endswith((".key", "-token", "-key"))
    ]
    assert left == []
    again = SecretStore(tmp_path / "secrets", recipients=identity[1], identity_file=identity[0])
    assert again.names() == names
    assert again.read("pki/ca.key") == key


@pytest.mark.parametrize("text", ["nonsense\n", "# only a comment\n", "age1xyz"])
def test_bad_recipients_are_refused_before_anything_is_written(text: str, tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "secrets", recipients=text)
    with pytest.raises(ImagegenError, match="recipient"):
        store.write("pki/ca.key", b"secret")
    assert not store.exists("pki/ca.key")


def test_references_resolve_in_every_encoding(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.write("pki/ca.crt", b'a"\n')
    body = (
        "x",
        b"y",
        Ref("pki/ca.crt"),
        Ref("pki/ca.crt", encoding="base64"),
        Ref("pki/ca.crt", encoding="json-string"),
    )
    assert resolve_content(body, store) == b'xya"\nYSIK"a\\"\\n"'
    store.write("pki/ca.crt", b"\xff")
    with pytest.raises(StoreError, match="not text"):
        resolve_content((Ref("pki/ca.crt", encoding="json-string"),), store)
