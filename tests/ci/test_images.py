"""Images that the mirror makes: what the product fetches, and what foreign tools read."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import pytest
from mirror.debian import DebianArchive
from mirror.debian_kubernetes import DebianMaker
from mirror.gomodules import GoBuilder, Unavailable
from mirror.images import BIND_SERVICE, Image, LayerFile, add_image, has_image, list_files
from mirror.layout import Mirror
from mirror.podimages import PodImages

from imagegen.fetch import Lock
from imagegen.fetch.images import fetch_images
from imagegen.kubernetes.releases import load_releases
from imagegen.model.version import parse_version
from imagegen.run import Runner
from tests.conftest import require_judge

REFERENCE = "registry.k8s.io/coredns/coredns:v1.2.3"
IMAGE = Image(
    reference=REFERENCE,
    files=(
        LayerFile(path="opt/bin/coredns", body=b"\x7fELF", capability=BIND_SERVICE),
        LayerFile(path="usr/bin/tool", body=b"tool"),
        LayerFile(path="bin", link="usr/bin"),
    ),
    settings={"Entrypoint": ["/opt/bin/coredns"], "User": "65532"},
)


def fetch(mirror: Mirror, cache: Path) -> Path:
    found = fetch_images([REFERENCE], lock=Lock(), mirror=str(mirror.root), cache_dir=cache, offline=True)
    return found[REFERENCE].path


def read_archive(path: Path) -> tuple[dict[str, object], bytes]:
    """The configuration and the unpacked layer."""
    with tarfile.open(path) as archive:

        def read(digest: str) -> bytes:
            stream = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert stream is not None
            return stream.read()

        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        manifest = json.loads(read(index["manifests"][0]["digest"]))
        return json.loads(read(manifest["config"]["digest"])), gzip.decompress(
            read(manifest["layers"][0]["digest"])
        )


def test_product_fetches_what_the_mirror_made(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    assert not has_image(mirror, REFERENCE, "v1")
    add_image(mirror, IMAGE, "v1")
    assert has_image(mirror, REFERENCE, "v1")
    assert not has_image(mirror, REFERENCE, "v2")
    config, layer = read_archive(fetch(mirror, tmp_path / "cache"))
    assert config["config"] == {"Entrypoint": ["/opt/bin/coredns"], "User": "65532"}
    (tmp_path / "layer.tar").write_bytes(layer)
    with tarfile.open(tmp_path / "layer.tar") as archive:
        entries = {entry.name: entry for entry in archive}
    assert list(entries) == ["bin", "opt", "opt/bin", "opt/bin/coredns", "usr", "usr/bin", "usr/bin/tool"]
    assert entries["opt"].isdir()
    assert entries["bin"].linkname == "usr/bin"
    # what `setcap cap_net_bind_service=+ep` writes
    capability = entries["opt/bin/coredns"].pax_headers["SCHILY.xattr.security.capability"]
    assert capability.encode() == bytes.fromhex("0100000200040000000000000000000000000000")


def test_image_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    archives = []
    for run in ("a", "b"):
        mirror = Mirror(tmp_path / run)
        add_image(mirror, IMAGE, "v1")
        archives.append(fetch(mirror, tmp_path / f"cache-{run}").read_bytes())
    assert archives[0] == archives[1]


def test_damaged_image_is_refused(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    add_image(mirror, IMAGE, "v1")
    for blob in (mirror.root / "registry.k8s.io").rglob("blobs/*"):
        blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(Exception, match="IMG602"):
        fetch(mirror, tmp_path / "cache")


def test_files_of_packages_are_merged_into_usr(tmp_path: Path) -> None:
    for name in ("lib/x86_64-linux-gnu/libc.so.6", "usr/sbin/nft", "usr/share/doc/nft"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "usr/sbin/link").symlink_to("nft")
    found = {file.path: file for file in list_files(tmp_path, "lib", "usr/sbin")}
    assert set(found) == {"usr/lib/x86_64-linux-gnu/libc.so.6", "usr/sbin/nft", "usr/sbin/link"}
    assert found["usr/sbin/link"].link == "nft"


@pytest.mark.judge
def test_skopeo_reads_the_image(tmp_path: Path) -> None:
    skopeo = require_judge("skopeo")
    mirror = Mirror(tmp_path / "mirror")
    add_image(mirror, IMAGE, "v1")
    archive = fetch(mirror, tmp_path / "cache")
    done = skopeo.run("copy", "--insecure-policy", f"oci-archive:{archive}", f"dir:{tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["layers"]


def make_images(mirror: Mirror, work: Path) -> PodImages:
    runner = Runner()
    go = GoBuilder(runner=runner, work=work)
    debian = DebianArchive(runner=runner, work=work)
    packages = DebianMaker(runner=runner, debian=debian, work=work, cache=work)
    return PodImages(runner=runner, go=go, firewall=debian, packages=packages, mirror=mirror)


@pytest.mark.parametrize(
    ("version", "reference"),
    [
        ("1.20.2", "registry.k8s.io/kube-apiserver:v1.20.2"),
        ("1.10.13", "registry.k8s.io/kube-apiserver-amd64:v1.10.13"),
    ],
)
def test_the_image_of_a_daemon_holds_the_program_of_the_mirror(
    tmp_path: Path, version: str, reference: str
) -> None:
    releases, mirror = load_releases(parse_version(version)), Mirror(tmp_path / "mirror")
    images = make_images(mirror, tmp_path / "work")
    with pytest.raises(Unavailable, match=f"no kube-apiserver {version}"):
        images.make("kube-apiserver", releases)
    (tmp_path / "program").write_bytes(b"\x7fELF")
    mirror.add(releases.part("kube-apiserver"), tmp_path / "program", "a test")
    image = images.make("kube-apiserver", releases)
    assert image.reference == reference
    program = next(file for file in image.files if file.path == "usr/local/bin/kube-apiserver")
    assert (program.body, program.capability) == (b"\x7fELF", BIND_SERVICE)
    add_image(mirror, image, images.origin("kube-apiserver", releases))
    assert mirror.has_manifest(reference)
