"""Images of one node with its keys inside (``image.pki: baked``), in every format, as ``scan`` sees them."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagegen.backends.cloudinit import CloudInit
from imagegen.backends.image import batch
from imagegen.backends.image.debianpackages import STATUS, SUMS
from imagegen.backends.image.imageplan import ImagePlan, list_base_packages, plan_image
from imagegen.backends.image.layers import LayerCache
from imagegen.backends.image.nodeseed import SEED_FOLDER, NodeSeed, make_node_seed
from imagegen.backends.image.partitions import plan_layout
from imagegen.backends.image.recipe import RAW, Workshop
from imagegen.backends.image.sources import Digests
from imagegen.diagnostics import Report
from imagegen.errors import MissingToolError
from imagegen.pki.issue import issue_material
from imagegen.pki.store import SecretStore
from imagegen.plan.plan import Plan
from imagegen.run import Runner
from tests.backends.image.fakedisk import write_disk
from tests.cli.conftest import Imagegen
from tests.plan.plans import make_plan, write_cluster
from tests.verify.plants import EC_PEM

EPOCH = 1_767_225_600
NODE = "{name: solo, roles: [etcd, master, worker], address: 10.240.0.10}"
FILES = tuple(f"quickstart-solo.{ext}" for ext in ("raw", "qcow2", "vmdk", "gce.tar.gz", "iso", "ova"))
IMAGE = "image: {pki: baked, size: 1GiB, formats: [raw, qcow2, vmdk, gce, iso, ova]}\n"

pytestmark = pytest.mark.process


@dataclass(frozen=True)
class Built:
    """An output folder with the images of one node, and that node's seed."""

    images: Path
    seed: NodeSeed


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Written by the product around a small root of our own in the place of the role's layer."""
    folder = tmp_path_factory.mktemp("baked")
    plan = make_plan(write_cluster(folder, (NODE,), more=IMAGE))
    seed = _issue_seed(plan, folder)
    (role_plan,) = plan.role_plans
    image = plan_image(
        plan.cluster,
        role_plan,
        list_base_packages(role_plan),
        plan.cluster.image.formats,
        digests=Digests(binaries={}, images={}),
        epoch=EPOCH,
        seed=seed,
    )
    try:
        batch.check_ready([image])
    except MissingToolError as missing:
        pytest.skip(str(missing))
    cache, part = LayerCache(root=folder / "layers"), folder / "part"
    part.write_bytes(b"program")
    cache.get_or_build("role", image.role_key, lambda layer: _fill_role(image, layer, folder))
    shop = Workshop(runner=Runner(), cache=cache, find_source=lambda source: part, epoch=EPOCH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        batch.build_images(shop, [image], folder / "out")
        yield Built(folder / "out/images", seed)


def _issue_seed(plan: Plan, folder: Path) -> NodeSeed:
    store = SecretStore(folder / "secrets")
    issue_material(plan.cluster, store, Report(), now=datetime.now(UTC))
    return make_node_seed(CloudInit(plan.cluster, store).lower_node(plan.node_plan("solo")))


def _fill_role(image: ImagePlan, layer: Path, folder: Path) -> None:
    tree = folder / "tree"
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "etc").mkdir()
    (tree / "etc/machine-id").touch()
    write_disk(tree, plan_layout(image.role_key, image.cluster.image.size_mib), layer / RAW, epoch=EPOCH)
    subprocess.run(["mksquashfs", tree, layer / "root.squashfs", "-quiet", "-no-progress"], check=True)
    for name in ("vmlinuz", "initrd.img", STATUS, SUMS):
        (layer / name).touch()
    tarfile.open(layer / "copyrights.tar", "w").close()


def _count_keys(seed: NodeSeed) -> int:
    """Different private keys in what cloud-init will write, by PyYAML and Python's decoders: a secret that a
    file has twice is one finding.
    """
    encodings = {"b64": (base64.b64decode,), "gz+b64": (base64.b64decode, gzip.decompress)}
    keys = set()
    for row in yaml.safe_load(seed.files["user-data"])["write_files"]:
        body = row["content"]
        for decode in encodings.get(row.get("encoding", ""), ()):
            body = decode(body)
        plain = body if isinstance(body, bytes) else body.encode()
        keys |= set(re.findall(rb"(?s)-----BEGIN PRIVATE KEY-----.+?-----END PRIVATE KEY-----", plain))
    return len(keys)


def _scan(imagegen: Imagegen, *words: str | Path) -> tuple[int, dict[str, Any], str]:
    done = imagegen("scan", "--format", "json", *words)
    (image,) = json.loads(done.out)["images"]
    return done.code, image, done.err


def _keys(findings: list[dict[str, Any]]) -> list[str]:
    return [found["path"] for found in findings if found["kind"] == "private key"]


def _seed_file(name: str) -> str:
    prefix = "quickstart-solo-disk1.vmdk!" if name.endswith(".ova") else ""
    return "/seed/user-data" if name.endswith(".iso") else f"{prefix}partition 3:{SEED_FOLDER}/user-data"


@pytest.mark.parametrize("name", FILES)
def test_keys_are_expected_in_the_image_that_the_manifest_knows(
    imagegen: Imagegen, built: Built, name: str
) -> None:
    code, image, err = _scan(imagegen, built.images / name)
    assert (code, image["findings"], image["unread"]) == (0, [], [])
    assert len(_keys(image["allowed"])) == _count_keys(built.seed) >= 5
    assert set(_keys(image["allowed"])) == {_seed_file(name)}
    assert "a secret: the image of one node, with its seed inside" in err
    assert f"0 findings, {len(image['allowed'])} expected in its seed" in err


@pytest.mark.parametrize("name", FILES)
def test_the_same_keys_are_findings_in_a_copy_that_no_manifest_knows(
    imagegen: Imagegen, built: Built, name: str, tmp_path: Path
) -> None:
    copy = tmp_path / name
    subprocess.run(["cp", "--sparse=always", built.images / name, copy], check=True)
    code, image, err = _scan(imagegen, copy)
    assert (code, image["allowed"], image["unread"]) == (1, [], [])
    assert _keys(image["findings"]) == [_seed_file(name)] * _count_keys(built.seed)
    assert "a secret" not in err
    assert "expected" not in err


def test_a_user_who_says_what_the_copy_is_is_believed(
    imagegen: Imagegen, built: Built, tmp_path: Path
) -> None:
    shutil.copy(built.images / FILES[1], tmp_path)
    code, image, err = _scan(imagegen, tmp_path / FILES[1], "--node-image")
    assert (code, image["findings"]) == (0, [])
    assert len(_keys(image["allowed"])) == _count_keys(built.seed)
    assert "expected in its seed" in err


def test_a_key_beside_the_seed_is_a_finding_all_the_same(
    imagegen: Imagegen, built: Built, tmp_path: Path
) -> None:
    subprocess.run(["cp", "--sparse=always", built.images / FILES[0], tmp_path], check=True)
    (tmp_path / "key.pem").write_bytes(EC_PEM)
    table = subprocess.run(
        ["sfdisk", "--json", tmp_path / FILES[0]], check=True, capture_output=True, text=True
    )
    offset = json.loads(table.stdout)["partitiontable"]["partitions"][2]["start"] * 512
    request = f"write {tmp_path}/key.pem /etc/key.pem"
    subprocess.run(
        ["debugfs", "-w", "-R", request, f"{tmp_path / FILES[0]}?offset={offset}"],
        check=True,
        capture_output=True,
    )
    code, image, _ = _scan(imagegen, tmp_path / FILES[0], "--node-image")
    assert (code, _keys(image["findings"])) == (1, ["partition 3:/etc/key.pem"])
