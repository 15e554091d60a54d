"""Findings about the user's input: where, what, and what to do. Knows nothing about what is checked."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A place in a text: ``line`` and ``column`` count from 1; ``end_column`` is one past the last one."""

    file: str
    line: int
    column: int
    end_column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Severity(enum.Enum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One finding. Message grammar: lower case, no full stop, says wanted and got.

    ``code`` is stable (``IMG104``); ``imagegen explain`` documents it. ``also`` are further places involved.
    ``path`` is the place in the model, such as ``network.services``.
    """

    code: str
    severity: Severity
    message: str
    span: Span | None = None
    hint: str | None = None
    also: tuple[Span, ...] = ()
    path: str = ""

    def sort_key(self) -> tuple[str, int, int, str, str]:
        if self.span is None:
            return ("", 0, 0, self.code, self.message)
        return (self.span.file, self.span.line, self.span.column, self.code, self.message)

    def as_dict(self) -> dict[str, object]:
        """The machine form that ``--format json`` prints."""
        out: dict[str, object] = {"code": self.code, "severity": self.severity.value, "message": self.message}
        if self.span is not None:
            out |= {"file": self.span.file, "line": self.span.line, "column": self.span.column}
        if self.hint:
            out["hint"] = self.hint
        if self.also:
            out["also"] = [{"file": s.file, "line": s.line, "column": s.column} for s in self.also]
        if self.path:
            out["path"] = self.path
        return out


@dataclass(frozen=True, slots=True)
class Code:
    """What ``imagegen explain`` says about one kind of finding."""

    code: str
    title: str
    explanation: str


#: every registered code; complete only for the modules that were imported
CODES: dict[str, Code] = {}


def register_code(code: str, title: str, explanation: str) -> str:
    """Document a finding beside its check; returns ``code``.

    IMG0xx source, 1xx model, 2xx profiles and plan, 3xx pki, 4xx kubernetes, 5xx backends, 6xx tools.
    Raises ValueError when the code is taken by another finding or is not of the form ``IMG123``.
    """
    if not re.fullmatch(r"IMG[0-6]\d\d", code):
        raise ValueError(f"wanted a code such as IMG104, got {code!r}")
    entry = Code(code, title, explanation)
    if CODES.setdefault(code, entry) != entry:
        raise ValueError(f"{code} is taken by {CODES[code].title!r}")
    return code


@dataclass(slots=True)
class Report:
    """Collects findings; nothing stops at the first one. ``sources``: file name → its text, for excerpts."""

    findings: list[Diagnostic] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def add(self, finding: Diagnostic) -> None:
        self.findings.append(finding)

    def error(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        hint: str | None = None,
        also: Iterable[Span] = (),
        path: str = "",
    ) -> None:
        self._put(Severity.ERROR, code, message, span, hint, also, path)

    def warning(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        hint: str | None = None,
        also: Iterable[Span] = (),
        path: str = "",
    ) -> None:
        self._put(Severity.WARNING, code, message, span, hint, also, path)

    def note(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        *,
        hint: str | None = None,
        also: Iterable[Span] = (),
        path: str = "",
    ) -> None:
        """Worth knowing, never a failure: ``--strict`` does not mind."""
        self._put(Severity.NOTE, code, message, span, hint, also, path)

    def _put(
        self,
        severity: Severity,
        code: str,
        message: str,
        span: Span | None,
        hint: str | None,
        also: Iterable[Span],
        path: str,
    ) -> None:
        self.findings.append(
            Diagnostic(
                code=code,
                severity=severity,
                message=message,
                span=span,
                hint=hint,
                also=tuple(also),
                path=path,
            )
        )

    @property
    def has_errors(self) -> bool:
        return any(f.severity is Severity.ERROR for f in self.findings)

    @property
    def has_warnings(self) -> bool:
        return any(f.severity is Severity.WARNING for f in self.findings)

    def sorted(self) -> list[Diagnostic]:
        """Findings by place, each once."""
        return sorted(dict.fromkeys(self.findings), key=Diagnostic.sort_key)

    def render_text(self) -> str:
        """Compiler-style text: place, severity, code, message, excerpt, further places, hint."""
        rows: dict[str, list[str]] = {}
        out = []
        for finding in self.sorted():
            file = finding.span.file if finding.span else ""
            if file not in rows:
                rows[file] = self.sources.get(file, "").split("\n")
            out.append(_render(finding, rows[file]))
        return "".join(out)

    def render_json(self) -> str:
        return json.dumps([f.as_dict() for f in self.sorted()], indent=2, ensure_ascii=False) + "\n"


#: Characters that could rewrite a terminal line or hide text (C0, C1, bidi controls) are shown escaped.
_UNSAFE = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0)) if c != 0x09} | {
    c: f"\\u{c:04x}" for c in (*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
}
_MAX_EXCERPT = 160


def printable(text: str) -> str:
    """``text`` with control and direction-changing characters escaped."""
    return text.translate(_UNSAFE).replace("\t", " ")


def render_finding(finding: Diagnostic, sources: Mapping[str, str]) -> str:
    """One finding as text with a trailing newline; the excerpt is left out when the source is not known."""
    return _render(finding, sources.get(finding.span.file, "").split("\n") if finding.span else [])


def _render(finding: Diagnostic, rows: list[str]) -> str:
    head = f"{finding.severity.value}[{finding.code}]: {printable(finding.message)}"
    lines = [f"{printable(str(finding.span))}: {head}" if finding.span else head]
    if finding.span is not None:
        lines += _render_excerpt(finding.span, rows)
    lines += [f"  = also: {printable(str(place))}" for place in finding.also]
    if finding.hint:
        lines.append(f"  = help: {printable(finding.hint)}")
    return "\n".join(lines) + "\n"


def _render_excerpt(span: Span, rows: list[str]) -> list[str]:
    if not 1 <= span.line <= len(rows) or rows == [""]:
        return []
    raw = rows[span.line - 1].rstrip("\r")
    start = max(0, span.column - 1)
    cut = 0 if start < _MAX_EXCERPT - 20 else start - 20
    before, rest = printable(raw[cut:start]), raw[start : cut + _MAX_EXCERPT]
    width = max(1, len(printable(rest[: max(1, (span.end_column or span.column + 1) - span.column)])))
    gutter = str(span.line)
    pad = " " * len(gutter)
    return [f"{gutter} | {before}{printable(rest)}", f"{pad} | {' ' * len(before)}{'^' * width}"]
