"""Packages, units, sysctls and kernel modules of a root file system, as dpkg and systemd read them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from imagegen.backends.image.debianpackages import parse_dpkg_status
from imagegen.plan.items import KernelModule, Sysctl, Unit, UnitState
from imagegen.verify.roots import Root

# systemd.unit(5) and sysctl.d(5): where files may lie, the first place wins
_UNIT_FOLDERS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
_SYSCTL_FOLDERS = ("/etc/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")


def check_package(name: str, root: Root) -> str:
    installed = parse_dpkg_status(root.read("/var/lib/dpkg/status").decode(errors="replace"))
    return "" if any(package.name == name for package in installed) else "not installed"


def check_unit(unit: Unit, root: Root) -> str:
    """Whether a unit has the state that the Plan wants, by the links that systemctl makes."""
    path = _find_unit(unit.name, root)
    if path is None:
        return "there is no such unit" if unit.state is not UnitState.DISABLED else ""
    is_masked = str(root.find(path, follow=True)).endswith("/dev/null")
    if unit.state is UnitState.MASKED:
        return "" if is_masked else "not masked"
    if is_masked:
        return f"masked, not {unit.state}"
    links = list(_list_links(unit.name, root.read_lines(path)))
    there = [link for link in links if root.status(link) is not None]
    if unit.state is UnitState.DISABLED:
        return f"enabled by {there[0]}" if there else ""
    missing = sorted(set(links) - set(there))
    if not links:
        return "its [Install] section names nothing that would start it"
    return f"not enabled: there is no {missing[0]}" if missing else ""


def _find_unit(name: str, root: Root) -> str | None:
    """The unit's file; ``name@instance`` has the file of its template."""
    template = re.sub(r"@[^.]+\.", "@.", name)
    for folder in _UNIT_FOLDERS:
        for file in dict.fromkeys((name, template)):
            if root.status(f"{folder}/{file}") is not None:
                return f"{folder}/{file}"
    return None


def _list_links(name: str, lines: list[str]) -> Iterator[str]:
    """The links of an enabled unit, out of its [Install] section."""
    section = ""
    for line in lines:
        if line.startswith("["):
            section = line.strip()
        key, equals, value = line.partition("=")
        if section != "[Install]" or not equals:
            continue
        kinds = {"WantedBy": "wants", "RequiredBy": "requires"}
        for target in value.split():
            if key.strip() in kinds:
                yield f"/etc/systemd/system/{target}.{kinds[key.strip()]}/{name}"
            elif key.strip() == "Alias":
                yield f"/etc/systemd/system/{target}"


def check_sysctl(sysctl: Sysctl, root: Root) -> str:
    """Whether the last word about a key is the Plan's: files count in the order of their names."""
    places = {name: folder for folder in reversed(_SYSCTL_FOLDERS) for name in root.list_names(folder)}
    word = None
    for name, folder in sorted(places.items()):
        for line in root.read_lines(f"{folder}/{name}") if name.endswith(".conf") else ():
            key, equals, value = line.strip().removeprefix("-").partition("=")
            if equals and key.strip().replace("/", ".") == sysctl.key.replace("/", "."):
                word = (" ".join(value.split()), f"{folder}/{name}")
    if word is None:
        return "set nowhere"
    return (
        ""
        if word[0] == " ".join(sysctl.value.split())
        else f"wanted {sysctl.value}, got {word[0]} by {word[1]}"
    )


def check_module(module: KernelModule, root: Root) -> str:
    for name in root.list_names("/etc/modules-load.d"):
        if module.name in root.read_lines(f"/etc/modules-load.d/{name}"):
            return ""
    return "loaded by no file in /etc/modules-load.d"
