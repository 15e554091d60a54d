"""Every planted secret is found in every kind of image, nothing else is, and nobody repeats the secret."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from imagegen.errors import ImagegenError
from imagegen.progress import Event, Progress, StepDone
from imagegen.run import Runner
from imagegen.verify import freespace
from imagegen.verify.roots import unpack_root
from imagegen.verify.scan import Allowed, Finding, ScanResult, read_allowed, scan_image
from tests.verify.plants import DECOYS, EC_PEM, PLANTS, TOKEN, Plant

ALL = {plant.path: plant.body for plant in PLANTS}


def _write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, body in files.items():
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
    return folder


def _scan(image: Path) -> ScanResult:
    return scan_image(Runner(), image, allowed=())


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.path)
def test_every_plant_is_found_once_and_where_it_is(plant: Plant, tmp_path: Path) -> None:
    result = _scan(_write(tmp_path, {plant.path: plant.body}))
    found = [finding for finding in result.findings if finding.kind == plant.kind]
    assert [finding.wrapped for finding in found] == [plant.wrapped], result.findings
    assert found[0].path.startswith(plant.path)
    assert len(result.findings) == 1
    assert not result.unread


@pytest.mark.parametrize("path", DECOYS)
def test_what_only_looks_like_a_secret_is_left_alone(path: str, tmp_path: Path) -> None:
    result = _scan(_write(tmp_path, {path: DECOYS[path]}))
    assert result.is_clean, result


def test_findings_come_in_the_order_of_their_places(tmp_path: Path) -> None:
    lines = [b"x\n"] * 120
    lines[8] = b"token: 07401b.f395accd246ae52d\n"
    lines[100] = b"token: abc01b.f395accd246ae52d\n"
    (tmp_path / "k").write_bytes(b"".join(lines))
    assert [finding.where for finding in _scan(tmp_path).findings] == ["line 9", "line 101"]


def test_the_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"one\ntwo\n" + EC_PEM)
    assert _scan(tmp_path).findings == [Finding(path="/k", where="line 3", kind="private key")]


def test_a_secret_across_the_border_of_two_windows_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"\0" * ((16 << 20) - 100) + EC_PEM + b"\0" * 5000)
    assert [finding.where for finding in _scan(tmp_path).findings] == [f"byte {(16 << 20) - 100}"]


# --- images of every format


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("tree"), ALL)


@pytest.fixture(scope="session")
def ext4(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tmp_path_factory.mktemp("ext4") / "root.ext4"
    _run("mke2fs", "-q", "-t", "ext4", "-d", tree, image, "16M")
    return image


@pytest.fixture(scope="session")
def disk(ext4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT with a raw partition, an EFI system partition and a root, each holding a secret."""
    folder = tmp_path_factory.mktemp("disk")
    raw, esp, key = folder / "disk.raw", folder / "esp", folder / "key"
    key.write_bytes(EC_PEM)
    with open(esp, "wb") as handle:
        handle.truncate(2 << 20)
    _run("mformat", "-i", esp, "-T", str(4096), "-h", "16", "-s", "32", "::")
    _run("mcopy", "-i", esp, key, "::/KEY.PEM")
    with open(raw, "wb") as handle:
        handle.truncate(24 << 20)
    script = "label: gpt\nstart=2048,size=2048\nstart=4096,size=4096\nstart=8192,size=32768\n"
    _run("sfdisk", "-q", raw, stdin=script)
    with open(raw, "r+b") as handle:
        for offset, part in ((2048, key), (4096, esp), (8192, ext4)):
            handle.seek(offset * 512)
            handle.write(part.read_bytes())
    return raw


def _run(*argv: str | Path, stdin: str = "") -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(
        [str(word) for word in argv],
        input=stdin,
        text=True,
        check=True,
        capture_output=True,
        env={"PATH": path},
    )


@pytest.mark.process
def test_what_a_deleted_file_leaves_in_free_space_is_found(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/key.pem").write_bytes(bytes(8000) + EC_PEM)
    image = tmp_path / "root.ext4"
    _run("mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "tree", image, "16M")
    _run("debugfs", "-w", "-R", "rm /key.pem", image)
    (finding,) = _scan(image).findings
    assert finding.kind == "private key"
    assert finding.path.startswith("(free space at byte ")


@pytest.mark.process
def test_a_file_system_that_is_made_from_a_folder_has_nothing_in_its_free_space(ext4: Path) -> None:
    """So do the golden images': what a build removed was never on the disk."""
    assert list(freespace.list_leftovers(Runner(), ext4, 0)) == []


def _paths(result: ScanResult, prefix: str) -> set[str]:
    own = (finding.path for finding in result.findings if finding.path.startswith(prefix))
    return {path.removeprefix(prefix).split("!")[0] for path in own}


@pytest.mark.process
def test_ext4(ext4: Path) -> None:
    result = _scan(ext4)
    assert _paths(result, "") == set(ALL)
    assert not result.unread


@pytest.mark.process
@pytest.mark.parametrize("name", ["raw", "qcow2", "vmdk", "vdi", "vpc"])
def test_disks(name: str, disk: Path, tmp_path: Path) -> None:
    image = tmp_path / f"disk.{name}"
    _run("qemu-img", "convert", "-f", "raw", "-O", name, disk, image)
    result = _scan(image)
    assert _paths(result, "partition 3:") == set(ALL)
    assert _paths(result, "partition 2:") == {"/KEY.PEM"}
    assert _paths(result, "partition 1:") == {"(raw)"}
    assert not result.unread


@pytest.mark.process
def test_ova(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "x.ovf").write_text("<Envelope/>")
    _run("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", disk, tmp_path / "x.vmdk")
    _run("tar", "-C", tmp_path, "--format=ustar", "-cf", tmp_path / "x.ova", "x.ovf", "x.vmdk")
    assert _paths(_scan(tmp_path / "x.ova"), "x.vmdk!partition 3:") == set(ALL)


@pytest.mark.process
def test_gce(disk: Path, tmp_path: Path) -> None:
    shutil.copy(disk, tmp_path / "disk.raw")
    _run("tar", "-C", tmp_path, "--format=oldgnu", "-Sczf", tmp_path / "x.tar.gz", "disk.raw")
    assert _paths(_scan(tmp_path / "x.tar.gz"), "partition 3:") == set(ALL)


@pytest.mark.process
def test_iso_and_the_squashfs_in_it(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "content").mkdir()
    _run("mksquashfs", tree, tmp_path / "content" / "root.squashfs", "-quiet")
    (tmp_path / "content" / "user-data").write_bytes(b"token: " + TOKEN)
    _run("xorriso", "-as", "mkisofs", "-R", "-J", "-o", tmp_path / "x.iso", tmp_path / "content")
    result = _scan(tmp_path / "x.iso")
    inside = {
        finding.path.partition("!")[2].split("!")[0]
        for finding in result.findings
        if "squashfs" in finding.path
    }
    assert inside == set(ALL)
    assert "/user-data" in _paths(result, "")


@pytest.mark.process
def test_an_iso_that_boots_is_read_with_its_catalogue(tmp_path: Path) -> None:
    content = tmp_path / "content"
    (content / "live").mkdir(parents=True)
    (content / "boot.img").write_bytes(bytes(2048))
    (content / "empty").write_bytes(b"")
    _run(
        "mksquashfs",
        _write(tmp_path / "tree", {"/etc/key": EC_PEM}),
        content / "live/root.squashfs",
        "-quiet",
    )
    argv = ["-R", "-b", "boot.img", "-c", "boot.catalog", "-no-emul-boot", "-o", tmp_path / "x.iso"]
    _run("xorriso", "-as", "mkisofs", *argv, content)
    result = _scan(tmp_path / "x.iso")
    assert [finding.path for finding in result.findings] == ["/live/root.squashfs!/etc/key"]
    assert not result.unread
    assert result.files == 4
    (tmp_path / "work").mkdir()
    root = unpack_root(Runner(), tmp_path / "x.iso", tmp_path / "work")
    assert (root / "etc/key").read_bytes() == EC_PEM


@pytest.mark.process
@pytest.mark.parametrize(("folder", "kinds"), [("seed", []), ("other", ["no seed of the image's node"])])
def test_a_seed_without_keys_is_a_seed(folder: str, kinds: list[str], tmp_path: Path) -> None:
    """A node with the role base alone has no key of its own."""
    _write(tmp_path / "content", {f"{folder}/user-data": b"#cloud-config\n{}\n"})
    _run("xorriso", "-as", "mkisofs", "-R", "-o", tmp_path / "x.iso", tmp_path / "content")
    result = scan_image(Runner(), tmp_path / "x.iso", has_seed=True)
    assert [finding.kind for finding in result.findings] == kinds


@pytest.mark.process
def test_images_in_a_folder_are_opened(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "user-data").write_bytes(b"token: " + TOKEN)
    (tmp_path / "out").mkdir()
    _run("xorriso", "-as", "mkisofs", "-R", "-J", "-o", tmp_path / "out" / "seed.iso", tmp_path / "content")
    (tmp_path / "out" / "broken.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(9000))
    result = _scan(tmp_path / "out")
    assert [finding.path for finding in result.findings] == ["/seed.iso!/user-data"]
    assert [trouble.path for trouble in result.unread] == ["/broken.iso!/"]


def test_tar(tree: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "x"), "tar", tree)
    found = {finding.path.split("!")[1].removeprefix("/.") for finding in _scan(tmp_path / "x.tar").findings}
    assert found == set(ALL)


# --- hostile input


def _bomb() -> bytes:
    return gzip.compress(bytes(80 << 20))


def _zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(80 << 20))
    return buffer.getvalue()


def _matryoshka() -> bytes:
    data = b"nothing"
    for _ in range(20):
        data = gzip.compress(data)
    return data


@pytest.mark.parametrize("make", [_bomb, _zip_bomb, _matryoshka])
def test_what_cannot_be_read_in_bounds_is_reported(make: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(make())
    result = _scan(tmp_path)
    assert not result.findings
    assert [trouble.path for trouble in result.unread] == ["/x"]
    assert not result.is_clean


@pytest.mark.process
def test_an_image_that_needs_another_file_is_refused(disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "x.qcow2"
    _run("qemu-img", "create", "-f", "qcow2", "-b", disk, "-F", "raw", image)
    with pytest.raises(ImagegenError, match="needs other files"):
        _scan(image)


@pytest.mark.parametrize("head", [b"\x1f\x8b\x08" + bytes(5000), bytes(257) + b"ustar" + b"\xff" * 5000])
def test_a_damaged_archive_is_read_as_plain_bytes(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(head + EC_PEM)
    for image in (tmp_path, tmp_path / "x.tar.gz"):
        assert [finding.kind for finding in _scan(image).findings] == ["private key"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(EC_PEM)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("../outside")
    assert _scan(tmp_path / "in").is_clean


# --- the allow-list, the command


def test_allowed_findings_are_told_apart(tmp_path: Path) -> None:
    _write(tmp_path, {"/usr/lib/libx.so": EC_PEM, "/etc/k": EC_PEM})
    rule = Allowed(path="/usr/lib/libx.so*", kind="private key", reason="self-test")
    result = scan_image(Runner(), tmp_path, allowed=[rule])
    assert [finding.path for finding in result.findings] == ["/etc/k"]
    assert [(finding.path, reason) for finding, reason in result.allowed] == [
        ("/usr/lib/libx.so", "self-test")
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/usr/bin/x",
        "partition 3:/usr/bin/x",
        "/live/root.squashfs!/usr/bin/x",
        "a.vmdk!partition 3:/usr/bin/x",
    ],
)
def test_allowed_wherever_the_file_system_lies(path: str) -> None:
    rule = Allowed(path="/usr/bin/x", kind="private key", reason="self-test")
    assert rule.covers(Finding(path=path, where="byte 1", kind="private key"))
    assert not rule.covers(Finding(path=f"{path}/y", where="byte 1", kind="private key"))
    assert not rule.covers(Finding(path=path, where="byte 1", kind="password hash"))


def test_the_allow_list_gives_reasons_and_allows_no_plant() -> None:
    for rule in read_allowed():
        assert len(rule.reason) > 20
        assert rule.path.startswith("/usr/")
        assert rule.kind != "*"
    for plant in PLANTS:
        finding = Finding(path=plant.path, where="line 1", kind=plant.kind)
        assert not any(rule.covers(finding) for rule in read_allowed())


def test_progress_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    events: list[Event] = []
    scan_image(Runner(), tmp_path, progress=Progress(events.append))
    assert events[-1] == StepDone(f"scanning {tmp_path.name}", "1 files, 0 MiB")
