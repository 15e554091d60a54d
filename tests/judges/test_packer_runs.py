"""Both Packers run the ends of our builds: what they read, what the last provisioner gets, what comes after.

No machine is needed: Packer's own builders ``null`` and ``file`` stand in its place.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from imagegen.resources import find_resource
from tests.backends.packer.test_install_script import HOSTILE
from tests.judges.packers import Packer

pytestmark = pytest.mark.judge

#: what a shell, HCL or a quoted string could take for its own; check_place refuses what does not work
HOSTILE_FOLDER = "a  b 'c' \"d\" $(id) ${path.root} %{y} `id` <%= ü 日本 }}"


def cut_build(start: str, end: str) -> str:
    """What build.pkr.hcl says from one line on to another."""
    text = find_resource("packer", "build.pkr.hcl").read_text()
    assert text.count(start) == text.count(end) == 1
    return text[text.index(start) : text.index(end)]


def test_values_and_folders_arrive_byte_for_byte(packer: Packer, tmp_path: Path) -> None:
    """A value of pkrvars.json, and the environment of the tests in a folder of any name."""
    folder = tmp_path / HOSTILE_FOLDER
    (folder / "verify").mkdir(parents=True)
    (folder / "verify" / "run.sh").write_text('printf "%s\\0" "$IMAGEGEN_KEY" "$IMAGEGEN_PYTEST" >ran\n')
    step = cut_build("  # Looks at the finished system", "  # Beside each image")
    (folder / "build.pkr.hcl").write_text(
        'variable "value" {\n  type = string\n}\n'
        'variable "pytest" {\n  type = string\n}\n'
        'locals {\n  work = "${path.root}/work"\n}\n'
        'source "null" "machine" {\n  communicator = "none"\n}\n'
        'build {\n  sources = ["source.null.machine"]\n'
        '  provisioner "shell-local" {\n'
        '    environment_vars = ["VALUE=${base64encode(var.value)}"]\n'
        '    inline           = ["printf %s \\"$VALUE\\" >value"]\n  }\n'
        f"{step.replace('${build.Host}:${build.Port}', '127.0.0.1:22')}}}\n"
    )
    values = {"value": HOSTILE, "pytest": "python3 -m pytest"}
    (folder / "x.auto.pkrvars.json").write_text(json.dumps(values))
    done = packer.run("build", ".", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert base64.b64decode((folder / "value").read_text()).decode() == HOSTILE
    assert (folder / "ran").read_text().split("\0") == ["./work/id_ed25519", "python3 -m pytest", ""]
    (folder / "ran").unlink()
    done = packer.run("build", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "ran").read_text().split("\0")[0] == f"{folder}/work/id_ed25519"


@pytest.mark.parametrize("without", [False, True])
def test_sums_manifest_and_packed_copy(packer: Packer, without: bool, tmp_path: Path) -> None:
    steps = cut_build("  # Beside each image", "  # And a copy")
    copy = find_resource("packer", "build.pkr.hcl").read_text().partition("  # And a copy")[2]
    (tmp_path / "build.pkr.hcl").write_text(
        'variable "name" {\n  default = "packed-etcd+master"\n}\n'
        'locals {\n  output     = "${path.root}/output"\n  image_type = { "file" = "qcow2" }\n}\n'
        'source "file" "image" {\n'
        '  target  = "${local.output}/file-image/${var.name}.qcow2"\n  content = "an image"\n}\n'
        f'build {{\n  name = "worker"\n  sources = ["source.file.image"]\n{steps}  # And a copy{copy}'
    )
    words = ["-only=*.file.image", "-except=compress"] if without else []
    done = packer.run("build", *words, ".", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    image = "packed-etcd+master.qcow2"
    place = tmp_path / "output" / "file-image"
    packed = set() if without else {f"{image}.gz"}
    assert {path.name for path in place.iterdir()} == {image, "packed-etcd+master.sha256"} | packed
    assert (place / image).read_text() == "an image"
    if not without:
        assert gzip.decompress((place / f"{image}.gz").read_bytes()) == b"an image"
    sums = subprocess.run(
        ["sha256sum", "--check", "packed-etcd+master.sha256"], cwd=place, capture_output=True, text=True
    )
    assert sums.stdout.split() == [
        word for name in sorted({image} | packed) for word in (f"{name}:", "OK")
    ], sums.stderr
    manifest = json.loads((tmp_path / "output" / "packed-etcd+master.manifest.json").read_text())
    assert [file["name"] for file in manifest["builds"][0]["files"]] == [image, "packed-etcd+master.sha256"]


def test_what_the_tests_need_is_looked_for_before_the_build(tmp_path: Path) -> None:
    for name in ("run.sh", "test_image.py"):
        (tmp_path / name).write_text(find_resource("packer", "verify", name).read_text())
    nothing: dict[str, object] = {"build_user": "packer", "units": {}}
    nothing |= {name: [] for name in ("entries", "groups", "hygiene", "packages", "users")}
    (tmp_path / "expected.json").write_text(json.dumps(nothing))

    def check(pytest_command: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"IMAGEGEN_PYTEST": pytest_command, "IMAGEGEN_TESTS": str(tmp_path)} | more
        argv = ["sh", str(tmp_path / "run.sh"), "check"]
        return subprocess.run(argv, env=environment, capture_output=True, text=True)

    ours = f"{shlex.quote(sys.executable)} -m pytest"
    done = check(ours)
    assert done.returncode == 0, done.stderr
    without_testinfra = check(ours, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    for done in (without_testinfra, check("/nowhere/python -m pytest")):
        assert done.returncode == 1
        assert "install pytest-testinfra, or set the variable pytest" in done.stderr
