"""The only module that starts a process: argv lists, closed stdin, a short environment, secrets masked."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagegen.errors import ImagegenError, MissingToolError

#: what a child sees of our environment; everything else it needs is passed by name
_KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "SOURCE_DATE_EPOCH", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
_SHOWN_LINES = 15
#: between asking programs to end and insisting; an interrupted command is to be gone within five
_PATIENCE_SECONDS = 1.5
_MASK = "********"
#: administrators' programs (mkfs, blkid) are not on every user's PATH
_ADMIN_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program that imagegen may start. ``purpose`` completes "needed to"; ``package`` is Debian's name."""

    name: str
    package: str
    purpose: str
    version_arguments: tuple[str, ...] = ("--version",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float


class CommandError(ImagegenError):
    """A process ended with another status than 0, or ran out of time; the message holds its command line."""


def find_tool(name: str) -> str | None:
    """The absolute path of a program, or None; looks where administrators' programs lie, too."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_ADMIN_PATH}")


def require_tools(tools: Iterable[Tool]) -> None:
    """Raise one MissingToolError that names every missing tool, its package and what it is needed for."""
    missing = [tool for tool in tools if find_tool(tool.name) is None]
    if not missing:
        return
    lines = [f"{tool.name} is not installed; it is needed to {tool.purpose}" for tool in missing]
    packages = " ".join(sorted({tool.package for tool in missing}))
    raise MissingToolError("\n".join(lines), hint=f"apt-get install {packages}")


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every secret replaced; a secret shorter than four characters is not looked for."""
    for secret in sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text


def quote_command(
    argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """The command as one line that a person can paste into a POSIX shell."""
    parts = [f"cd {shlex.quote(str(cwd))} &&"] if cwd else []
    parts += [f"{name}={shlex.quote(value)}" for name, value in sorted((env or {}).items())]
    return " ".join([*parts, shlex.join(argv)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """A process that goes on while we do; whoever started it ends it. What it writes goes to ``output``."""

    argv: tuple[str, ...]
    output: Path
    _process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The status it ended with (negative: by a signal), or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait at most ``timeout`` seconds for its end; the status, or None when it still runs."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def end(self, patience: float = 5.0) -> None:
        """Ask its process group to end, insist after ``patience`` seconds."""
        for signal_number, timeout in ((signal.SIGTERM, patience), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal_number)
            if self.wait(timeout) is not None:
                return

    def last_lines(self, count: int = _SHOWN_LINES) -> str:
        """The end of what it wrote."""
        try:
            text = self.output.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.rstrip().splitlines()[-count:])


def _say_nothing(line: str) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Starts processes. ``log`` gets one masked line a command; ``secrets`` appear in no message."""

    log: Callable[[str], None] = _say_nothing
    secrets: tuple[str, ...] = field(default=(), repr=False)
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set, init=False, repr=False, compare=False)

    def end_all(self) -> None:
        """End what ``run`` has started in any thread; those calls raise CommandError."""
        for process in tuple(self._running):
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._running and time.monotonic() < deadline:
            time.sleep(0.02)
        for process in tuple(self._running):
            _signal_group(process, signal.SIGKILL)

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: float | None = None,
        check: bool = True,
        keep: Iterable[str] = (),
    ) -> Completed:
        """Run a program to its end and return what it wrote.

        ``env`` is added to the short environment, and so are our own variables that ``keep`` names, whose
        values are never shown; ``stdin`` is closed unless bytes are given; ``timeout`` is
        in seconds. Raises MissingToolError when the program is not there, CommandError when it fails (unless
        ``check`` is False) or takes too long, ValueError when a secret is in ``argv``. On an interruption the
        whole process group is ended before the exception goes on; when we are killed, the program is, too.
        """
        path, shown = self._prepare(argv, cwd, env)
        start = time.monotonic()
        process = subprocess.Popen(
            [*ending_with_us("KILL"), path, *argv[1:]],
            cwd=cwd,
            env=_short_environment(keep) | dict(env or {}),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._running.add(process)
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            out, err = _end_group(process)
            raise CommandError(
                self._tell_failure(shown, f"took longer than {timeout:g} s", out, err)
            ) from None
        except BaseException:
            _end_group(process)
            raise
        finally:
            self._running.discard(process)
        if check and process.returncode != 0:
            raise CommandError(self._tell_failure(shown, _describe_status(process.returncode), out, err))
        return Completed(
            argv=tuple(argv),
            returncode=process.returncode,
            stdout=out.decode(errors="replace"),
            stderr=err.decode(errors="replace"),
            seconds=time.monotonic() - start,
        )

    def start(
        self,
        argv: Sequence[str],
        *,
        output: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        keep: Iterable[str] = (),
    ) -> Background:
        """Start a program that goes on after this call, in a session of its own, and return its handle.

        What it writes is appended to ``output``. It does not end with us: keep its handle, or its process id.
        Raises MissingToolError, and ValueError as ``run`` does.
        """
        path, _ = self._prepare(argv, cwd, env)
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                [path, *argv[1:]],
                cwd=cwd,
                env=_short_environment(keep) | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
            )
        finally:
            os.close(handle)
        return Background(argv=tuple(argv), output=output, _process=process)

    def attach(self, argv: Sequence[str]) -> int:
        """Run a program on our own terminal, with our whole environment; the status that it ended with."""
        path, _ = self._prepare(argv, None, None)
        # an interrupt from the keyboard is for the program: it gets it from the terminal
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process = subprocess.Popen([path, *argv[1:]], preexec_fn=_hear_interrupts)
            return process.wait()
        finally:
            signal.signal(signal.SIGINT, before)

    def _prepare(
        self, argv: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None
    ) -> tuple[str, str]:
        """The program's path, and the command as it may be shown, which is logged."""
        if any(len(secret) >= 4 and secret in word for word in argv for secret in self.secrets):
            raise ValueError(
                "a secret must not be an argument: other users can read it; pass it by stdin or a file"
            )
        shown = self._mask(quote_command(argv, cwd=cwd, env=env))
        self.log(shown)
        path = argv[0] if "/" in argv[0] else find_tool(argv[0])
        if path is None or not os.access(path, os.X_OK):
            raise MissingToolError(
                f"{argv[0]} is not installed", hint="imagegen doctor lists what is missing"
            )
        return path, shown

    def _mask(self, text: str) -> str:
        return mask_secrets(text, self.secrets)

    def _tell_failure(self, shown: str, what: str, out: bytes, err: bytes) -> str:
        text = (err if err.strip() else out).decode(errors="replace").rstrip()
        lines = self._mask(text).splitlines()
        cut = [f"… {len(lines) - _SHOWN_LINES} lines before"] if len(lines) > _SHOWN_LINES else []
        tail = [f"  {line}" for line in [*cut, *lines[-_SHOWN_LINES:]]]
        return "\n".join([f"{what}: {shown}", *tail])


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _short_environment(keep: Iterable[str] = ()) -> dict[str, str]:
    kept = {name: os.environ[name] for name in (*_KEPT_VARIABLES, *keep) if name in os.environ}
    path = f"{kept.get('PATH', os.defpath)}:{_ADMIN_PATH}"
    return kept | {"PATH": path, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _describe_status(returncode: int) -> str:
    if returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    return f"failed with status {returncode}"


def ending_with_us(signal_name: str) -> tuple[str, ...]:
    """What goes before a command so that the kernel signals it when we are killed (PR_SET_PDEATHSIG)."""
    path = find_tool("setpriv")
    return () if path is None else (path, "--pdeathsig", signal_name)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end_group(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Ask the process and its children to end, insist after a while, and collect what they wrote."""
    for number, patience in ((signal.SIGTERM, _PATIENCE_SECONDS), (signal.SIGKILL, 1.0)):
        _signal_group(process, number)
        # a grandchild in a group of its own may keep the pipes open
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=patience)
    return b"", b""
