"""Processes: what they see, what is said about them, and that nothing of them stays behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from imagegen.errors import MissingToolError
from imagegen.run import CommandError, Runner, Tool, find_tool, mask_secrets, quote_command, require_tools

PYTHON = sys.executable
SECRET = "correct-horse-battery"


def test_secrets_are_masked_longest_first() -> None:
    assert mask_secrets("a abcd abcdef", ["abcd", "abcdef", "a"]) == "a ******** ********"


def test_a_command_can_be_pasted() -> None:
    line = quote_command(["mkfs", "-L", "my disk", "$HOME"], cwd=Path("/a b"), env={"A": "x y"})
    assert line == "cd '/a b' && A='x y' mkfs -L 'my disk' '$HOME'"


def test_missing_tools_are_named_together_before_work_starts() -> None:
    tools = [
        Tool(name="no-such-tool", package="nothing", purpose="make images"),
        Tool(name="no-such-other", package="another", purpose="make disks"),
        Tool(name="sh", package="dash", purpose="run scripts"),
    ]
    with pytest.raises(MissingToolError) as caught:
        require_tools(tools)
    assert "no-such-tool is not installed; it is needed to make images" in str(caught.value)
    assert "no-such-other" in str(caught.value)
    assert caught.value.hint == "apt-get install another nothing"


def test_a_secret_is_never_an_argument() -> None:
    with pytest.raises(ValueError, match="must not be an argument"):
        Runner(secrets=(SECRET,)).run(["true", f"--password={SECRET}"])


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(MissingToolError, match="no-such-tool is not installed"):
        Runner().run(["no-such-tool"])
    assert find_tool("no-such-tool") is None


@pytest.mark.process
class TestProcesses:
    def test_the_environment_is_short_and_stdin_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("LC_ALL", "de_DE")
        script = "import os, sys; print(sorted(os.environ), os.environ['LC_ALL'], repr(sys.stdin.read()))"
        out = Runner().run([PYTHON, "-c", script], env={"EXTRA": "1"}).stdout
        assert "AWS" not in out
        assert "EXTRA" in out
        assert "C.UTF-8 ''" in out

    def test_input_is_passed(self) -> None:
        assert Runner().run(["cat"], stdin=b"\xc3\xa4").stdout == "ä"

    def test_a_failure_shows_command_and_last_lines_without_secrets(self) -> None:
        logged: list[str] = []
        runner = Runner(log=logged.append, secrets=(SECRET,))
        script = "i=0; while [ $i -lt 40 ]; do echo $i >&2; i=$((i + 1)); done; echo $T >&2; exit 7"
        with pytest.raises(CommandError) as caught:
            runner.run(["sh", "-c", script], env={"T": SECRET})
        text = str(caught.value)
        assert text.startswith("failed with status 7: T=")
        assert "  39\n" in text
        assert "  5\n" not in text
        assert "26 lines before" in text
        assert SECRET not in text + "".join(logged)
        assert "********" in text

    def test_status_can_be_looked_at(self) -> None:
        assert Runner().run(["false"], check=False).returncode == 1

    def test_a_signal_is_named(self) -> None:
        with pytest.raises(CommandError, match="ended by SIGKILL"):
            Runner().run([PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"])

    def test_too_long_ends_the_whole_group(self, tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        with pytest.raises(CommandError, match=r"took longer than 0\.5 s"):
            Runner().run(["sh", "-c", f"sleep 60 & echo $! >{pid_file}; wait"], timeout=0.5)
        assert _is_gone(int(pid_file.read_text()))

    def test_an_interruption_ends_the_whole_group(self, tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        script = f"sleep 60 & echo $! >{pid_file}; sleep 0.3; kill -INT {os.getpid()}; wait"
        with pytest.raises(KeyboardInterrupt):
            Runner().run(["sh", "-c", script])
        assert _is_gone(int(pid_file.read_text()))


def _is_gone(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if (Path("/proc") / str(pid) / "stat").read_text().split(")")[1].split()[0] == "Z":
            return True
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    return False


@pytest.mark.process
def test_kept_variables_are_handed_on_but_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "s3cr3t-value")
    said: list[str] = []
    done = Runner(log=said.append).run(["sh", "-c", 'echo "$A_TOKEN"'], keep=["A_TOKEN", "NOT_SET"])
    assert done.stdout == "s3cr3t-value\n"
    assert "s3cr3t" not in "".join(said)
    assert Runner().run(["sh", "-c", 'echo "$A_TOKEN"']).stdout == "\n"
