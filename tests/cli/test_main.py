"""The frame: words, exit codes, one message for every exception, and no traceback ever."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

import imagegen as package
from imagegen.cli import verbs
from imagegen.cli.main import cli
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import VERBS, find_verb
from imagegen.errors import ImagegenError, MissingToolError, UsageError
from tests.cli.conftest import Imagegen


def _failing(error: BaseException) -> click.Command:
    @click.command("schema", cls=verbs.Verb)
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_that_names_it(name: str, imagegen: Imagegen) -> None:
    done = imagegen(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: imagegen {name}")
    assert done.err == ""


@pytest.mark.parametrize("name", VERBS)
def test_every_option_says_what_it_does(name: str) -> None:
    commands = [find_verb(name)]
    if isinstance(commands[0], click.Group):
        commands = list(commands[0].commands.values())
    for command in commands:
        assert command.help
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{name} {param.name}"


def test_every_verb_is_shown(imagegen: Imagegen) -> None:
    text = imagegen("--help").out
    assert all(f"  {name} " in text for name in VERBS)


def test_version(imagegen: Imagegen) -> None:
    assert imagegen("--version").out == f"imagegen, version {package.__version__}\n"


def test_no_words_show_help_and_are_a_usage_error(imagegen: Imagegen) -> None:
    done = imagegen()
    assert done.code == 2
    assert done.out == ""
    assert "Usage: imagegen" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chekc", "x"], "no such verb: chekc; did you mean check?"),
        (["check", "--strct", "x"], "did you mean '--strict'"),
        (["check"], "missing argument 'CLUSTER'"),
        (["check", "x", "--format", "xml"], "'xml' is not one of"),
        (["new", "--example", "quickstat"], "no such example: quickstat; did you mean quickstart?"),
    ],
)
def test_usage_errors(words: list[str], message: str, imagegen: Imagegen) -> None:
    done = imagegen(*words)
    assert done.code == 2
    assert done.out == ""
    assert done.err.lower().startswith("error: ")
    assert message.lower() in done.err.lower()


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ImagegenError("it broke", hint="mend it"), 1, "error: it broke\n  = help: mend it\n"),
        (UsageError("no such node: a"), 2, "error: no such node: a\n"),
        (MissingToolError("qemu-img is not installed"), 3, "error: qemu-img is not installed\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            1,
            "error: /x/y: no space left on device\n"
            "  = help: make room on that file system, then run the same command again\n",
        ),
        (
            KeyboardInterrupt(),
            130,
            "error: interrupted; files that are not complete were not given their final names\n",
        ),
        (
            ValueError("a\nb"),
            1,
            "error: unexpected ValueError: a b\n  = help: this is a bug in imagegen: "
            "run the command again with --verbose and report what it prints\n",
        ),
        (RecursionError("too deep"), 1, "error: unexpected RecursionError: too deep\n"),
    ],
)
def test_every_exception_is_one_message(
    error: BaseException, code: int, text: str, imagegen: Imagegen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "find_verb", lambda name: _failing(error))
    done = imagegen("schema")
    assert done.code == code
    assert done.err.lstrip("\n").startswith(text)
    assert done.out == ""


def test_verbose_shows_where_a_bug_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "find_verb", lambda name: _failing(ValueError("boom")))
    from imagegen.cli.main import main

    with pytest.raises(SystemExit):
        main(["--verbose", "schema"])
    assert "test_main.py" in capsys.readouterr().err


def test_control_characters_of_a_message_do_not_reach_the_terminal(
    imagegen: Imagegen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "find_verb", lambda name: _failing(UsageError("a\x1b[2Jb\u202ec")))
    assert imagegen("schema").err == "error: a\\x1b[2Jb\\u202ec\n"


class TestTalk:
    def test_colors_are_for_terminals_and_heed_no_color(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Tty:
            def isatty(self) -> bool:
                return True

        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        terminal = Terminal()
        assert terminal.has_color(Tty())  # type: ignore[arg-type]
        assert not terminal.has_color(sys.__stdout__.buffer) or sys.__stdout__.isatty()  # type: ignore[union-attr, arg-type]
        monkeypatch.setenv("NO_COLOR", "1")
        assert not terminal.has_color(Tty())  # type: ignore[arg-type]
        assert Terminal(color="always").has_color(sys.stdout)

    @pytest.mark.parametrize("words", [("-q", "completion", "bash"), ("completion", "bash", "--quiet")])
    def test_quiet_may_stand_before_and_after_the_verb(
        self, words: tuple[str, ...], imagegen: Imagegen
    ) -> None:
        assert imagegen("completion", "bash").err
        assert imagegen(*words).err == ""


@pytest.mark.process
class TestProcess:
    """What only a real process shows."""

    def _start(self, *words: str, **options: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            [sys.executable, "-m", "imagegen", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def test_a_reader_that_goes_away_is_no_drama(self) -> None:
        script = f"{sys.executable} -m imagegen completion bash | true"
        done = subprocess.run(["sh", "-c", script], capture_output=True, check=False)
        assert b"Traceback" not in done.stderr
        assert b"Broken" not in done.stderr

    def test_a_full_disk_is_told(self) -> None:
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "imagegen", "completion", "bash"],
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert done.returncode == 1
        assert b"no space left" in done.stderr.lower()
        assert b"Traceback" not in done.stderr

    def test_version_and_help_are_fast_and_import_nothing_heavy(self) -> None:
        for word in ("--version", "--help"):
            best = min(self._measure("-m", "imagegen", word) for _ in range(5))
            assert best < 0.1, f"{word} takes {best:.3f} s"
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "imagegen", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        for heavy in (
            "pydantic",
            "cryptography",
            "yaml",
            "rich",
            "jinja2",
            "pycdlib",
            "imagegen.plan",
            "subprocess",
        ):
            assert f"| {heavy}\n" not in done.stderr.replace("|   ", "| ").replace("  ", " "), heavy

    def _measure(self, *words: str) -> float:
        """Processor seconds: what other processes on this machine do does not count."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_signals(self, number: signal.Signals, code: int) -> None:
        script = (
            "import sys, time, click\n"
            "from imagegen.cli import main, verbs\n"
            "@click.command('schema', cls=verbs.Verb)\n"
            "def command():\n"
            "    print('ready', flush=True)\n"
            "    time.sleep(60)\n"
            "verbs.find_verb = lambda name: command\n"
            "main.main(['schema'])\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
        assert process.returncode == code
        assert b"Traceback" not in err
        assert err.lstrip().startswith(b"error: ")


def test_the_group_is_what_the_script_entry_runs() -> None:
    assert set(cli.list_commands(click.Context(cli))) == set(VERBS)
    assert os.environ.get("_IMAGEGEN_COMPLETE") is None
