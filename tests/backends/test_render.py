"""The main job on real plans: what lies where, for whom, and that running again changes nothing."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from imagegen.backends.render import RenderResult, render_cluster
from imagegen.diagnostics import Report
from imagegen.errors import InputError, UsageError
from imagegen.model.cluster import Target
from imagegen.pki.store import SecretStore
from imagegen.plan.items import (
    Binary,
    ContainerImage,
    Directory,
    File,
    Group,
    KernelModule,
    Login,
    Package,
    Port,
    Sysctl,
    Unit,
    User,
)
from imagegen.plan.plan import Plan
from imagegen.progress import Event, Progress, StepAdvanced, StepDone
from tests.backends.nodeplans import make_cluster, make_file
from tests.backends.nodeplans import make_plan as make_small_plan
from tests.backends.test_seediso import read_iso
from tests.plan.plans import make_plan, write_cluster

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
EPOCH = 1_767_225_600
NODES = ("etcd-0", "master-0", "worker-0", "worker-1")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(write_cluster(tmp_path_factory.mktemp("cluster")))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SecretStore:
    return SecretStore(tmp_path_factory.mktemp("store") / "secrets")


def render(
    plan: Plan,
    store: SecretStore,
    out: Path,
    *,
    with_iso: bool = True,
    nodes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> RenderResult:
    return render_cluster(
        plan,
        store,
        out,
        Report(),
        now=NOW,
        epoch=EPOCH,
        with_iso=with_iso,
        nodes=nodes,
        progress=progress or Progress(),
    )


@pytest.fixture(scope="module")
def rendered(plan: Plan, store: SecretStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rendered") / "out"
    render(plan, store, out)
    return out


@pytest.fixture
def out(rendered: Path, tmp_path: Path) -> Path:
    """A copy of a complete output folder."""
    return Path(shutil.copytree(rendered, tmp_path / "out"))


def read_all(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


class TestOutput:
    def test_every_node_has_its_files(self, rendered: Path) -> None:
        wanted = {
            f"nodes/{n}/{f}" for n in NODES for f in ("user-data", "meta-data", "network-config", "seed.iso")
        }
        wanted |= {
            "plan.json",
            "manifest.json",
            "kubeconfigs/admin.kubeconfig",
            "kubeconfigs/super-admin.kubeconfig",
            "handover/qemu.sh",
            "handover/terraform.tfvars.json",
        }
        assert set(read_all(rendered)) == wanted

    def test_a_seed_holds_what_lies_beside_it(self, rendered: Path) -> None:
        for name in NODES:
            folder = rendered / "nodes" / name
            files = read_iso((folder / "seed.iso").read_bytes())
            assert files == {
                f: (folder / f).read_bytes() for f in ("user-data", "meta-data", "network-config")
            }

    def test_secrets_are_closed(self, rendered: Path) -> None:
        artifacts = json.loads((rendered / "manifest.json").read_text())["artifacts"]
        secret = {a["path"] for a in artifacts if a.get("secret")}
        assert secret == {f"nodes/{n}/{f}" for n in NODES for f in ("user-data", "seed.iso")} | {
            "kubeconfigs/admin.kubeconfig",
            "kubeconfigs/super-admin.kubeconfig",
        }
        assert all((rendered / p).stat().st_mode & 0o7777 == 0o600 for p in secret)
        assert all((rendered / p).parent.stat().st_mode & 0o7777 == 0o700 for p in secret)

    def test_no_node_has_anothers_secrets(self, rendered: Path, store: SecretStore) -> None:
        secrets = {
            name: store.read(name).strip() for name in store.names() if not name.endswith((".crt", ".pub"))
        }
        allowed_to_masters = {"pki/ca.key", "pki/sa.key", "encryption/secretbox-key"}
        for node in NODES:
            bodies = _all_bodies(rendered / "nodes" / node / "user-data")
            for name, secret in secrets.items():
                mine = name.startswith(f"nodes/{node}/")
                if node == "master-0":
                    mine |= name in allowed_to_masters or name.endswith("/bootstrap-token")
                assert (secret in bodies) <= mine, (node, name)

    def test_workers_hold_no_private_key(self, rendered: Path) -> None:
        for node in ("worker-0", "worker-1"):
            assert b"PRIVATE KEY" not in _all_bodies(rendered / "nodes" / node / "user-data")

    def test_the_plan_holds_no_secret(self, rendered: Path, store: SecretStore) -> None:
        text = (rendered / "plan.json").read_bytes() + (rendered / "manifest.json").read_bytes()
        for name in store.names():
            assert store.read(name).strip() not in text
        assert set(json.loads((rendered / "plan.json").read_bytes())) >= {"cluster", "nodes", "roles"}


def _all_bodies(user_data: Path) -> bytes:
    """User-data as it is, and every base64 text in it decoded."""
    raw = user_data.read_bytes()
    bodies = [str(e["content"]).encode() for e in yaml.safe_load(raw)["write_files"]]
    text = raw + b"\n".join(bodies)
    decoded = [base64.b64decode(t) for t in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", text) if len(t) % 4 == 0]
    return text + b"\n".join(decoded)


class TestAgain:
    def test_the_same_input_gives_the_same_bytes(
        self, plan: Plan, store: SecretStore, out: Path, tmp_path: Path
    ) -> None:
        result = render(plan, store, out)
        assert (result.output.written, result.output.removed) == (0, 0)
        assert not result.issued.changes
        render(plan, store, tmp_path / "elsewhere")
        assert read_all(out) == read_all(tmp_path / "elsewhere")

    def test_seeds_stay_while_they_are_right(self, plan: Plan, store: SecretStore, out: Path) -> None:
        before = read_all(out)
        render(plan, store, out, with_iso=False)
        assert read_all(out) == before

    def test_seeds_that_are_no_longer_right_go(self, store: SecretStore, out: Path, tmp_path: Path) -> None:
        nodes = (
            "{name: etcd-0, roles: [etcd], address: 10.240.0.10}",
            "{name: master-0, roles: [master], address: 10.240.0.11}",
            "{name: worker-0, roles: [worker], address: 10.240.0.99}",
            '{name: worker-1, roles: [worker], address: dhcp, mac: "52:54:00:00:00:22"}',
        )
        changed = make_plan(write_cluster(tmp_path, nodes))
        render(changed, store, out, with_iso=False)
        seeds = {p.parent.name for p in out.glob("nodes/*/seed.iso")}
        # the master signs off certificates for the addresses of workers, so its files change as well
        assert seeds == {"etcd-0", "worker-1"}

    def test_removed_nodes_go_and_selected_nodes_leave_the_others_alone(
        self, plan: Plan, store: SecretStore, out: Path, tmp_path: Path
    ) -> None:
        before = read_all(out)
        (out / "nodes/worker-1/user-data").unlink()
        render(plan, store, out, nodes=["worker-0"])
        before.pop("nodes/worker-1/user-data")
        after = read_all(out)
        assert after.pop("manifest.json") != before.pop("manifest.json")
        assert after == before
        fewer = make_plan(
            write_cluster(
                tmp_path,
                (
                    "{name: etcd-0, roles: [etcd], address: 10.240.0.10}",
                    "{name: master-0, roles: [master], address: 10.240.0.11}",
                ),
            )
        )
        render(fewer, store, out)
        assert {p.name for p in (out / "nodes").iterdir()} == {"etcd-0", "master-0"}


class TestRefusing:
    def test_an_unknown_node(self, plan: Plan, store: SecretStore, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no node 'worker-9'"):
            render(plan, store, tmp_path / "out", nodes=["worker-9"])
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("inside", [".", "out"])
    def test_a_folder_in_the_secret_store(self, plan: Plan, store: SecretStore, inside: str) -> None:
        before = store.names()
        with pytest.raises(UsageError, match="lies in the secret store"):
            render(plan, store, store.root / inside)
        assert store.names() == before

    def test_a_seed_over_its_budget_leaves_everything_as_it_was(self, tmp_path: Path) -> None:
        cluster = make_cluster(targets=[Target.GCE])
        store, out = SecretStore(tmp_path / "secrets"), tmp_path / "out"
        render(make_small_plan(cluster, own=[make_file("/x", "small")]), store, out)
        before = read_all(out)
        large = make_small_plan(cluster, own=[make_file("/x", os.urandom(400_000))])
        with pytest.raises(InputError) as caught:
            render(large, store, out)
        assert {finding.code for finding in caught.value.report.findings} == {"IMG501"}
        assert read_all(out) == before

    def test_a_folder_that_cannot_be_used_is_found_before_the_pki_is_made(
        self, plan: Plan, tmp_path: Path
    ) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(UsageError):
            render(plan, SecretStore(tmp_path / "secrets"), tmp_path / "out")
        assert not (tmp_path / "secrets").exists()


def test_progress_is_told(plan: Plan, store: SecretStore, tmp_path: Path) -> None:
    events: list[Event] = []
    render(plan, store, tmp_path / "out", progress=Progress(events.append))
    assert [e.what for e in events if isinstance(e, StepAdvanced)] == list(NODES)
    assert [e.step for e in events if isinstance(e, StepDone)] == [
        "issuing certificates",
        "writing nodes",
        "naming files",
    ]


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    nodes = ("{name: all-0, roles: [etcd, master, worker], address: 10.240.0.10}",)
    return make_plan(write_cluster(tmp_path_factory.mktemp("stock"), nodes, more="image: {mode: stock}\n"))


class TestStock:
    """Without a golden image, user-data alone must bring everything that the plan asks for."""

    def test_every_item_of_the_plan_is_in_user_data(self, stock: Plan, tmp_path: Path) -> None:
        render(stock, SecretStore(tmp_path / "secrets"), tmp_path / "out")
        document = yaml.safe_load((tmp_path / "out/nodes/all-0/user-data").read_bytes())
        entries = {entry["path"]: entry for entry in document["write_files"]}
        tables = {
            name: [
                row.split("\t") for row in entries[f"/etc/imagegen/install/{name}"]["content"].splitlines()
            ]
            for name in ("parts", "directories", "units")
        }
        sysctls = entries["/etc/sysctl.d/90-imagegen.conf"]["content"].splitlines()
        modules = entries["/etc/modules-load.d/90-imagegen.conf"]["content"].splitlines()
        plan = stock.node_plan("all-0")
        seen: set[str] = set()
        for item in (*plan.role_plan.items, *plan.items):
            seen.add(type(item).__name__)
            match item:
                case File():
                    entry = entries[item.path]
                    assert entry["permissions"] == item.mode
                    assert entry.get("owner", "root:root") == f"{item.owner}:{item.group}"
                case Package():
                    assert item.name in document["packages"]
                case User() | Login():
                    assert item.name in [user["name"] for user in document["users"]]
                case Group():
                    assert item.name in document["groups"]
                case Binary():
                    assert item.path in [row[4] for row in tables["parts"]]
                case Directory():
                    assert [item.mode, item.owner, item.group, item.path] in tables["directories"]
                case Sysctl():
                    assert f"{item.key} = {item.value}" in sysctls
                case KernelModule():
                    assert item.name in modules
                case Unit():
                    _check_unit(item, entries, tables["units"])
                case Port() | ContainerImage():
                    # the packet filter is a file of the plan; images are pulled when they are used
                    pass
                case _:
                    raise AssertionError(type(item))
        assert seen >= {"File", "Package", "User", "Group", "Login", "Binary", "Directory", "Sysctl", "Unit"}

    def test_downloads_are_checked(self, stock: Plan, tmp_path: Path) -> None:
        render(stock, SecretStore(tmp_path / "secrets"), tmp_path / "out")
        document = yaml.safe_load((tmp_path / "out/nodes/all-0/user-data").read_bytes())
        (parts,) = [e["content"] for e in document["write_files"] if e["path"].endswith("install/parts")]
        rows = [row.split("\t") for row in parts.splitlines()]
        assert len(rows) > 10
        for url, checksum, kind, member, path in rows:
            assert url.startswith("https://")
            assert checksum.startswith("https://") or re.fullmatch("[0-9a-f]{64}", checksum)
            assert (member == "-") is (kind == "raw")
            assert path.startswith("/")
        assert rows == sorted(rows)


def _check_unit(unit: Unit, entries: dict[str, dict[str, str]], rows: list[list[str]]) -> None:
    if unit.content is not None:
        assert entries[f"/etc/systemd/system/{unit.name}"]["content"] == unit.content
    action = {"enabled": "enable", "disabled": "disable", "masked": "mask", "static": None}[unit.state.value]
    assert {row[0] for row in rows if row[1] == unit.name} >= ({action} if action else set())
