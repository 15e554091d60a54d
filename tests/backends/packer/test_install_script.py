"""``install.sh`` on this machine, into a folder: what it puts there; that it verifies everything first."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from imagegen.backends.packer.payload import lower_payload
from imagegen.kubernetes.releases import Part
from imagegen.plan.items import Binary, ContainerImage, Directory, File, Item, Origin, Phase, Symlink
from imagegen.resources import find_resource

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to root"),
]

ORIGIN = Origin("profiles/test.yaml", 7, "a test")
BAKE = Phase.BAKE

#: what every layer between a profile and a machine could take for something of its own
HOSTILE = (
    "${var.name} %{ if true }x%{ endif } {{ 7*7 }} {% raw %} $(id) `id` \"q\" 'a' \\n \\ \u2028 ü 日本 "
    "@SSH_PUBLIC_KEY@\n\tEOF\n"
)
HOSTILE_NAME = "/etc/hostile/${var.x} %{y} {{z}} `id` $(id) \"q\" 'a' \\ ü 日本 @SSH_PUBLIC_KEY@"


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tar(members: dict[str, bytes]) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return body.getvalue()


def _oci(layer: bytes) -> tuple[str, bytes]:
    """An OCI archive with one manifest that names one blob, and the manifest's digest."""
    manifest = json.dumps({"layers": [{"digest": f"sha256:{_sum(layer)}"}]}).encode()
    index = json.dumps({"manifests": [{"digest": f"sha256:{_sum(manifest)}"}]}).encode()
    names = {
        "index.json": index,
        f"blobs/sha256/{_sum(layer)}": layer,
        f"blobs/sha256/{_sum(manifest)}": manifest,
    }
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return _sum(manifest), body.getvalue()


RAW, ARCHIVE = b"\x7fELF raw", _tar({"bin/tool": b"\x7fELF tool", "bin/other": b"no"})
DIGEST, IMAGE = _oci(b"layer")
PARTS = {
    ("raw", "1"): Part(
        name="raw", version="1", arch="amd64", url="https://x/raw", checksum_url=None, kind="raw"
    ),
    ("packed", "1"): Part(
        name="packed",
        version="1",
        arch="amd64",
        url="https://x/packed.tgz",
        checksum_url=None,
        kind="tar.gz",
        members=("bin/tool", "bin/other"),
    ),
}
ITEMS: tuple[Item, ...] = (
    Directory(phase=BAKE, origin=ORIGIN, path="/var/lib/thing", mode="0700"),
    File(phase=BAKE, origin=ORIGIN, path=HOSTILE_NAME, content=(HOSTILE,), mode="0640"),
    File(phase=BAKE, origin=ORIGIN, path="/etc/binary", content=(bytes(range(256)),), mode="0600"),
    File(phase=BAKE, origin=ORIGIN, path="/etc/empty", content=("",)),
    Symlink(phase=BAKE, origin=ORIGIN, path="/etc/link", target="/run/$x `y`"),
    Binary(phase=BAKE, origin=ORIGIN, path="/usr/local/bin/raw", part="raw", version="1"),
    Binary(
        phase=BAKE, origin=ORIGIN, path="/usr/local/bin/tool", part="packed", version="1", member="bin/tool"
    ),
    ContainerImage(phase=BAKE, origin=ORIGIN, reference="registry.example/pause:3"),
)
CHECKSUMS = {"https://x/raw": _sum(RAW), "https://x/packed.tgz": _sum(ARCHIVE)}


class Machine:
    """A folder that stands for a machine, and the payload that lies on it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.payload = folder / "root", folder / "payload"
        self.root.mkdir()

    def upload(self, checksums: dict[str, str] = CHECKSUMS, digest: str = DIGEST) -> None:
        digests = {"registry.example/pause:3": digest}
        payload = lower_payload(ITEMS, PARTS, checksums, digests, build_user="ops")
        files = {path: body for path, body in payload.files.items() if path.startswith("payload/")}
        files |= {
            f"payload/downloads/{_sum(RAW)}": RAW,
            f"payload/downloads/{_sum(ARCHIVE)}": ARCHIVE,
            f"payload/downloads/{DIGEST}.tar": IMAGE,
        }
        for path, body in files.items():
            target = self.payload.parent / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(body)

    def install(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", find_resource("packer", "install.sh")],
            env={
                "PATH": os.environ["PATH"],
                "IMAGEGEN_ROOT": str(self.root),
                "IMAGEGEN_PAYLOAD": str(self.payload),
            },
            capture_output=True,
            text=True,
        )

    def read(self, path: str) -> tuple[str, bytes]:
        place = Path(f"{self.root}{path}")
        return f"{stat.S_IMODE(place.stat().st_mode):04o}", place.read_bytes()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_everything_arrives_byte_for_byte(machine: Machine) -> None:
    machine.upload()
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert machine.read(HOSTILE_NAME) == ("0640", HOSTILE.encode())
    assert machine.read("/etc/binary") == ("0600", bytes(range(256)))
    assert machine.read("/etc/empty") == ("0644", b"")
    assert os.readlink(machine.root / "etc/link") == "/run/$x `y`"
    assert machine.read("/usr/local/bin/raw") == ("0755", RAW)
    assert machine.read("/usr/local/bin/tool") == ("0755", b"\x7fELF tool")
    assert machine.read("/var/lib/imagegen/images/registry.example_pause_3.tar") == ("0644", IMAGE)
    assert stat.S_IMODE((machine.root / "var/lib/thing").stat().st_mode) == 0o700
    assert machine.install().returncode == 0, "it may run again"


def test_a_link_is_replaced_and_not_followed(machine: Machine, tmp_path: Path) -> None:
    machine.upload()
    (tmp_path / "victim").write_text("mine")
    (machine.root / "etc").mkdir()
    (machine.root / "etc/empty").symlink_to(tmp_path / "victim")
    assert machine.install().returncode == 0
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (machine.root / "etc/empty").is_symlink()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (_sum(RAW), "https://x/raw"),
        (_sum(ARCHIVE), "https://x/packed.tgz"),
        (f"{DIGEST}.tar", "registry.example"),
    ],
    ids=["executable", "archive", "container image"],
)
def test_a_wrong_or_missing_binary_stops_everything(machine: Machine, name: str, url: str) -> None:
    machine.upload()
    download = machine.payload / "downloads" / name
    download.write_bytes(
        download.read_bytes().replace(b"layer", b"LAYER") + (b"" if name.endswith(".tar") else b"!")
    )
    done = machine.install()
    assert done.returncode == 1
    assert "wrong checksum" in done.stderr
    assert url in done.stderr
    assert list(machine.root.iterdir()) == [], "nothing may change before everything is verified"
    download.unlink()
    done = machine.install()
    assert done.returncode == 1
    assert "is not there: run 'imagegen build --with packer'" in done.stderr
    assert list(machine.root.iterdir()) == []


def test_another_image_under_the_name_of_a_digest(machine: Machine) -> None:
    machine.upload()
    (machine.payload / "downloads" / f"{DIGEST}.tar").write_bytes(_oci(b"another")[1])
    done = machine.install()
    assert (done.returncode, list(machine.root.iterdir())) == (1, [])
    assert f"another image than sha256:{DIGEST}" in done.stderr


def test_what_was_never_pinned_is_refused(machine: Machine) -> None:
    machine.upload(checksums={})
    done = machine.install()
    assert (done.returncode, list(machine.root.iterdir())) == (1, [])
    assert "https://x/raw has no checksum: run 'imagegen fetch'" in done.stderr
    machine.upload(digest="")
    done = machine.install()
    assert (done.returncode, list(machine.root.iterdir())) == (1, [])
    assert "registry.example/pause:3 has no digest" in done.stderr
