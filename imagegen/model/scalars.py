"""How one value of the cluster file is spelt: addresses, names, durations, sizes. Text in, typed value out.

Each type carries its JSON Schema, so that an editor knows what ``imagegen check`` will say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address
from types import MappingProxyType
from typing import Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from imagegen.model.cluster import Endpoint
from imagegen.model.refusals import (
    BAD_NAME,
    UNKNOWN_CHOICE,
    UNKNOWN_VERSION,
    WRONG_TYPE,
    closest,
    refuse,
    show,
    wrong_type,
)
from imagegen.model.support import KNOWN_MINORS
from imagegen.model.version import Version, parse_version
from imagegen.source import PlainText


def text_of(value: object, wanted: str = "a text") -> str:
    """``value`` when it is a scalar; raises the finding otherwise."""
    if isinstance(value, str):
        return str(value)
    raise wrong_type(wanted, value)


@dataclass(frozen=True)
class Spelt:
    """Annotation of a type that is one scalar. ``parse`` gets the text and raises ``refuse(...)``."""

    parse: Callable[[str], Any]
    wanted: str
    schema: dict[str, Any]

    def validate(self, value: object) -> Any:
        return self.parse(text_of(value, self.wanted))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(self.schema)


def choice_of(kind: type[StrEnum], short: Mapping[str, StrEnum] = MappingProxyType({})) -> Spelt:
    """The annotation of a word out of ``kind``; ``short`` are further spellings of its members."""
    members = {member.value: member for member in kind}
    listed = ", ".join(members)
    spellings = {**members, **short}

    def parse(text: str) -> StrEnum:
        found = spellings.get(text)
        if found is None:
            raise refuse(f"wanted one of {listed}, got {show(text)}", closest(text, members), UNKNOWN_CHOICE)
        return found

    return Spelt(parse, f"one of {listed}", {"type": "string", "enum": list(spellings)})


def validate_whole_number(value: object) -> int:
    """A decimal number written without quotes, of at most nine digits."""
    if isinstance(value, PlainText) and re.fullmatch(r"0|[1-9][0-9]{0,8}", value):
        return int(value)
    raise wrong_type("a whole number", value)


def validate_truth(value: object) -> bool:
    """``true`` or ``false``; the ``yes`` and ``on`` of YAML 1.1 get a hint instead."""
    if isinstance(value, PlainText):
        if value in {"true", "false"}:
            return value == "true"
        lowered = value.lower()
        if lowered in {"yes", "on", "y", "true", "no", "off", "n", "false"}:
            meant = "true" if lowered in {"yes", "on", "y", "true"} else "false"
            raise refuse(f"wanted true or false, got {value}", f"write {meant}", WRONG_TYPE)
    raise wrong_type("true or false", value)


_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def label_problem(text: str) -> tuple[str, str | None] | None:
    """Why ``text`` is not an RFC 1123 label, and a hint; None when it is one."""
    if _LABEL.fullmatch(text):
        return None
    if not text:
        return "wanted a name, got an empty text", None
    if len(text) > 63:
        return f"wanted a name of at most 63 characters, got {len(text)}", "shorten it"
    got = show(text)
    wanted = "wanted a name of lower case letters, digits and hyphens"
    usable = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    hint = f"for example {usable}" if usable else None
    if re.fullmatch(r"[a-z0-9-]+", text):
        return f"wanted a name that begins and ends with a letter or digit, got {got}", hint
    return f"{wanted}, got {got}", hint


def parse_name(text: str) -> str:
    problem = label_problem(text)
    if problem:
        raise refuse(*problem, BAD_NAME)
    return text


def parse_domain(text: str) -> str:
    for part in text.split("."):
        if label_problem(part) or len(text) > 200:
            hint = "without a dot at the end" if text.endswith(".") else None
            raise refuse(f"wanted a DNS domain such as cluster.local, got {show(text)}", hint, BAD_NAME)
    return text


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        pass
    hint = None
    try:
        IPv6Address(text)
        hint = "IPv6 is not supported yet"
    except AddressValueError:
        if re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+/[0-9]+", text):
            hint = f"remove /{text.split('/')[1]}; the prefix length is in network.nodes"
        elif re.fullmatch(r"([0-9]{1,3}\.){3}[0-9]{1,3}", text) and re.search(r"(?:\A|\.)0[0-9]", text):
            hint = "remove leading zeros; some readers take them as octal"
    raise refuse(f"wanted an IPv4 address such as 10.240.0.11, got {show(text)}", hint)


def _check_usable(address: IPv4Address) -> IPv4Address:
    if address.is_multicast or address.is_loopback or address.is_unspecified or int(address) >> 28 == 15:
        raise refuse(f"{address} is not an address that a machine can have")
    return address


def parse_address(text: str) -> IPv4Address:
    return _check_usable(_address(text))


def parse_node_address(text: str) -> IPv4Address | None:
    """An address, or None for the word ``dhcp``."""
    if text == "dhcp":
        return None
    if text.lower() == "dhcp":
        raise refuse(f"wanted an IPv4 address or dhcp, got {text}", "write dhcp")
    return parse_address(text)


_RESERVED = tuple(IPv4Network(r) for r in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))


def parse_range(text: str) -> IPv4Network:
    match = re.fullmatch(r"([0-9.]+)/([0-9]{1,2})", text)
    example = "wanted a range such as 10.240.0.0/24"
    if match is None or int(match[2]) > 32:
        hint = (
            f"add the prefix length, for example {text}/24"
            if re.fullmatch(r"([0-9]+\.){3}[0-9]+", text)
            else None
        )
        if ":" in text:
            hint = "IPv6 is not supported yet"
        raise refuse(f"{example}, got {show(text)}", hint)
    network = IPv4Network((int(_address(match[1])), int(match[2])), strict=False)
    if str(network.network_address) != match[1]:
        raise refuse(f"{example}, got the address {text}", f"did you mean {network}?")
    if any(network.overlaps(reserved) for reserved in _RESERVED):
        raise refuse(f"{network} is not a range that machines can use", "for example 10.240.0.0/24")
    return network


def parse_mac(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        raise refuse(f"wanted a MAC address such as 52:54:00:00:00:22, got {show(text)}")
    mac = text.lower().replace("-", ":")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise refuse(f"{text} is not the address of one network card", "the first byte must be even")
    return mac


def parse_endpoint(text: str) -> Endpoint:
    """``HOST:PORT`` or ``HOST``; the port defaults to 6443."""
    wanted = "wanted HOST:PORT such as 10.240.0.11:6443"
    if "://" in text:
        raise refuse(f"{wanted}, got {show(text)}", f"did you mean {text.split('://', 1)[1].rstrip('/')}?")
    host, colon, port = text.partition(":")
    if colon and not (re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) < 65536):
        hint = "IPv6 is not supported yet" if ":" in port else None
        raise refuse(f"{wanted}, got {show(text)}", hint)
    if re.fullmatch(r"[0-9.]*", host):
        host = str(parse_address(host))
    elif any(label_problem(part) for part in host.split(".")) or len(host) > 253:
        raise refuse(f"{wanted}, got {show(text)}")
    return Endpoint(host=host, port=int(port) if colon else 6443)


def parse_time_server(text: str) -> str:
    if re.fullmatch(r"[0-9.]*", text):
        return str(parse_address(text))
    if len(text) > 253 or any(label_problem(part) for part in text.split(".")):
        raise refuse(f"wanted an address or a DNS name, got {show(text)}")
    return text


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_LONGEST = timedelta(days=100 * 365)


def parse_duration(text: str) -> timedelta:
    """``10y``, ``90d``, ``24h``, ``1h30m`` or ``0``; a year has 365 days, the longest is a hundred years."""
    if text == "0":
        return timedelta(0)
    wanted = f"wanted a duration such as 24h, 90d or 10y, got {show(text)}"
    if not re.fullmatch(r"(?:[0-9]{1,9}[smhdwy]){1,6}", text):
        hint = f"add a unit, for example {text}h" if text.isdigit() else None
        raise refuse(wanted, hint)
    parts = re.findall(r"([0-9]+)([smhdwy])", text)
    if len({unit for _, unit in parts}) != len(parts):
        raise refuse(wanted, "use each unit once")
    seconds = sum(int(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _LONGEST.total_seconds():
        raise refuse(f"wanted at most 100y, got {text}")
    return timedelta(seconds=seconds)


_MIB = {"MiB": 1, "GiB": 1024, "TiB": 1024 * 1024}


def parse_size(text: str) -> int:
    """``8GiB``, ``20480MiB`` → MiB; from 1 GiB to 64 TiB."""
    match = re.fullmatch(r"([1-9][0-9]{0,8}) ?(MiB|GiB|TiB)", text)
    if match is None:
        decimal = re.fullmatch(r"([0-9]+) ?([MGT])i?[Bb]?", text)
        hint = f"did you mean {decimal[1]}{decimal[2]}iB?" if decimal and decimal[1] != "0" else None
        raise refuse(f"wanted a size such as 8GiB, got {show(text)}", hint)
    mib = int(match[1]) * _MIB[match[2]]
    if not 1024 <= mib <= 64 * 1024 * 1024:
        raise refuse(f"wanted a size from 1GiB to 64TiB, got {text}")
    return mib


def parse_kubernetes_version(text: str) -> Version:
    wanted = f"wanted an exact version such as 1.{KNOWN_MINORS[-2]}.4, got {show(text)}"
    partial = re.fullmatch(r"v?([0-9]+)\.([0-9]{1,2})", text)
    if partial:
        raise refuse(wanted, f"add the patch number, for example {text.removeprefix('v')}.0", UNKNOWN_VERSION)
    try:
        version = parse_version(text)
    except ValueError:
        raise refuse(wanted, "versions have three numbers", UNKNOWN_VERSION) from None
    if text != str(version):
        raise refuse(wanted, f"did you mean {version}?", UNKNOWN_VERSION)
    if version.major != 1 or version.minor not in KNOWN_MINORS:
        nearest = min(KNOWN_MINORS, key=lambda minor: abs(minor - version.minor))
        known = f"1.{KNOWN_MINORS[0]} to 1.{KNOWN_MINORS[-1]} are known"
        hint = f"did you mean 1.{nearest}.{version.patch}?" if version.major == 1 else None
        raise refuse(f"{known}, got {version}", hint, UNKNOWN_VERSION)
    return version


def parse_snapshot(text: str) -> str:
    try:
        if re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", text):
            datetime.strptime(text, "%Y%m%dT%H%M%SZ")
            return text
    except ValueError:
        pass
    raise refuse(f"wanted a time such as 20261101T000000Z, got {show(text)}")


def parse_package(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._-]{1,127}", text):
        raise refuse(f"wanted the name of a package, got {show(text)}")
    return text


def parse_flag_name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", text):
        usable = text.lstrip("-").split("=")[0]
        hint = f"did you mean {usable}?" if re.fullmatch(r"[a-z][a-z0-9-]*", usable) else None
        raise refuse(f"wanted the name of a flag without dashes in front, got {show(text)}", hint)
    return text


def parse_flag_value(text: str) -> str:
    if not text.isprintable():
        raise refuse("a flag cannot hold line breaks or control characters")
    return text


def _string(pattern: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^(?:{pattern})$", **more}


_IPV4 = r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*"

NAME = Spelt(parse_name, "a name", _string(_DNS_LABEL))
DOMAIN = Spelt(parse_domain, "a DNS domain", _string(_DNS_NAME))
ADDRESS = Spelt(parse_address, "an IPv4 address", _string(_IPV4))
NODE_ADDRESS = Spelt(parse_node_address, "an IPv4 address or dhcp", _string(f"dhcp|{_IPV4}"))
RANGE = Spelt(parse_range, "a range", _string(rf"{_IPV4}/(?:3[0-2]|[12]?[0-9])"))
MAC = Spelt(parse_mac, "a MAC address", _string("[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}"))
ENDPOINT = Spelt(parse_endpoint, "HOST:PORT", _string(rf"(?:{_DNS_NAME})(?::[1-9][0-9]{{0,4}})?"))
TIME_SERVER = Spelt(parse_time_server, "an address or a DNS name", _string(_DNS_NAME))
DURATION = Spelt(
    parse_duration,
    "a duration",
    {"anyOf": [_string(r"0|(?:[0-9]{1,9}[smhdwy]){1,6}"), {"type": "integer", "const": 0}]},
)
SIZE = Spelt(parse_size, "a size", _string(r"[1-9][0-9]{0,8} ?(?:MiB|GiB|TiB)"))
KUBERNETES_VERSION = Spelt(
    parse_kubernetes_version, "an exact version", _string(r"1\.[0-9]{1,2}\.[0-9]{1,4}")
)
SNAPSHOT = Spelt(parse_snapshot, "a time", _string(r"[0-9]{8}T[0-9]{6}Z"))
PACKAGE = Spelt(parse_package, "the name of a package", _string(r"[A-Za-z0-9][A-Za-z0-9+._-]{1,127}"))
TEXT = Spelt(str, "a text", {"type": "string"})
FLAG_NAME = Spelt(parse_flag_name, "the name of a flag", _string(r"[a-z][a-z0-9-]*"))
FLAG_VALUE = Spelt(parse_flag_value, "a text", {"type": ["string", "number", "boolean"]})
WHOLE_NUMBER = BeforeValidator(validate_whole_number)
TRUTH = BeforeValidator(validate_truth)
