"""How single values are spelt: what is taken, what is refused, what the hint says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from imagegen.diagnostics import Report
from imagegen.model import scalars
from imagegen.model.cluster import KeyAlgorithm
from imagegen.model.load import load_text


def refusal(parse: Any, text: str) -> tuple[str, str | None]:
    with pytest.raises(PydanticCustomError) as caught:
        parse(text)
    context = caught.value.context
    assert context is not None
    return context["message"], context["hint"]


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0", timedelta(0)),
        ("24h", timedelta(hours=24)),
        ("90d", timedelta(days=90)),
        ("10y", timedelta(days=3650)),
        ("2w", timedelta(weeks=2)),
        ("1h30m", timedelta(minutes=90)),
        ("100y", timedelta(days=36500)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert scalars.parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "24", "h", "-1h", "1.5h", "1 h", "1H", "1h1h", "101y", "9999999999y", "10years", "٣h"]
)
def test_no_durations(text: str) -> None:
    assert "wanted" in refusal(scalars.parse_duration, text)[0]


def test_a_number_without_unit_gets_one_suggested() -> None:
    assert refusal(scalars.parse_duration, "24")[1] == "add a unit, for example 24h"


@pytest.mark.parametrize(
    ("text", "mib"), [("8GiB", 8192), ("20480MiB", 20480), ("1 TiB", 1048576), ("1GiB", 1024)]
)
def test_sizes(text: str, mib: int) -> None:
    assert scalars.parse_size(text) == mib


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("8GB", "did you mean 8GiB?"),
        ("8G", "did you mean 8GiB?"),
        ("8", None),
        ("0GiB", None),
        ("512MiB", None),
        ("99999TiB", None),
        ("-8GiB", None),
    ],
)
def test_no_sizes(text: str, hint: str | None) -> None:
    assert refusal(scalars.parse_size, text)[1] == hint


@pytest.mark.parametrize("text", ["10.0.0.0/8", "192.168.1.0/24", "10.240.0.4/30", "172.16.0.0/12"])
def test_ranges(text: str) -> None:
    assert str(scalars.parse_range(text)) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.240.0.5/24", "did you mean 10.240.0.0/24?"),
        ("10.240.0.0", "add the prefix length, for example 10.240.0.0/24"),
        ("10.240.0.0/33", None),
        ("10.240.0.0/255.255.255.0", None),
        ("10.240.0/24", None),
        ("fd00::/64", "IPv6 is not supported yet"),
        ("0.0.0.0/0", "for example 10.240.0.0/24"),
        ("127.0.0.0/8", "for example 10.240.0.0/24"),
        ("169.254.7.0/24", "for example 10.240.0.0/24"),
        ("224.0.0.0/24", "for example 10.240.0.0/24"),
    ],
)
def test_no_ranges(text: str, hint: str | None) -> None:
    assert refusal(scalars.parse_range, text)[1] == hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.240.0.256", None),
        ("10.240.0", None),
        ("010.240.0.1", "remove leading zeros; some readers take them as octal"),
        ("10.240.0.1/24", "remove /24; the prefix length is in network.nodes"),
        ("fd00::1", "IPv6 is not supported yet"),
        ("224.0.0.1", None),
        ("127.0.0.1", None),
        ("0.0.0.0", None),
        ("255.255.255.255", None),
        ("１０.0.0.1", None),
        ("10.240.0.1\n", None),
    ],
)
def test_no_addresses(text: str, hint: str | None) -> None:
    assert refusal(scalars.parse_address, text)[1] == hint


def test_dhcp_is_a_word() -> None:
    assert scalars.parse_node_address("dhcp") is None
    assert refusal(scalars.parse_node_address, "DHCP")[1] == "write dhcp"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.240.0.11:6443", "10.240.0.11", 6443),
        ("10.240.0.11", "10.240.0.11", 6443),
        ("api.example:443", "api.example", 443),
    ],
)
def test_endpoints(text: str, host: str, port: int) -> None:
    endpoint = scalars.parse_endpoint(text)
    assert (endpoint.host, endpoint.port) == (host, port)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("https://api.example:6443/", "did you mean api.example:6443?"),
        ("api.example:0", None),
        ("api.example:65536", None),
        ("api.example:", None),
        (":6443", None),
        ("", None),
        ("api_x:6443", None),
        ("a..b:6443", None),
        ("10.240.0:6443", None),
        ("[fd00::1]:6443", "IPv6 is not supported yet"),
    ],
)
def test_no_endpoints(text: str, hint: str | None) -> None:
    assert refusal(scalars.parse_endpoint, text)[1] == hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1.36", "add the patch number, for example 1.36.0"),
        ("v1.36", "add the patch number, for example 1.36.0"),
        ("v1.36.4", "did you mean 1.36.4?"),
        ("1.036.4", "did you mean 1.36.4?"),
        ("1.5.9", "did you mean 1.6.9?"),
        ("1.99.0", "did you mean 1.37.0?"),
        ("2.0.0", None),
        ("latest", "versions have three numbers"),
        ("1.36.4-rc.1", "versions have three numbers"),
        ("1.36.x", "versions have three numbers"),
    ],
)
def test_no_versions(text: str, hint: str | None) -> None:
    assert refusal(scalars.parse_kubernetes_version, text)[1] == hint


@pytest.mark.parametrize("minor", range(6, 38))
def test_every_minor_is_known(minor: int) -> None:
    assert scalars.parse_kubernetes_version(f"1.{minor}.0") == (1, minor, 0)


@pytest.mark.parametrize("text", ["52:54:00:00:00:22", "52-54-00-AA-bb-22"])
def test_macs(text: str) -> None:
    assert scalars.parse_mac(text) == text.lower().replace("-", ":")


@pytest.mark.parametrize(
    "text", ["52:54:00:00:00", "52:54:00:00:00:2g", "01:00:5e:00:00:01", "00:00:00:00:00:00", "525400000022"]
)
def test_no_macs(text: str) -> None:
    assert refusal(scalars.parse_mac, text)[0]


@pytest.mark.parametrize("text", ["20261101T000000Z", "20240229T235959Z"])
def test_snapshots(text: str) -> None:
    assert scalars.parse_snapshot(text) == text


@pytest.mark.parametrize("text", ["20261301T000000Z", "20230229T000000Z", "2026-11-01", "20261101T250000Z"])
def test_no_snapshots(text: str) -> None:
    assert "wanted a time" in refusal(scalars.parse_snapshot, text)[0]


@pytest.mark.parametrize("text", ["tcpdump", "libstdc++6", "linux-image-amd64", "python3.11"])
def test_packages(text: str) -> None:
    assert scalars.parse_package(text) == text


@pytest.mark.parametrize("text", ["", "a", "-y", "a b", "a;b", "a=1", "../x", "$(x)"])
def test_no_packages(text: str) -> None:
    assert "wanted the name of a package" in refusal(scalars.parse_package, text)[0]


@pytest.mark.parametrize(
    ("text", "hint"), [("--profiling", "did you mean profiling?"), ("a=b", "did you mean a?"), ("A", None)]
)
def test_no_flag_names(text: str, hint: str | None) -> None:
    assert refusal(scalars.parse_flag_name, text)[1] == hint


@pytest.mark.parametrize("text", ["a\nb", "a\x00", "\u2028", "a\tb"])
def test_flag_values_are_one_line(text: str) -> None:
    assert refusal(scalars.parse_flag_value, text)[0]


def test_curves_may_be_named_without_their_algorithm() -> None:
    report = Report()
    text = (
        "version: 1\nname: a\nkubernetes: {version: 1.36.4}\nnetwork: {nodes: 10.0.0.0/24}\n"
        "pki: {key: p384}\n"
        "nodes: [{name: one, roles: [etcd, master, worker], address: 10.0.0.5}]\n"
    )
    cluster = load_text(text, Path("cluster.yaml"), report)
    assert cluster is not None
    assert cluster.pki.key is KeyAlgorithm.ECDSA_P384
