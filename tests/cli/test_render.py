"""``render`` and ``seed``: what they write, say and keep; and that no secret ever shows."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Imagegen

#: bytes that are in no key by chance; planted where the store takes free text
CANARY_TOKEN = "canary.c4n4ryc4n4ryc4n4"
CANARY_KEY = base64.b64encode(b"canary-canary-canary-canary-cana").decode()


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class TestOutput:
    def test_the_folder_is_that_of_the_design(
        self, imagegen: Imagegen, quickstart: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        done = imagegen("seed", quickstart, "-o", out)
        assert (done.code, done.out) == (0, "")
        nodes = ("etcd-0", "master-0", "worker-0", "worker-1")
        seeds = {
            f"nodes/{n}/{f}" for n in nodes for f in ("user-data", "meta-data", "network-config", "seed.iso")
        }
        assert set(_files(out)) == seeds | {
            "plan.json",
            "manifest.json",
            "kubeconfigs/admin.kubeconfig",
            "kubeconfigs/super-admin.kubeconfig",
            "handover/qemu.sh",
            "handover/terraform.tfvars.json",
        }
        for text in ("worker-1", "seed.iso", "KiB", "next:", "back up", str(out)):
            assert text in done.err
        for path in out.rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            if path.name in {"user-data", "seed.iso"} or path.suffix == ".kubeconfig":
                assert mode & 0o077 == 0, f"{path} is {mode:o}"

    def test_render_writes_no_iso_and_says_how_to_get_one(
        self, imagegen: Imagegen, quickstart: Path, tmp_path: Path
    ) -> None:
        done = imagegen("render", quickstart, "-o", tmp_path / "out")
        assert done.code == 0
        assert not list((tmp_path / "out").rglob("*.iso"))
        assert "imagegen seed" in done.err

    def test_a_second_run_changes_nothing(self, imagegen: Imagegen, quickstart: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        imagegen("seed", quickstart, "-o", out)
        first, secrets = _files(out), _files(quickstart.parent / "secrets")
        done = imagegen("seed", quickstart, "-o", out)
        assert "0 written" in done.err
        assert (_files(out), _files(quickstart.parent / "secrets")) == (first, secrets)
        assert imagegen("render", quickstart, "-o", out).code == 0
        second = _files(out)
        assert {path for path in second if path not in first} == {
            path for path in second if path.startswith("packer/")
        }
        assert {path: body for path, body in second.items() if path in first} | {
            "manifest.json": b""
        } == first | {"manifest.json": b""}
        assert "0 written" in imagegen("seed", quickstart, "-o", out).err, "seed leaves Packer builds alone"
        assert _files(out) == second

    def test_only_some_nodes(self, imagegen: Imagegen, quickstart: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert imagegen("seed", quickstart, "-o", out, "--node", "worker-0").code == 0
        assert [p.parent.name for p in out.rglob("seed.iso")] == ["worker-0"]
        done = imagegen("seed", quickstart, "-o", out, "--node", "worker-7")
        assert done.code == 2
        assert "no such node: worker-7; did you mean worker-" in done.err

    def test_json_names_every_file(self, imagegen: Imagegen, quickstart: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        done = imagegen("seed", quickstart, "-o", out, "--format", "json", "--quiet")
        assert done.err == ""
        result = json.loads(done.out)
        assert result["nodes"] == 4
        assert {f["path"] for f in result["files"]} == set(_files(out)) - {"manifest.json"}
        assert all(
            f["secret"]
            for f in result["files"]
            if f["path"].endswith(("seed.iso", ".kubeconfig")) and "worker" not in f["path"]
        )

    def test_secrets_can_lie_elsewhere(self, imagegen: Imagegen, quickstart: Path, tmp_path: Path) -> None:
        store = tmp_path / "elsewhere"
        assert imagegen("render", quickstart, "-o", tmp_path / "out", "--secrets", store).code == 0
        assert (store / "pki" / "ca.key").exists()
        assert not (quickstart.parent / "secrets").exists()


class TestRefusals:
    def test_output_is_a_file(self, imagegen: Imagegen, quickstart: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        done = imagegen("render", quickstart, "-o", tmp_path / "out")
        assert done.code == 2
        assert "is not a folder" in done.err
        assert not (quickstart.parent / "secrets").exists()

    def test_a_file_that_imagegen_did_not_make(
        self, imagegen: Imagegen, quickstart: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "plan.json").write_text("mine")
        done = imagegen("render", quickstart, "-o", out)
        assert done.code == 2
        assert "plan.json" in done.err
        assert (out / "plan.json").read_text() == "mine"
        assert imagegen("render", quickstart, "-o", out, "--force").code == 0

    def test_a_bad_epoch(self, imagegen: Imagegen, quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
        done = imagegen("render", quickstart, "-o", quickstart.parent / "out")
        assert done.code == 2
        assert "SOURCE_DATE_EPOCH" in done.err

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_may_not_be_written(
        self, imagegen: Imagegen, quickstart: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "locked").mkdir(mode=0o500)
        done = imagegen("render", quickstart, "-o", tmp_path / "locked" / "out")
        assert done.code in {1, 2}
        assert "locked" in done.err


class TestCanaries:
    """Planted secrets and every real key: in no log, no plan, no diff, and in no other node's files."""

    @pytest.fixture
    def planted(self, quickstart: Path, imagegen: Imagegen, tmp_path: Path) -> Path:
        imagegen("render", quickstart, "-o", tmp_path / "before")
        store = quickstart.parent / "secrets"
        (store / "nodes" / "worker-0" / "bootstrap-token").write_text(CANARY_TOKEN)
        (store / "encryption" / "secretbox-key").write_text(CANARY_KEY)
        return quickstart

    def test_no_word_of_any_verb(self, planted: Path, imagegen: Imagegen, tmp_path: Path) -> None:
        out = tmp_path / "out"
        other = planted.with_name("other.yaml")
        other.write_text(planted.read_text().replace("worker-1", "worker-9"))
        said = []
        for words in (
            ("seed", planted, "-o", out, "--verbose"),
            ("render", planted, "-o", out, "--format", "json", "--verbose"),
            ("check", planted, "--verbose", "--format", "json"),
            ("plan", planted),
            ("plan", planted, "--node", "worker-0", "--format", "json"),
            ("plan", planted, "--node", "master-0"),
            ("diff", planted, other),
            ("diff", planted, other, "--format", "json"),
            ("diff", tmp_path / "before", out),
            ("pki", "show", planted, "--format", "json"),
            ("pki", "verify", planted, "--verbose"),
            ("explain", "/etc/kubernetes/bootstrap.kubeconfig", planted),
            ("explain", "/etc/kubernetes/pki/ca.key", planted),
        ):
            done = imagegen(*words)
            assert done.code == 0, f"{words}: {done.err}"
            said.append(done.out + done.err)
        said.append((out / "plan.json").read_text() + (out / "manifest.json").read_text())
        secrets = self._secrets(planted.parent / "secrets")
        assert len(secrets) > 15
        for text in said:
            for name, needles in secrets.items():
                assert not any(needle in text for needle in needles), name

    def test_no_other_nodes_files(self, planted: Path, imagegen: Imagegen, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert imagegen("seed", planted, "-o", out).code == 0
        secrets = self._secrets(planted.parent / "secrets")
        holders = {
            name: {
                path.parent.name
                for path in out.glob("nodes/*/*")
                if any(needle.encode() in path.read_bytes() for needle in needles)
            }
            for name, needles in secrets.items()
        }
        masters = {"master-0"}
        for name, nodes in holders.items():
            if name == "nodes/worker-0/bootstrap-token":
                assert nodes == {"worker-0", "master-0"}, name
            elif name.endswith("bootstrap-token"):
                assert nodes <= {name.split("/")[1], "master-0"}, name
            elif name.startswith("nodes/"):
                assert nodes <= {name.split("/")[1]}, name
            elif name in {"encryption/secretbox-key", "pki/ca.key", "pki/sa.key"}:
                assert nodes == masters, name
            else:
                assert nodes == set(), name

    def _secrets(self, store: Path) -> dict[str, list[str]]:
        """Every private entry: as text, its longest line, and both wrapped once more in base64."""
        found = {}
        for path in store.rglob("*"):
            if path.is_file() and path.suffix not in {".crt", ".pub"} and not path.name.startswith("."):
                text = path.read_text().strip()
                needle = max(text.splitlines(), key=len)
                found[str(path.relative_to(store))] = [needle, *_wrapped(needle)]
        return found


def _wrapped(needle: str) -> list[str]:
    """The three ways in which ``needle`` may look inside base64, without the characters at its edges."""
    raw = needle.encode()
    return [base64.b64encode(b"x" * shift + raw).decode()[8:-8] for shift in range(3) if len(raw) > 20]
