"""What the checks work with: a resolved cluster, and a way to report that reports no value twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from imagegen.diagnostics import Diagnostic, Report, Severity, Span
from imagegen.model.cluster import Cluster
from imagegen.model.draft import MORE, Draft

#: more findings of one kind than this are counted, not listed
MAX_PER_CODE = 100


@dataclass(slots=True)
class Review:
    cluster: Cluster
    draft: Draft
    report: Report
    #: paths of ranges whose default gave way to the others
    moved: tuple[str, ...]
    counts: Counter[str] = field(default_factory=Counter)

    def is_written(self, path: str) -> bool:
        """Whether the user wrote ``path``."""
        return path in self.draft.spans

    def label(self, number: int) -> str:
        """The name of a node, or its place in the list when the name was reported."""
        path = f"nodes[{number}]"
        return path if self.draft.is_tainted(f"{path}.name") else self.cluster.nodes[number].name

    def place(self, path: str) -> Span | None:
        return self.cluster.span_of(path)

    def add(
        self,
        severity: Severity,
        code: str,
        message: str,
        path: str,
        *,
        hint: str | None = None,
        also: Iterable[str] = (),
        needs: Iterable[str] = (),
    ) -> None:
        """Report at ``path``, unless it or a path of ``also`` or ``needs`` was already reported."""
        others = tuple(also)
        if any(self.draft.is_tainted(p) for p in (path, *others, *needs)):
            return
        self.counts[code] += 1
        if self.counts[code] > MAX_PER_CODE:
            return
        places = tuple(place for p in others if (place := self.place(p)) is not None)
        finding = Diagnostic(
            code=code,
            severity=severity,
            message=message,
            span=self.place(path) or Span(self.cluster.file, 1, 1),
            hint=hint,
            also=places,
            path=path,
        )
        self.report.add(finding)

    def error(
        self,
        code: str,
        message: str,
        path: str,
        *,
        hint: str | None = None,
        also: Iterable[str] = (),
        needs: Iterable[str] = (),
    ) -> None:
        self.add(Severity.ERROR, code, message, path, hint=hint, also=also, needs=needs)

    def warning(
        self,
        code: str,
        message: str,
        path: str,
        *,
        hint: str | None = None,
        also: Iterable[str] = (),
        needs: Iterable[str] = (),
    ) -> None:
        self.add(Severity.WARNING, code, message, path, hint=hint, also=also, needs=needs)

    def finish(self) -> None:
        """Say how many findings were counted and not listed."""
        for code, count in sorted(self.counts.items()):
            if count > MAX_PER_CODE:
                message = f"and {count - MAX_PER_CODE} more findings {code}"
                self.report.warning(
                    MORE, message, Span(self.cluster.file, 1, 1), hint="correct the others first"
                )
