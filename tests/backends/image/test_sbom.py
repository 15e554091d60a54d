"""The bill of materials: complete, the same bytes every time, valid to CycloneDX's strict validator."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from imagegen.backends.image.imageplan import ImagePlan, list_sources, plan_image
from imagegen.backends.image.layers import LayerCache
from imagegen.backends.image.recipe import Workshop, build_bill
from imagegen.backends.image.sbom import Bill, DebianPackage, emit_bill, parse_dpkg_status
from imagegen.backends.image.sources import Digests
from imagegen.backends.output import OutputFolder
from imagegen.diagnostics import Report
from imagegen.model.cluster import DiskFormat
from imagegen.model.load import load_cluster
from imagegen.plan.build import build_plan
from imagegen.plan.items import Binary, ContainerImage, Origin, Phase
from imagegen.plan.profiles import load_profiles
from imagegen.resources import find_resource
from imagegen.run import Runner

EPOCH = 1_767_225_600
STATUS = """\
Package: zlib1g
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Source: zlib
Version: 1:1.3.dfsg+really1.3.1-1+b1
Description: compression library
 Version: of the description, not of the package

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: adduser
Status: hold ok installed
Architecture: all
Version: 3.152
Conffiles:
 /etc/adduser.conf 00000000000000000000000000000000
"""
PACKAGES = (
    DebianPackage(name="adduser", version="3.152", architecture="all"),
    DebianPackage(name="zlib1g", version="1:1.3.dfsg+really1.3.1-1+b1", architecture="amd64"),
)
_ORIGIN = Origin("test")


def _binary(path: str, part: str, member: str = "") -> Binary:
    return Binary(phase=Phase.BAKE, origin=_ORIGIN, path=path, part=part, version="1.2.3", member=member)


@pytest.fixture
def bill(tmp_path: Path) -> Bill:
    files = {}
    for name in ("kubelet", "ctr"):
        files[name] = tmp_path / name
        files[name].write_bytes(name.encode())
    pause = ContainerImage(
        phase=Phase.BAKE, origin=_ORIGIN, reference="registry.example:5000/base/pause:3.10"
    )
    pinned = ContainerImage(
        phase=Phase.BAKE, origin=_ORIGIN, reference="registry.example/dns@sha256:" + "0" * 64
    )
    return Bill(
        name="quickstart-worker",
        image_id="0123456789abcdef01234567",
        distribution="debian-13",
        packages=PACKAGES,
        sources={
            _binary("/usr/local/bin/kubelet", "kubelet"): files["kubelet"],
            _binary("/usr/local/bin/ctr", "containerd", "bin/ctr"): files["ctr"],
            pause: files["ctr"],
            pinned: files["ctr"],
        },
        epoch=EPOCH,
    )


def _by_ref(data: bytes) -> dict[str, Any]:
    return {part["bom-ref"]: part for part in json.loads(data)["components"]}


def test_installed_packages_are_read() -> None:
    assert parse_dpkg_status(STATUS) == PACKAGES


@pytest.mark.judge
def test_strict_validator(bill: Bill) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(emit_bill(bill).decode()) is None


def test_everything_is_listed(bill: Bill) -> None:
    parts = _by_ref(emit_bill(bill))
    assert len(parts) == 6
    zlib = PackageURL.from_string(parts["deb:zlib1g:amd64"]["purl"])
    assert (zlib.type, zlib.namespace, zlib.version) == ("deb", "debian", PACKAGES[1].version)
    assert zlib.qualifiers == {"arch": "amd64", "distro": "debian-13"}
    ctr = parts["file:/usr/local/bin/ctr"]
    assert ctr["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"ctr").hexdigest()}]
    assert ctr["purl"] == "pkg:generic/containerd@1.2.3#bin/ctr"
    pause = PackageURL.from_string(parts["oci:registry.example:5000/base/pause:3.10"]["purl"])
    assert pause.qualifiers == {"repository_url": "registry.example:5000/base/pause", "tag": "3.10"}
    assert not any("licenses" in part for part in parts.values())


def test_the_subject_depends_on_every_part(bill: Bill) -> None:
    document = json.loads(emit_bill(bill))
    assert document["metadata"]["component"]["name"] == "quickstart-worker"
    subject = next(entry for entry in document["dependencies"] if entry["ref"] == "image")
    assert set(subject["dependsOn"]) == set(_by_ref(emit_bill(bill)))


def test_same_input_same_bytes_in_any_order(bill: Bill) -> None:
    turned = Bill(
        name=bill.name,
        image_id=bill.image_id,
        distribution=bill.distribution,
        packages=bill.packages[::-1],
        sources=dict(reversed(list(bill.sources.items()))),
        epoch=bill.epoch,
    )
    assert emit_bill(turned) == emit_bill(bill)
    assert b'"timestamp": "2026-01-01T00:00:00+00:00"' in emit_bill(bill)


@pytest.fixture
def image() -> ImagePlan:
    report = Report()
    cluster = load_cluster(find_resource("examples", "quickstart", "cluster.yaml"), report)
    assert cluster is not None
    plan = build_plan(cluster, load_profiles((), report), report)
    assert plan is not None, report.render_text()
    worker = next(role_plan for role_plan in plan.role_plans if role_plan.name == "worker")
    digests = Digests(binaries={}, images={})
    return plan_image(cluster, worker, ["systemd"], (DiskFormat.QCOW2,), digests=digests, epoch=EPOCH)


def test_it_lies_beside_the_images_and_in_the_manifest(image: ImagePlan, tmp_path: Path) -> None:
    cache = LayerCache(root=tmp_path / "cache")
    cache.get_or_build("system", image.system_key, lambda folder: None)
    cache.get_or_build("role", image.role_key, lambda folder: _write_status(folder))
    part = tmp_path / "part"
    part.write_bytes(b"program")
    shop = Workshop(runner=Runner(), cache=cache, find_source=lambda source: part, epoch=EPOCH)
    for _ in range(2):
        with OutputFolder(tmp_path / "out", cluster="quickstart") as folder:
            build_bill(shop, folder, image)
            folder.commit(lambda path: False)
    document = (tmp_path / "out" / "images" / "quickstart-worker.cdx.json").read_bytes()
    assert folder.summary.written == 0
    names = {part["name"] for part in json.loads(document)["components"]}
    assert {"adduser", "zlib1g", "kubelet"} <= names
    assert len(json.loads(document)["components"]) == len(PACKAGES) + len(list_sources([image]))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [row["path"] for row in manifest["artifacts"]] == ["images/quickstart-worker.cdx.json"]


def _write_status(folder: Path) -> None:
    (folder / "dpkg-status").write_text(STATUS)
