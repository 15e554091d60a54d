"""Users and groups of a root file system, out of passwd(5), group(5) and shadow(5)."""

from __future__ import annotations

from collections.abc import Iterator

from imagegen.plan.items import Group, User
from imagegen.verify.places import find_by_place
from imagegen.verify.roots import Root


def _rows(root: Root, path: str, fields: int) -> Iterator[list[str]]:
    for line in root.read_lines(path):
        row = line.split(":")
        if len(row) >= fields:
            yield row


def name_user(root: Root, uid: int) -> str:
    """The name of a user id inside the root, or the number."""
    return next((row[0] for row in _rows(root, "/etc/passwd", 7) if row[2] == str(uid)), str(uid))


def name_group(root: Root, gid: int) -> str:
    return next((row[0] for row in _rows(root, "/etc/group", 4) if row[2] == str(gid)), str(gid))


def check_user(user: User, root: Root) -> str:
    """Whether a user is as the Plan wants it: primary group, further groups, home, shell, id."""
    row = next((row for row in _rows(root, "/etc/passwd", 7) if row[0] == user.name), None)
    if row is None:
        return "there is no such user"
    wanted = {"group": user.group, "home": user.home, "shell": user.shell}
    got = {"group": name_group(root, int(row[3])), "home": row[5], "shell": row[6]}
    if user.uid is not None:
        wanted["id"], got["id"] = str(user.uid), row[2]
    wrong = [f"wanted {key} {value}, got {got[key]}" for key, value in wanted.items() if got[key] != value]
    members = {row[0]: row[3].split(",") for row in _rows(root, "/etc/group", 4)}
    wrong += [f"not in group {name}" for name in user.groups if user.name not in members.get(name, ())]
    return ", ".join(wrong)


def check_group(group: Group, root: Root) -> str:
    row = next((row for row in _rows(root, "/etc/group", 4) if row[0] == group.name), None)
    if row is None:
        return "there is no such group"
    return "" if group.gid in (None, int(row[2])) else f"wanted id {group.gid}, got {row[2]}"


def check_passwords(root: Root) -> str:
    """Whether nobody can log in by password; names nobody's hash."""
    lines = root.read("/etc/shadow").splitlines()
    if not lines:
        return "there is no /etc/shadow"
    open_lines = [number for _, number in find_by_place("/etc/shadow", b"\n".join(lines))]
    names = [lines[number - 1].split(b":")[0].decode(errors="replace") for number in open_lines]
    return f"a password is set or missing for {', '.join(names)}" if names else ""
