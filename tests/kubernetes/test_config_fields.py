"""Flags that become fields: typed as the daemon reads them, and what is no field is handed back."""

from __future__ import annotations

from typing import Any

import pytest

from imagegen.kubernetes.config_fields import apply_flags, config_fields, parse_duration


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("5s", 5 * 10**9), ("1h30m", 5400 * 10**9), ("500ms", 5 * 10**8), ("1.5s", 15 * 10**8)],
)
def test_durations(text: str, value: int) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "5", "5 s", "s", "-5s", "1d"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="wanted a duration"):
        parse_duration(text)


def test_flags_of_kube_proxy_become_typed_fields() -> None:
    config: dict[str, Any] = {"conntrack": {"min": 1}}
    rest = apply_flags(
        "kube-proxy",
        config,
        {
            "conntrack-max-per-core": "0",
            "feature-gates": "A=true,B=false",
            "ipvs-exclude-cidrs": "10.0.0.0/8,192.0.2.0/24",
            "kube-api-qps": "12.5",
            "masquerade-all": "true",
            "v": "5",
        },
    )
    assert rest == {"v": "5"}
    assert config == {
        "conntrack": {"min": 1, "maxPerCore": 0},
        "featureGates": {"A": True, "B": False},
        "ipvs": {"excludeCIDRs": ["10.0.0.0/8", "192.0.2.0/24"]},
        "clientConnection": {"qps": 12.5},
        "iptables": {"masqueradeAll": True},
    }


def test_flags_of_etcd_become_typed_fields() -> None:
    config: dict[str, Any] = {}
    rest = apply_flags(
        "etcd",
        config,
        {"grpc-keepalive-timeout": "20s", "peer-client-cert-auth": "false", "quota-backend-bytes": "1024"},
    )
    assert rest == {}
    assert config == {
        "grpc-keepalive-timeout": 20 * 10**9,
        "peer-transport-security": {"client-cert-auth": False},
        "quota-backend-bytes": 1024,
    }


def test_a_value_that_does_not_fit_is_left_to_the_daemon() -> None:
    config: dict[str, Any] = {}
    apply_flags("etcd", config, {"quota-backend-bytes": "plenty"})
    assert config == {"quota-backend-bytes": "plenty"}


def test_no_two_flags_share_a_field() -> None:
    for component in ("etcd", "kube-proxy"):
        paths = [field.path for field in config_fields(component).values()]
        assert len(paths) == len(set(paths)), component


def test_feature_gates_of_etcd_stay_beside_the_users() -> None:
    config: dict[str, Any] = {"feature-gates": "InitialCorruptCheck=true"}
    assert apply_flags("etcd", config, {"feature-gates": "CompactHashCheck=true"}) == {}
    assert config == {"feature-gates": "InitialCorruptCheck=true,CompactHashCheck=true"}
