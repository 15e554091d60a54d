"""``plan``, ``diff`` and ``explain``: thin, but every flag of theirs does what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Imagegen


class TestPlan:
    def test_everything(self, imagegen: Imagegen, quickstart: Path) -> None:
        done = imagegen("plan", quickstart)
        assert (done.code, done.err) == (0, "")
        for text in ("cluster quickstart", "role worker", "node master-0", "kube-apiserver.service"):
            assert text in done.out

    def test_one_node_and_one_role(self, imagegen: Imagegen, quickstart: Path) -> None:
        node = imagegen("plan", quickstart, "--node", "worker-0").out
        assert "node worker-0" in node
        assert "master-0" not in node.splitlines()[0]
        assert "role etcd" in imagegen("plan", quickstart, "--role", "etcd").out
        data = json.loads(imagegen("plan", quickstart, "--node", "worker-0", "--format", "json").out)
        assert [n["name"] for n in data["nodes"]] == ["worker-0"]
        assert [r["name"] for r in data["roles"]] == ["worker"]
        data = json.loads(imagegen("plan", quickstart, "--role", "worker", "--format", "json").out)
        assert [n["name"] for n in data["nodes"]] == ["worker-0", "worker-1"]

    def test_json_is_what_render_writes(self, imagegen: Imagegen, quickstart: Path, tmp_path: Path) -> None:
        imagegen("render", quickstart, "-o", tmp_path / "out")
        assert (
            imagegen("plan", quickstart, "--format", "json").out
            == (tmp_path / "out" / "plan.json").read_text()
        )

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["--node", "worker-00"], "did you mean worker-0"),
            (["--role", "mastr"], "did you mean master"),
            (["--node", "a", "--role", "b"], "cannot be given together"),
        ],
    )
    def test_usage(self, words: list[str], text: str, imagegen: Imagegen, quickstart: Path) -> None:
        for form in ("text", "json"):
            done = imagegen("plan", quickstart, *words, "--format", form)
            assert done.code == 2
            assert text in done.err


class TestDiff:
    @pytest.fixture
    def other(self, quickstart: Path) -> Path:
        path = quickstart.with_name("other.yaml")
        path.write_text(quickstart.read_text().replace("10.240.0.21", "10.240.0.31"))
        return path

    def test_files_plans_and_folders_are_alike(
        self, imagegen: Imagegen, quickstart: Path, other: Path, tmp_path: Path
    ) -> None:
        imagegen("render", other, "-o", tmp_path / "out")
        texts = {
            imagegen("diff", quickstart, b).out
            for b in (other, tmp_path / "out", tmp_path / "out" / "plan.json")
        }
        assert len(texts) == 1
        (text,) = texts
        assert "worker-0" in text
        assert "10.240.0.31" in text
        assert "node etcd-0" not in text
        data = json.loads(imagegen("diff", quickstart, other, "--format", "json").out)
        assert any("worker-0" in change["nodes"] for change in data["changes"])

    def test_exit_code_is_asked_for(self, imagegen: Imagegen, quickstart: Path, other: Path) -> None:
        assert imagegen("diff", quickstart, other).code == 0
        assert imagegen("diff", quickstart, other, "--exit-code").code == 1
        same = imagegen("diff", quickstart, quickstart, "--exit-code")
        assert (same.code, same.out) == (0, "nothing changes\n")

    def test_what_is_no_plan(self, imagegen: Imagegen, quickstart: Path, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text("{}")
        for wrong in (tmp_path / "x.json", tmp_path / "nothing.json", tmp_path):
            done = imagegen("diff", quickstart, wrong)
            assert done.code == 2
            assert done.err.startswith("error: ")


class TestExplain:
    def test_every_code(self, imagegen: Imagegen) -> None:
        from imagegen.cli.explain import load_codes
        from imagegen.diagnostics import CODES

        load_codes()
        assert len(CODES) > 40
        for code in CODES:
            assert imagegen("explain", code.lower()).out.startswith(f"{code}: ")

    def test_a_path_says_who_and_why(self, imagegen: Imagegen, quickstart: Path) -> None:
        text = imagegen("explain", "/etc/kubernetes/pki/ca.key", quickstart).out
        assert "master-0" in text
        assert "from" in text
        assert "(secret)" in text
        rows = json.loads(imagegen("explain", "kubelet.service", quickstart, "--format", "json").out)
        assert rows[0]["title"]

    def test_a_flag_may_begin_with_dashes(self, imagegen: Imagegen, quickstart: Path) -> None:
        assert "removed in" in imagegen("explain", "--allow-privileged").out
        assert "in 1.36" in imagegen("explain", "--allow-privileged", quickstart).out

    def test_a_flag_is_looked_up_in_the_table_alone(self, imagegen: Imagegen, quickstart: Path) -> None:
        alone = imagegen("explain", "--flag", "kubelet/--network-plugin").out
        assert alone.splitlines()[0] == "kubelet --network-plugin (flag)"
        assert [
            label for label in ("since ", "removed in", "instead", "evidence") if label not in alone
        ] == []
        told = imagegen("explain", "--flag", "kubelet/--config", quickstart).out
        assert "in 1.36" in told
        assert "unit kubelet.service" not in told
        assert "unit kubelet.service" in imagegen("explain", "--config", quickstart).out

    @pytest.mark.parametrize("words", [["--flag", "kubelet/--network-plugn"], ["--network-plugn"]])
    def test_a_misspelt_flag_gets_a_suggestion(self, words: list[str], imagegen: Imagegen) -> None:
        done = imagegen("explain", *words)
        assert done.code == 2
        assert "did you mean --network-plugin" in done.err

    @pytest.mark.parametrize("word", ["IMG999", "/etc/nothing", "--no-such-flag"])
    def test_what_is_not_known(self, word: str, imagegen: Imagegen, quickstart: Path) -> None:
        for words in ([word], [word, quickstart]):
            done = imagegen("explain", *words)
            assert (done.code, done.out) == (2, "")


class TestSchema:
    def test_both_schemas_accept_what_ships(self, imagegen: Imagegen) -> None:
        import jsonschema
        import yaml

        from imagegen.resources import find_resource

        cluster = json.loads(imagegen("schema").out)
        for path in find_resource("examples").glob("*/cluster.yaml"):
            jsonschema.validate(yaml.safe_load(path.read_text()), cluster)
        profile = json.loads(imagegen("schema", "--profile").out)
        for path in find_resource("profiles").glob("*.yaml"):
            jsonschema.validate(yaml.safe_load(path.read_text()), profile)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"version": 1, "colour": "red"}, cluster)
