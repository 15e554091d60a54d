"""cloud-init's own schemas (oldest and newest that we care for), yamllint and shellcheck over every kind
of seed.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from imagegen.backends.budgets import BudgetCheck
from imagegen.backends.cloudinit import CloudInit, Seed
from imagegen.backends.install import PROGRAM, UNIT
from imagegen.cli.examples import example_file, list_examples
from imagegen.diagnostics import Report
from imagegen.model.cluster import Target
from tests.backends.nodeplans import FakeStore, make_cluster, make_file, make_node_plan
from tests.backends.test_writefiles import AWKWARD
from tests.judges.seeds import list_entries, lower_all
from tests.judges.tools import Tool
from tests.plan.plans import try_plan

pytestmark = pytest.mark.judge


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seed]:
    return lower_all(tmp_path_factory.mktemp("secrets"))


def write_distinct(seeds: dict[str, Seed], folder: Path, name: str) -> list[Path]:
    """One file for every distinct text; the file name says where it comes from."""
    paths: dict[bytes, Path] = {}
    for case, seed in seeds.items():
        paths.setdefault(seed.files()[name], folder / f"{case}.yaml")
    for body, path in paths.items():
        path.write_bytes(body)
    return list(paths.values())


#: Calls the command that people call, once a file, in one process: starting it takes longer than a check.
DRIVER = """
import sys
from cloudinit.config import schema
for path in sys.argv[1:]:
    sys.argv = ["cloud-init", "--config-file", path]
    try:
        code = schema.main()
    except SystemExit as end:
        code = end.code
    print("verdict", path, code or 0, flush=True)
"""


@pytest.mark.parametrize("suite", ["bookworm", "sid"])
def test_user_data_fits_the_schema(
    suite: str, request: pytest.FixtureRequest, seeds: dict[str, Seed], tmp_path: Path
) -> None:
    cloud_init: Tool = request.getfixturevalue(f"cloud_init_{suite}")
    judge_schema(cloud_init, write_distinct(seeds, tmp_path, "user-data"), tmp_path)


@pytest.mark.parametrize("suite", ["bookworm", "sid"])
def test_clusters_built_by_hand_before_fit_the_schema(
    suite: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With the secrets of a test: what is judged is the shape, above all Oracle Linux 7's."""
    cloud_init: Tool = request.getfixturevalue(f"cloud_init_{suite}")
    paths = []
    for name in list_examples():
        if name.startswith("seed-") and not name.endswith("-today"):
            plan, _ = try_plan(example_file(name))
            assert plan is not None
            lowering = CloudInit(plan.cluster, FakeStore())
            for node_plan in plan.node_plans():
                paths.append(tmp_path / f"{name}-{node_plan.node.name}.yaml")
                paths[-1].write_bytes(lowering.lower_node(node_plan).user_data)
    judge_schema(cloud_init, paths, tmp_path)


def judge_schema(cloud_init: Tool, paths: list[Path], folder: Path) -> None:
    done = subprocess.run(
        [cloud_init.argv[0], "-c", DRIVER, *paths],
        env=cloud_init.environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    verdicts = [line for line in done.stdout.splitlines() if line.startswith("verdict")]
    assert verdicts == [f"verdict {path} 0" for path in paths], done.stdout + done.stderr
    assert done.stdout.lower().count("valid ") == len(paths)
    assert "deprecat" not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("suite", ["bookworm", "sid"])
def test_the_schema_would_object(suite: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    cloud_init: Tool = request.getfixturevalue(f"cloud_init_{suite}")
    path = tmp_path / "user-data"
    path.write_text("#cloud-config\nwrite_files:\n- {path: /x, permissions: 420}\n")
    done = cloud_init.run("schema", "--config-file", path, cwd=tmp_path)
    assert done.returncode == 1


YAMLLINT = """
extends: default
rules:
  line-length: disable
  document-start: disable
  comments-indentation: disable
  comments: {require-starting-space: false, min-spaces-from-content: 1}
  indentation: {indent-sequences: consistent}
"""


def test_every_yaml_text_is_clean(seeds: dict[str, Seed], tmp_path: Path) -> None:
    (tmp_path / "config").write_text(YAMLLINT)
    for name in ("user-data", "meta-data", "network-config"):
        (tmp_path / name).mkdir()
        write_distinct(seeds, tmp_path / name, name)
    folders = [str(tmp_path / name) for name in ("user-data", "meta-data", "network-config")]
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", "-f", "parsable", "-c", tmp_path / "config", *folders],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[:5000] + done.stderr


def read_body(entry: dict[str, object]) -> bytes:
    content = str(entry["content"])
    if "encoding" not in entry:
        return content.encode()
    body = base64.b64decode(content)
    return gzip.decompress(body) if entry["encoding"] == "gz+b64" else body


def test_every_shell_script_is_clean(shellcheck: Tool, seeds: dict[str, Seed], tmp_path: Path) -> None:
    scripts: dict[bytes, Path] = {}
    for seed in seeds.values():
        for entry in list_entries(seed):
            body = read_body(entry)
            first = body.partition(b"\n")[0]
            if first.startswith(b"#!") and first.endswith((b"/sh", b"/bash", b"sh -e")):
                scripts[body] = tmp_path / f"{len(scripts)}-{Path(str(entry['path'])).name}"
    assert scripts
    for body, path in scripts.items():
        path.write_bytes(body)
    done = shellcheck.run("--severity=style", *scripts.values())
    assert done.returncode == 0, done.stdout


def test_modes_and_owners_are_sound(seeds: dict[str, Seed]) -> None:
    """What cloud-init would accept without a word and get wrong."""
    for case, seed in seeds.items():
        entries = list_entries(seed)
        paths = [entry["path"] for entry in entries]
        assert len(set(paths)) == len(paths), case
        for entry in entries:
            assert isinstance(entry["permissions"], str), case
            mode = int(entry["permissions"], 8)
            assert mode & 0o7022 == 0, (case, entry["path"])
            if b"PRIVATE KEY-----" in read_body(entry):
                assert mode & 0o077 == 0, (case, entry["path"])


def test_workers_and_their_seeds_are_small(seeds: dict[str, Seed]) -> None:
    """The bounds of the project: 16 KiB after gzip for a golden worker, and nothing secret but its token."""
    golden = {c: s for c, s in seeds.items() if "stock" not in c and c.endswith(("worker-0", "worker-1"))}
    assert golden
    assert max(len(gzip.compress(seed.user_data)) for seed in golden.values()) < 16 * 1024
    for case, seed in seeds.items():
        if seed.node.role_set in {"worker", "lb", "base"}:
            assert b"PRIVATE KEY" not in b"".join(read_body(entry) for entry in list_entries(seed)), case


def test_every_seed_fits_every_platform(seeds: dict[str, Seed]) -> None:
    report = Report()
    for seed in seeds.values():
        BudgetCheck(Target, report).check_seed(seed, list)
    assert not report.findings, report.render_text()


def test_the_install_unit_is_sound(systemd_analyze: Tool, seeds: dict[str, Seed], tmp_path: Path) -> None:
    (entry,) = [e for e in list_entries(seeds["1.36-stock-base-0"]) if str(e["path"]).endswith(UNIT)]
    path = tmp_path / UNIT
    path.write_text(str(entry["content"]).replace(PROGRAM, "/bin/true"))
    done = systemd_analyze.run("verify", "--man=no", path)
    findings = [line for line in done.stderr.splitlines() if UNIT in line]
    assert (done.returncode, findings) == (0, [])


DECODER = """
import hashlib, json, sys
from cloudinit import util
from cloudinit.config.cc_write_files import canonicalize_extraction, extract_contents
with open(sys.argv[1], "rb") as stream:
    document = util.load_yaml(util.decode_binary(stream.read()))
sums = {}
for entry in document["write_files"]:
    body = extract_contents(entry["content"], canonicalize_extraction(entry.get("encoding")))
    sums[entry["path"]] = hashlib.sha256(util.encode_text(body)).hexdigest()
print(json.dumps(sums))
"""


@pytest.mark.parametrize("suite", ["bookworm", "sid"])
def test_cloud_init_writes_the_bytes_of_the_plan(
    suite: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Texts that templates, YAML, shells and terminals like to change, and bytes that are no text."""
    cloud_init: Tool = request.getfixturevalue(f"cloud_init_{suite}")
    bodies: dict[str, bytes] = {f"/awkward/{i}": text.encode() for i, text in enumerate(AWKWARD)}
    bodies |= {"/binary": bytes(range(256)) * 20, "/large": b"one line of many\n" * 70_000}
    cluster = make_cluster()
    plan = make_node_plan(cluster, "worker-0", own=[make_file(path, body) for path, body in bodies.items()])
    (tmp_path / "user-data").write_bytes(CloudInit(cluster, FakeStore()).lower_node(plan).user_data)
    done = subprocess.run(
        [cloud_init.argv[0], "-c", DECODER, tmp_path / "user-data"],
        env=cloud_init.environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        path: hashlib.sha256(body).hexdigest() for path, body in bodies.items()
    }
