"""The entry point: runs one verb and turns every exception into one message and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click
from click.exceptions import NoArgsIsHelpError

import imagegen
from imagegen.cli.terminal import Terminal
from imagegen.cli.verbs import LazyGroup, talk_options
from imagegen.errors import ImagegenError, InputError

EXIT_FINE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 2, 130, 143

_HELP = """One cluster file in; PKI, cloud-init, seed ISOs of a Kubernetes cluster out.

Start with "imagegen new DIR", then "imagegen render DIR/cluster.yaml -o OUT"."""

_EPILOG = "Exit codes: 0 fine, 1 failed, 2 input or usage, 3 a tool is missing, 130 interrupted."


class _Terminated(BaseException):
    """Somebody sent SIGTERM."""


@click.group(
    cls=LazyGroup,
    params=talk_options(),
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(imagegen.__version__, "-V", "--version", prog_name="imagegen")
def cli() -> None:
    """The group of all verbs."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run imagegen and exit; ``arguments`` default to those of the process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _raise_terminated)
    terminal = Terminal()
    code = _run(sys.argv[1:] if arguments is None else list(arguments), terminal)
    terminal.close()
    try:
        sys.stdout.flush()
    except OSError:
        _silence_stdout()
        code = code or EXIT_FAILED
    sys.exit(code)


def _run(arguments: list[str], terminal: Terminal) -> int:
    try:
        code = cli.main(arguments, prog_name="imagegen", standalone_mode=False, obj=terminal)
        return code if isinstance(code, int) else EXIT_FINE
    except click.ClickException as error:
        return _tell_usage(error, terminal)
    except InputError as error:
        terminal.show_report(error.report)
        return error.exit_code
    except ImagegenError as error:
        terminal.error(str(error), error.hint)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        terminal.error("interrupted; files that are not complete were not given their final names")
        return EXIT_INTERRUPTED
    except _Terminated:
        terminal.error("ended by SIGTERM; files that are not complete were not given their final names")
        return EXIT_TERMINATED
    except OSError as error:
        return _tell_system_error(error, terminal)
    except Exception as error:
        return _tell_bug(error, terminal)


def _tell_usage(error: click.ClickException, terminal: Terminal) -> int:
    if isinstance(error, NoArgsIsHelpError):
        terminal.say_always(error.format_message())
        return EXIT_USAGE
    hint = None
    if isinstance(error, click.UsageError):
        name = f"{error.ctx.command_path} --help" if error.ctx else "imagegen --help"
        hint = f"{name} shows what can be said"
    message = error.format_message()
    terminal.error(message[:1].lower() + message[1:].rstrip("."), hint)
    return EXIT_USAGE


def _tell_system_error(error: OSError, terminal: Terminal) -> int:
    if error.errno == errno.EPIPE:
        _silence_stdout()
        return EXIT_FAILED
    place = f"{os.fspath(error.filename)}: " if isinstance(error.filename, str | os.PathLike) else ""
    hint = {
        errno.ENOSPC: "make room on that file system, then run the same command again",
        errno.EACCES: "choose a place that you may write to, or change its mode",
        errno.EROFS: "choose a place that can be written to",
    }.get(error.errno or 0)
    terminal.error(f"{place}{(error.strerror or str(error)).lower()}", hint)
    return EXIT_FAILED


def _tell_bug(error: Exception, terminal: Terminal) -> int:
    summary = " ".join(str(error).split())[:300]
    hint = "this is a bug in imagegen: run the command again with --verbose and report what it prints"
    if terminal.verbose:
        import traceback

        terminal.say_always("".join(traceback.format_exception(error)).rstrip())
        hint = "this is a bug in imagegen: please report the lines above"
    terminal.error(f"unexpected {type(error).__name__}: {summary}", hint)
    return EXIT_FAILED


def _silence_stdout() -> None:
    """Whoever read our output has gone; keep the interpreter from complaining when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated
