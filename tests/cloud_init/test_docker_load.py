"""The program that loads the image archives of a golden image into Docker, with a docker that remembers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from imagegen.resources import find_resource
from tests.conftest import require_judge

pytestmark = pytest.mark.process

PROGRAM = find_resource("cloud-init", "docker-load")
NAME = "registry.k8s.io/pause:3.2"


def write_archive(path: Path) -> None:
    """An OCI archive as ``imagegen.fetch.images`` packs it: one layer with one file."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pause"), io.BytesIO())
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]}
    settings = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    blobs: dict[str, bytes] = {}

    def add(body: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(body).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = body
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": f"sha256:{digest}",
            "size": len(body),
        }

    manifest = {
        "schemaVersion": 2,
        "config": add(json.dumps(settings).encode(), "config.v1+json"),
        "layers": [add(gzip.compress(layer.getvalue(), mtime=0), "layer.v1.tar+gzip")],
    }
    entry = add(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": NAME}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, body in blobs.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    write_archive(tmp_path / "images/pause.tar")
    (tmp_path / "docker").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n[ ! -e {tmp_path}/broken ]\n')
    (tmp_path / "docker").chmod(0o755)
    program = PROGRAM.read_text().replace("/usr/bin/docker", str(tmp_path / "docker"))
    (tmp_path / "docker-load").write_text(program)
    return tmp_path


def load(folder: Path) -> subprocess.CompletedProcess[str]:
    argv = ["/usr/bin/python3", folder / "docker-load", folder / "images"]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def test_every_archive_is_loaded_once(folder: Path) -> None:
    for _ in range(2):
        assert load(folder).returncode == 0
    assert calls(folder) == [f"load --quiet --input {folder}/images/pause.tar"]


def test_what_docker_refuses_is_tried_again(folder: Path) -> None:
    (folder / "broken").touch()
    done = load(folder)
    assert (done.returncode, "pause.tar" in done.stderr) == (1, True)
    (folder / "broken").unlink()
    assert load(folder).returncode == 0
    assert len(calls(folder)) == 2


def test_an_archive_that_is_none_does_not_stop_the_others(folder: Path) -> None:
    (folder / "images/0-broken.tar").write_bytes(b"no archive")
    assert load(folder).returncode == 1
    assert len(calls(folder)) == 1


@pytest.mark.judge
def test_skopeo_reads_the_archive_as_docker_would(folder: Path) -> None:
    skopeo = require_judge("skopeo")
    archive = folder / "images/pause.tar"
    assert skopeo.run("inspect", f"docker-archive:{archive}").returncode != 0
    assert load(folder).returncode == 0
    done = skopeo.run("inspect", f"docker-archive:{archive}:{NAME}")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["Layers"]) == 1
