"""What of a running node is not in its files: units, kernel settings, ports, accounts, time, first boot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from imagegen.plan.items import Group, Item, KernelModule, Port, Sysctl, Unit, UnitState, User

Answer = Mapping[str, Any]

#: chronyc(1), "tracking" as CSV: the last field is the leap status
_SYNCHRONISED = ("Normal", "Insert second", "Delete second")
_ENABLED = ("enabled", "enabled-runtime", "static", "alias", "indirect")


def check_unit(unit: Unit, items: Iterable[Item], answer: Answer) -> str:
    """Whether systemd has the unit as the Plan wants it, and runs it when it should run."""
    got = answer["units"].get(unit.name, {})
    load, active = got.get("LoadState", "not-found"), got.get("ActiveState", "unknown")
    if unit.state is UnitState.MASKED:
        return (
            "" if load in ("masked", "not-found") and active != "active" else f"{load}, {active}, not masked"
        )
    if unit.state is UnitState.DISABLED:
        return f"{active}, though it is disabled" if active == "active" else ""
    if load != "loaded":
        return f"not loaded: {load}"
    if unit.state is UnitState.ENABLED and got.get("UnitFileState") not in _ENABLED:
        return f"not enabled: {got.get('UnitFileState')}"
    if unit.state is UnitState.STATIC and not _is_started_by_path(unit, items):
        return f"failed: {got.get('Result')}" if active == "failed" else ""
    return _check_active(unit, got)


def _check_active(unit: Unit, got: Mapping[str, str]) -> str:
    active = got.get("ActiveState")
    if active == "active":
        return ""
    is_done = got.get("Type") == "oneshot" and got.get("Result") == "success"
    if is_done and active == "inactive":
        return ""
    if unit.name.endswith((".target", ".timer", ".slice")) and active == "inactive":
        return f"not active: {active}"
    why = "" if got.get("ConditionResult") != "no" else ", because a condition of it is not met"
    return f"not active: {active} ({got.get('SubState')}), result {got.get('Result')}{why}"


def _is_started_by_path(unit: Unit, items: Iterable[Item]) -> bool:
    path = unit.name.removesuffix(".service") + ".path"
    return any(isinstance(item, Unit) and item.name == path for item in items)


def check_sysctl(sysctl: Sysctl, answer: Answer) -> str:
    """Whether the kernel has the value now."""
    got = answer["sysctls"].get(sysctl.key)
    if got is None:
        return "the kernel does not know it"
    wanted = " ".join(sysctl.value.split())
    return "" if got == wanted else f"wanted {wanted}, got {got}"


def check_module(module: KernelModule, answer: Answer) -> str:
    return "" if answer["modules"].get(module.name) else f"not loaded by kernel {answer['kernel']}"


def check_user(user: User, answer: Answer) -> str:
    row = next((row for row in answer["users"] if row[0] == user.name), None)
    if row is None:
        return "there is no such user"
    groups = {number: name for name, _, number, _ in answer["groups"]}
    wanted = {"group": user.group, "home": user.home, "shell": user.shell}
    got = {"group": groups.get(row[3], str(row[3])), "home": row[5], "shell": row[6]}
    if user.uid is not None:
        wanted["id"], got["id"] = str(user.uid), str(row[2])
    wrong = [f"wanted {key} {value}, got {got[key]}" for key, value in wanted.items() if got[key] != value]
    members = {name: names for name, _, _, names in answer["groups"]}
    wrong += [f"not in group {name}" for name in user.groups if user.name not in members.get(name, ())]
    return ", ".join(wrong)


def check_group(group: Group, answer: Answer) -> str:
    row = next((row for row in answer["groups"] if row[0] == group.name), None)
    if row is None:
        return "there is no such group"
    return "" if group.gid in (None, row[2]) else f"wanted id {group.gid}, got {row[2]}"


def check_port(port: Port, answer: Answer) -> str:
    """Whether somebody listens at a port of the port table; ranges are for whoever comes."""
    ports = {(protocol, number) for protocol, address, number in answer["listening"]}
    return "" if (port.protocol, port.first) in ports else f"nobody listens ({port.purpose})"


def check_state(items: list[Item], answer: Answer) -> Iterator[tuple[str, str]]:
    """Name and problem of every check that concerns the node as a whole."""
    failed = ", ".join(answer["failed"])
    yield "no failed unit", f"failed: {failed}" if failed else ""
    yield "no port open but those of the port table", _check_open_ports(items, answer)
    yield "packet filter", "" if "policy drop" in answer["filter"] else "table inet imagegen is not loaded"
    yield "no account with a password", _list_passwords(answer)
    yield "cloud-init has finished without errors", _check_cloud_init(answer)
    yield "clock is synchronised", _check_clock(answer)
    yield "no swap", f"in use: {answer['swap']}" if answer["swap"] else ""
    length = len(answer["machine_id"])
    yield "an own machine id", "" if length == 32 else f"wanted 32 digits, got {length}"


def _check_open_ports(items: list[Item], answer: Answer) -> str:
    table = [item for item in items if isinstance(item, Port)]
    unknown = []
    for protocol, address, number in answer["listening"]:
        is_local = address.startswith("127.") or address == "::1"
        # DHCP clients listen at the ports of their protocol
        is_dhcp = protocol == "udp" and number in (68, 546)
        is_known = any(p.protocol == protocol and p.first <= number <= p.last for p in table)
        if not (is_local or is_dhcp or is_known):
            unknown.append(f"{number}/{protocol} at {address}")
    return f"not in the port table: {', '.join(unknown)}" if unknown else ""


def _list_passwords(answer: Answer) -> str:
    names = ", ".join(answer["passwords"])
    return f"a password is set or missing for {names}" if names else ""


def _check_cloud_init(answer: Answer) -> str:
    if not answer["cloud_init"]["finished"]:
        return "it has not finished"
    return "; ".join(answer["cloud_init"]["errors"])


def _check_clock(answer: Answer) -> str:
    fields = answer["clock"].split(",")
    if len(fields) < 14:
        return "chrony does not answer"
    return "" if fields[-1] in _SYNCHRONISED else f"chrony says: {fields[-1]}"
