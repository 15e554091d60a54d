"""Command lines of daemons: our flags, the user's own over them, written for a systemd unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagegen.emit import quote_unit_argument


@dataclass(frozen=True, slots=True)
class FromEnvironment:
    """A value that the unit takes from an ``EnvironmentFile=`` when the daemon starts."""

    variable: str

    def __str__(self) -> str:
        return f"${{{self.variable}}}"


#: flag without leading dashes → value
Arguments = Mapping[str, "str | FromEnvironment"]


FEATURE_GATES = "feature-gates"


def merge_arguments(ours: Arguments, extra: Mapping[str, str]) -> dict[str, str | FromEnvironment]:
    """Our flags with the user's over them, by name. The user wins; of feature gates, gate by gate."""
    merged = {**ours, **extra}
    gates = ours.get(FEATURE_GATES)
    if isinstance(gates, str) and FEATURE_GATES in extra:
        merged[FEATURE_GATES] = merge_feature_gates(gates, extra[FEATURE_GATES])
    return dict(sorted(merged.items()))


def merge_feature_gates(ours: str, extra: str) -> str:
    """``NAME=true,NAME=false`` twice as one: a gate that both name is as ``extra`` says."""
    gates = [gate.strip() for gate in (*ours.split(","), *extra.split(",")) if gate.strip()]
    return ",".join({gate.partition("=")[0]: gate for gate in gates}.values())


def emit_exec_start(program: str, arguments: Arguments) -> str:
    """The value of ``ExecStart=``: one ``--name=value`` a line. Literal values are escaped, variables not."""
    lines = [program]
    for name, value in arguments.items():
        if isinstance(value, FromEnvironment):
            lines.append(f"--{name}={value}")
        else:
            lines.append(quote_unit_argument(f"--{name}={value}"))
    return "\n".join(lines)
