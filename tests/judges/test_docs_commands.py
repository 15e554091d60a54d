"""Command lines of the pages about Packer and the platforms, and of hand-over files, are what tools take."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from imagegen.backends.handover import lower_handover
from imagegen.backends.packer.versions import PackerStyle
from imagegen.cli.main import cli
from imagegen.model.cluster import Target
from tests.backends.nodeplans import make_cluster
from tests.judges.packers import acquire_packer
from tests.judges.tools import Tool, Unavailable

pytestmark = [pytest.mark.judge, pytest.mark.process]

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "packer.md", *sorted((DOCS / "platforms").glob("*.md"))]
TOOLS = (
    "imagegen",
    "packer",
    "gcloud",
    "govc",
    "VBoxManage",
    "qemu-img",
    "qemu-system-x86_64",
    "ovftool",
    "sh",
)


def list_blocks(page: Path) -> list[str]:
    """The pieces of shell; whatever else stands between fences is shell, too."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.S | re.M)
    assert {language for language, _ in found} <= {"sh"}, f"{page.name}: say what language a block is"
    return [body for _, body in found]


def list_spans(page: Path) -> list[str]:
    """Commands inside of sentences."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    spans = re.findall(r"`([^`\n]+)`", prose)
    return [span for span in spans if span.partition(" ")[0] in TOOLS and " " in span]


def list_commands() -> Iterator[list[str]]:
    """Every command as words, from the pages and from the files that people get."""
    texts = [text for page in PAGES for text in (*list_blocks(page), *list_spans(page))]
    cluster = make_cluster(targets=list(Target))
    texts += [body.decode() for path, body in lower_handover(cluster).items() if path.endswith(".sh")]
    for text in texts:
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] in TOOLS:
                yield words


COMMANDS = list(list_commands())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shellcheck_reads_every_block(shellcheck: Tool, page: Path, tmp_path: Path) -> None:
    blocks = list_blocks(page)
    assert blocks
    for number, text in enumerate([*blocks, "\n".join(list_spans(page))]):
        script = tmp_path / f"{number}.sh"
        # a page's blocks are run one by one; after a cd that fails nobody goes on reading
        script.write_text(f"#!/bin/sh\n# shellcheck disable=SC2164\n:\n{text}\n")
        done = shellcheck.run("--exclude=SC2164", script)
        assert done.returncode == 0, done.stdout


def commands_of(tool: str) -> list[list[str]]:
    found = [words[1:] for words in COMMANDS if words[0] == tool]
    assert found, f"no page says anything about {tool}"
    return found


def options_of(words: list[str]) -> set[str]:
    """Long and short options without their values."""
    return {word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)}


def test_our_own_options() -> None:
    for verb, *words in commands_of("imagegen"):
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None, verb
        known = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        assert options_of(words) <= known, f"imagegen {verb}"


@pytest.mark.parametrize("tool", ["qemu-img", "qemu-system-x86_64"])
def test_options_of_qemu(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    said = subprocess.run([tool, "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"(?<![\w-])-[A-Za-z][\w-]*", said))
    for words in commands_of(tool):
        assert options_of(words) <= known
        if tool == "qemu-img":
            usage = re.search(rf"^  {words[0]} .*$", said, re.M)
            assert usage is not None, words[0]
            assert all(f"[{option}" in usage[0] for option in options_of(words)), words


@pytest.mark.parametrize("style", PackerStyle)
def test_options_of_packer(style: PackerStyle, tmp_path: Path) -> None:
    try:
        packer = acquire_packer(style)
    except Unavailable as reason:
        pytest.skip(f"judge: {reason}")
    for words in commands_of("packer"):
        verbs = [word for word in words if re.fullmatch("[a-z]+", word)]
        if verbs[0] in ("init", "plugins") and style is PackerStyle.COMPAT:
            continue  # it knows no plug-ins, and no page says otherwise
        done = packer.run(*verbs, "--help", cwd=tmp_path)
        known = set(re.findall(r"(?<![\w-])-[a-z][\w-]*", done.stdout + done.stderr))
        assert {option.replace("--", "-") for option in options_of(words)} <= known, words
