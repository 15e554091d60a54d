"""How much user-data every platform carries, and what to say when a node's seed does not fit."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from imagegen.backends.cloudinit import EntrySize, Seed
from imagegen.diagnostics import Report, Span, register_code
from imagegen.model.cluster import Target

OVER_BUDGET = register_code(
    "IMG501",
    "a node's user-data is larger than the platform can carry",
    "Each platform hands user-data over in its own channel, and cuts or refuses what is too long: GCE takes "
    "256 KiB a metadata value and 512 KiB in all, VMware 64 KiB a guestinfo value, counted after gzip and "
    "base64. QEMU and VirtualBox get a seed ISO, which has no limit. Move large files into the image (phase "
    "bake, golden image), or take the platform out of `targets`.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bytes that one platform carries: ``value`` for user-data, ``total`` for the three files together.

    ``packed`` says that user-data travels as base64 of gzip, else as it is.
    """

    value: int
    total: int
    packed: bool
    source: str


#: platforms that are not listed take a NoCloud ISO of any size
BUDGETS: Mapping[Target, Budget] = {
    Target.GCE: Budget(
        value=256 * 1024,
        total=512 * 1024,
        packed=False,
        source="https://cloud.google.com/compute/docs/metadata/setting-custom-metadata#limitations",
    ),
    Target.VMWARE: Budget(
        value=64 * 1024,
        total=1024 * 1024,
        packed=True,
        source="https://github.com/vmware-tanzu/vm-operator/pull/148",
    ),
}


def measure_value(user_data: bytes, *, packed: bool) -> int:
    """The bytes that ``user_data`` takes in a channel."""
    if not packed:
        return len(user_data)
    return _base64_size(len(gzip.compress(user_data, compresslevel=9, mtime=0)))


def _base64_size(size: int) -> int:
    return (size + 2) // 3 * 4


class BudgetCheck:
    """Checks the seeds of one cluster; nodes with the same roles that fail for the same reason are told
    once.
    """

    def __init__(self, targets: Iterable[Target], report: Report) -> None:
        self._budgets = [(target, BUDGETS[target]) for target in targets if target in BUDGETS]
        self._report = report
        self._told: set[tuple[Target, str]] = set()

    def check_seed(self, seed: Seed, list_entries: Callable[[], Sequence[EntrySize]]) -> None:
        """Report an error for every target of the cluster that cannot carry ``seed``.

        ``list_entries`` gives the files in user-data, largest first; it is called only for a seed that does
        not fit.
        """
        rest = len(seed.meta_data) + len(seed.network_config)
        for target, budget in self._budgets:
            plain = len(seed.user_data)
            if budget.packed and _base64_size(plain) + 64 + rest <= min(budget.value, budget.total):
                continue  # gzip makes nothing larger by more than its header
            size = measure_value(seed.user_data, packed=budget.packed)
            if size > budget.value:
                self._tell(seed, target, size, budget.value, "a value", budget.packed, list_entries)
            elif size + rest > budget.total:
                self._tell(seed, target, size + rest, budget.total, "in all", budget.packed, list_entries)

    def _tell(
        self,
        seed: Seed,
        target: Target,
        size: int,
        limit: int,
        what: str,
        packed: bool,
        list_entries: Callable[[], Sequence[EntrySize]],
    ) -> None:
        key = (target, seed.node.role_set)
        if key in self._told:
            return
        self._told.add(key)
        largest = list_entries()[:3]
        shown = ", ".join(f"{entry.path} {entry.size:,} bytes ({entry.origin})" for entry in largest)
        how = " after gzip and base64" if packed else ""
        self._report.error(
            OVER_BUDGET,
            f"user-data of {seed.node.name} has {size:,} bytes{how}, but {target.value} takes {limit:,} "
            f"{what}; the largest entries are {shown}",
            seed.node.span,
            hint=f"put large files into the image, or take {target.value} out of targets",
            also=[Span(e.origin.where, e.origin.line, 1) for e in largest if e.origin.line],
        )
