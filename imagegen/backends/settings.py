"""Plan items that end as files: sysctls, kernel modules and units. Every backend writes them the same way."""

from __future__ import annotations

from collections.abc import Iterable

from imagegen.emit import emit_sysctl
from imagegen.plan.items import File, Item, KernelModule, Phase, Sysctl, Unit

UNIT_DIRECTORY = "/etc/systemd/system"

#: what the node's own settings add comes after what its image says
_STEMS = {Phase.BAKE: "90-imagegen", Phase.BOOT: "91-imagegen-node"}


def lower_settings(items: Iterable[Item]) -> list[File]:
    """The files that sysctls, kernel modules and unit contents of ``items`` become, in the order of their
    paths.
    """
    files: list[File] = []
    sysctls: dict[Phase, list[Sysctl]] = {}
    modules: dict[Phase, list[KernelModule]] = {}
    for item in items:
        if isinstance(item, Unit) and item.content is not None:
            path = f"{UNIT_DIRECTORY}/{item.name}"
            files.append(File(phase=item.phase, origin=item.origin, path=path, content=(item.content,)))
        elif isinstance(item, Sysctl):
            sysctls.setdefault(item.phase, []).append(item)
        elif isinstance(item, KernelModule):
            modules.setdefault(item.phase, []).append(item)
    for phase, keys in sysctls.items():
        text = emit_sysctl({item.key: item.value for item in keys})
        path = f"/etc/sysctl.d/{_STEMS[phase]}.conf"
        files.append(File(phase=phase, origin=keys[0].origin, path=path, content=(text,)))
    for phase, names in modules.items():
        text = "".join(f"{name}\n" for name in sorted({item.name for item in names}))
        path = f"/etc/modules-load.d/{_STEMS[phase]}.conf"
        files.append(File(phase=phase, origin=names[0].origin, path=path, content=(text,)))
    return sorted(files, key=lambda file: file.path)
