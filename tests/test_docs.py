"""The documentation is true: generated pages are current, and every documented command runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])


def _load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _load_generator()


@pytest.mark.parametrize("page", GENERATOR.PAGES)
def test_reference_is_current(page: str) -> None:
    wanted = GENERATOR.PAGES[page]()
    assert (DOCS / "reference" / page).read_text() == wanted, "run docs/generate.py"


def test_fates_of_flags_are_current() -> None:
    assert (DOCS / "examples" / "flags.md").read_text() == GENERATOR.render_fates(), "run docs/generate.py"


@pytest.mark.parametrize("name", GENERATOR.list_example_pages())
def test_examples_of_a_source_are_current(name: str) -> None:
    wanted = GENERATOR.render_example(name)
    assert (DOCS / "examples" / f"{name}.md").read_text() == wanted, "run docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_menu() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert str(page.relative_to(DOCS)) in text


def _commands(page: Path) -> list[str]:
    """The lines of ``console`` blocks after the prompt, and lines of ``sh`` blocks that start imagegen."""
    commands = []
    for language, body in re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.S):
        for line in body.splitlines():
            if language == "console" and line.startswith("$ "):
                commands.append(line[2:])
            elif language == "sh" and line.startswith("imagegen "):
                commands.append(line)
    return commands


@pytest.mark.process
@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
def test_every_documented_command_runs(name: str, tmp_path: Path) -> None:
    commands = _commands(ROOT / name)
    assert len(commands) > 5
    imagegen = tmp_path / "bin" / "imagegen"
    imagegen.parent.mkdir()
    imagegen.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m imagegen "$@"\n')
    imagegen.chmod(0o755)
    for command in commands:
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=tmp_path,
            env={"PATH": f"{imagegen.parent}:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_documented_cluster_files_and_profiles_are_right(page: Path, tmp_path: Path) -> None:
    from imagegen.diagnostics import Report
    from imagegen.model.load import load_cluster
    from imagegen.plan.profiles import load_profiles

    for body in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S):
        report = Report()
        if "version: 1" in body:
            (tmp_path / "cluster.yaml").write_text(body)
            assert load_cluster(tmp_path / "cluster.yaml", report) is not None, report.render_text()
        else:
            assert isinstance(yaml.safe_load(body), dict)
            folder = tmp_path / "profiles"
            folder.mkdir(exist_ok=True)
            (folder / "worker.yaml").write_text(body)
            load_profiles((str(folder),), report)
        assert not report.has_errors, report.render_text()


@pytest.mark.parametrize("code", sorted(set(re.findall(r"IMG\d{3}", "".join(p.read_text() for p in PAGES)))))
def test_every_code_that_is_named_exists(code: str) -> None:
    from imagegen.cli.explain import load_codes
    from imagegen.diagnostics import CODES

    load_codes()
    assert code in CODES


@pytest.mark.process
@pytest.mark.slow
def test_the_documentation_builds_strictly(tmp_path: Path) -> None:
    if not shutil.which("mkdocs") and importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "reference" / "cluster" / "index.html").exists()
