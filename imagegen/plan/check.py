"""Cross-checks on merged items: what no component or profile can see alone. Adds findings only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from imagegen.diagnostics import Report, Span, register_code
from imagegen.model.cluster import Node, Role
from imagegen.plan.basesystem import (
    OUR_UNITS,
    is_known_unit,
    known_groups,
    known_units,
    known_users,
)
from imagegen.plan.items import (
    Binary,
    Directory,
    File,
    Group,
    Item,
    Login,
    Package,
    Phase,
    Port,
    Symlink,
    Unit,
    User,
)
from imagegen.plan.merge import has_refs, name_item

PATH = register_code(
    "IMG220",
    "a path that cannot be used",
    "Paths are absolute and normalised (no `..`, no `.`, no doubled or trailing slash, no control "
    "characters). They do not go through /bin, /sbin, /lib or /var/run, which are links, nor into "
    "/proc, /sys, /dev, /run or /tmp, which are empty again after a reboot.",
)
MODE = register_code(
    "IMG221",
    "an unsafe or unreadable mode",
    "A mode is a quoted octal string of four digits such as '0640'. Nothing is writable for everyone (a "
    "directory with the sticky bit excepted), and no file is setuid or setgid.",
)
OWNER = register_code(
    "IMG222",
    "unknown owner or group",
    "A file or directory belongs to a user or group that no profile or component creates and that the "
    "base system does not have. The file could not be written. Add the user under `users:` or correct "
    "the name.",
)
PARENT = register_code(
    "IMG223",
    "something lies below a file",
    "One item makes a path a file or a link and another wants to put something below it.",
)
SHADOW = register_code(
    "IMG224",
    "a file that others write",
    "imagegen writes units to /etc/systemd/system, and sysctls and kernel modules to files of its own; "
    "accounts, host name and machine id are written by the system. A file of the same path is a second "
    "opinion on them: use `units:`, `sysctls:`, `modules:`, `users:` or `groups:`.",
)
PORTS = register_code(
    "IMG225",
    "ports overlap",
    "Two entries of the port table open overlapping ranges of one protocol and mean different things by it.",
)
UNIT_REFERENCE = register_code(
    "IMG226",
    "a unit refers to a unit that does not exist",
    "A unit requires, wants or is ordered after a unit that neither the plan nor the base system has, "
    "so systemd would ignore the ordering or refuse to start it.",
)
PHASE = register_code(
    "IMG227",
    "an item in the wrong phase",
    "Bake items go into an image that many nodes share: they hold no keys or certificates, and nothing "
    "that differs from node to node. Such items are of phase boot.",
)
ACCOUNT = register_code(
    "IMG228",
    "accounts contradict each other",
    "Two users or two groups share one number, or a user belongs to a group that nothing creates.",
)

_MODE = re.compile(r"[0-7]{4}")
_LINKED = ("/bin", "/sbin", "/lib", "/lib64", "/var/run", "/var/lock")
_VOLATILE = ("/proc", "/sys", "/dev", "/run", "/tmp")  # noqa: S108
_UNIT_FOLDER = "/etc/systemd/system"
#: files that are made of other items (see ``backends.settings``) or by the system, and what to do instead
_WRITTEN = {
    **{f"/etc/sysctl.d/{stem}.conf": "use `sysctls:`" for stem in ("90-imagegen", "91-imagegen-node")},
    **{f"/etc/modules-load.d/{stem}.conf": "use `modules:`" for stem in ("90-imagegen", "91-imagegen-node")},
    **{f"/etc/{name}": "use `users:` and `groups:`" for name in ("group", "gshadow", "passwd", "shadow")},
    "/etc/hostname": "cloud-init writes the name of the node",
    "/etc/machine-id": "every machine makes its own on first boot",
}

_Spans = Mapping[tuple[str, str], Span]


class _Findings:
    """Adds findings about items; knows where the user wrote an item, else names its origin.

    ``has_foreign_packages``: the user adds packages of which nobody here knows what they bring.
    """

    def __init__(
        self, report: Report, spans: _Spans, where: str, *, has_foreign_packages: bool = False
    ) -> None:
        self.report, self.spans, self.where = report, spans, where
        self.has_foreign_packages = has_foreign_packages

    def error(self, code: str, item: Item, message: str, hint: str | None = None) -> None:
        span = self.spans.get(item.identity)
        origin = "" if span else f" (from {item.origin}, on {self.where})"
        self.report.error(code, f"{name_item(item)}: {message}{origin}", span, hint=hint)

    def missing(self, code: str, item: Item, message: str, name: str, known: Iterable[str]) -> None:
        """``name`` is in none of our lists: an error, unless a package of the user may well bring it."""
        if item.identity in self.spans and self.has_foreign_packages:
            return
        close = get_close_matches(name, known, 1, 0.8)
        self.error(code, item, message, f"did you mean {close[0]}?" if close else None)


def check_role_items(
    roles: tuple[Role, ...],
    items: Sequence[Item],
    spans: _Spans,
    report: Report,
    *,
    has_foreign_packages: bool = False,
) -> None:
    """Every check on the shared items of one set of roles; ``spans``: places in the user's own profiles.

    ``has_foreign_packages``: the user adds packages, so what they bring (users, units) cannot be judged.
    """
    found = _Findings(report, spans, "+".join(roles), has_foreign_packages=has_foreign_packages)
    _check_places(items, {item.identity: item for item in items}, found)
    _check_accounts(items, found)
    _check_owners(items, items, found)
    _check_phases(items, found)
    _check_ports([item for item in items if isinstance(item, Port)], found)
    _check_units(items, items, found)


def check_node_items(
    node: Node, own: Sequence[Item], shared: Mapping[tuple[str, str], Item], report: Report
) -> None:
    """The checks on what one node gets on top of the shared items of its roles."""
    found = _Findings(report, {}, f"node {node.name}")
    everything = {**shared, **{item.identity: item for item in own}}
    _check_places(own, everything, found)
    _check_owners(own, everything.values(), found)
    for item in own:
        if item.phase is not Phase.BOOT:
            found.error(PHASE, item, "differs from node to node, but is of phase bake")
    _check_units(own, everything.values(), found)


def find_path_fault(path: str) -> str | None:
    """What is wrong with an absolute path, or None."""
    if not path.startswith("/"):
        return "wanted an absolute path"
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in path):
        return "the path holds control characters"
    parts = path.split("/")[1:]
    if path == "/" or any(part in {"", ".", ".."} for part in parts):
        return "wanted a normalised path without empty, `.` and `..` parts"
    if len(path.encode()) > 4000 or any(len(part.encode()) > 255 for part in parts):
        return "the path is too long"
    for folder in _LINKED:
        if path == folder or path.startswith(folder + "/"):
            real = "/run" + path[len("/var/run") :] if folder.startswith("/var") else "/usr" + path
            return f"{folder} is a link; write {real}"
    for folder in _VOLATILE:
        if path == folder or path.startswith(folder + "/"):
            return f"{folder} is empty again after a reboot"
    return None


def find_mode_fault(mode: str, *, is_directory: bool) -> str | None:
    """What is wrong with a mode, or None."""
    if not _MODE.fullmatch(mode):
        return f"wanted a mode of four octal digits such as '0644', got {mode!r}"
    bits = int(mode, 8)
    if bits & 0o002 and not (is_directory and bits & 0o1000):
        return f"mode {mode} lets everyone write"
    if not is_directory and bits & 0o6000:
        return f"mode {mode} is setuid or setgid"
    return None


def _check_places(
    items: Iterable[Item], everything: Mapping[tuple[str, str], Item], found: _Findings
) -> None:
    for item in items:
        if not isinstance(item, File | Directory | Symlink | Binary):
            continue
        # The profile reader has already looked at what the user wrote, scalar by scalar.
        if item.identity not in found.spans:
            if fault := find_path_fault(item.path):
                found.error(PATH, item, fault)
            if isinstance(item, File | Directory) and (
                fault := find_mode_fault(item.mode, is_directory=isinstance(item, Directory))
            ):
                found.error(MODE, item, fault)
        parent = item.path.rpartition("/")[0]
        while parent:
            above = everything.get(("path", parent))
            if above is not None and not isinstance(above, Directory):
                found.error(PARENT, item, f"lies below {name_item(above)} (from {above.origin})")
                break
            parent = parent.rpartition("/")[0]
        folder, _, name = item.path.rpartition("/")
        if folder == _UNIT_FOLDER and ("unit", name) in everything:
            unit = everything["unit", name]
            found.error(
                SHADOW, item, f"is also unit {name} (from {unit.origin})", "describe the unit under `units:`"
            )
        elif item.path in _WRITTEN:
            found.error(SHADOW, item, "is a file that others write", _WRITTEN[item.path])


def _check_owners(items: Iterable[Item], everything: Iterable[Item], found: _Findings) -> None:
    packages, users, groups = set(), set(), set()
    for item in everything:
        if isinstance(item, Package):
            packages.add(item.name)
        elif isinstance(item, User | Login):
            users.add(item.name)
            if isinstance(item, Login):
                groups.add(item.name)
        elif isinstance(item, Group):
            groups.add(item.name)
    users |= known_users(packages)
    groups |= known_groups(packages)
    for item in items:
        if isinstance(item, File | Directory):
            if item.owner not in users:
                found.missing(OWNER, item, f"nothing creates its owner {item.owner}", item.owner, users)
            if item.group not in groups:
                found.missing(OWNER, item, f"nothing creates its group {item.group}", item.group, groups)
        elif isinstance(item, User):
            for group in (item.group, *item.groups):
                if group not in groups:
                    found.missing(ACCOUNT, item, f"nothing creates its group {group}", group, groups)


def _check_accounts(items: Iterable[Item], found: _Findings) -> None:
    uids: dict[int, Item] = {}
    gids: dict[int, Item] = {}
    for item in items:
        if isinstance(item, User) and item.uid is not None and uids.setdefault(item.uid, item) is not item:
            found.error(ACCOUNT, item, f"shares uid {item.uid} with {name_item(uids[item.uid])}")
        if isinstance(item, Group) and item.gid is not None and gids.setdefault(item.gid, item) is not item:
            found.error(ACCOUNT, item, f"shares gid {item.gid} with {name_item(gids[item.gid])}")


def _check_phases(items: Iterable[Item], found: _Findings) -> None:
    for item in items:
        if item.phase is Phase.BAKE and has_refs(item):
            found.error(PHASE, item, "holds keys or certificates, but is of phase bake")


def _check_ports(ports: Sequence[Port], found: _Findings) -> None:
    ordered = sorted(ports, key=lambda p: (p.protocol, p.first, p.last))
    widest: Port | None = None
    for port in ordered:
        if widest is not None and widest.protocol == port.protocol and port.first <= widest.last:
            other = f"{name_item(widest)}, {widest.purpose} (from {widest.origin})"
            found.error(PORTS, port, f"{port.purpose} overlaps {other}")
        if widest is None or widest.protocol != port.protocol or port.last > widest.last:
            widest = port
    for port in ports:
        if not 1 <= port.first <= port.last <= 65535:
            found.error(PORTS, port, "wanted a range within 1-65535")


_NEEDS = frozenset(
    {"Also", "BindsTo", "PartOf", "Requires", "Requisite", "Service", "Sockets", "Unit", "Upholds", "Wants"}
)
_ORDERS = frozenset({"After", "Before"})


def list_unit_references(content: str) -> Iterable[tuple[str, str]]:
    """``(directive, unit)`` for every other unit that a unit's text names; continuation lines are joined."""
    for line in re.sub(r"\\\n", " ", content).splitlines():
        key, eq, value = line.partition("=")
        if eq and not line.startswith(("#", ";")) and (key := key.strip()) in _NEEDS | _ORDERS:
            for name in value.split():
                yield key, name


def _check_units(items: Iterable[Item], everything: Iterable[Item], found: _Findings) -> None:
    everything = tuple(everything)
    units = known_units([item.name for item in everything if isinstance(item, Package)])
    units |= {item.name for item in everything if isinstance(item, Unit) and item.content is not None}
    for item in items:
        if not isinstance(item, Unit):
            continue
        if item.content is None:
            if item.state != "masked" and not is_known_unit(item.name, units):
                message = "has no content, and no package of the plan brings it"
                found.missing(UNIT_REFERENCE, item, message, item.name, units)
            continue
        for directive, name in list_unit_references(item.content):
            allowed = units | OUR_UNITS if directive in _ORDERS else units
            if not is_known_unit(name, allowed):
                message = f"{directive}={name} names a unit that does not exist"
                found.missing(UNIT_REFERENCE, item, message, name, allowed)
