"""The pairs that do not work agree with the gate table: no version is in two places that differ."""

from __future__ import annotations

from imagegen.kubernetes.gates import all_rows
from imagegen.model.cluster import ProxyMode, Runtime
from imagegen.model.compatibility import (
    CONNTRACK_MERGED_KNOWN,
    CONTAINERD_FIRST,
    IPTABLES_NFT_KNOWN,
    NFTABLES_STABLE,
    PAIR_RULES,
    PairRule,
)
from imagegen.model.systems import SYSTEMS
from imagegen.model.version import Version

IPVS = frozenset({ProxyMode.IPVS})


def row(item: str) -> dict[str, int]:
    """The minors of a row by the name of their column."""
    (found,) = [row for row in all_rows() if row.item == item]
    columns = ("alpha", "introduced", "stable", "changed", "deprecated", "removed")
    versions: dict[str, Version | None] = {name: getattr(found, name) for name in columns}
    return {name: version.minor for name, version in versions.items() if version is not None}


def rule(path: str, value: object) -> PairRule:
    """The rule about one value alone."""
    (found,) = [r for r in PAIR_RULES if set(r.when) == {path} and r.when[path] == {value}]
    return found


def test_docker_ends_with_dockershim() -> None:
    assert rule("runtime", Runtime.DOCKER).first == row("dockershim")["removed"]


def test_containerd_begins_with_the_cri_that_it_serves() -> None:
    assert row("CRI v1alpha2 in kubelet")["introduced"] == CONTAINERD_FIRST
    assert rule("runtime", Runtime.CONTAINERD).last == CONTAINERD_FIRST - 1


def test_proxy_modes() -> None:
    alone = [r for r in PAIR_RULES if r.when == {"network.proxy": frozenset({ProxyMode.NFTABLES})}]
    nftables = row("KubeProxyConfiguration.mode nftables")
    assert [r.last for r in alone] == [nftables["introduced"] - 1]
    assert nftables["stable"] == NFTABLES_STABLE
    ipvs = [r for r in PAIR_RULES if r.when == {"network.proxy": frozenset({ProxyMode.IPVS})}]
    assert row("KubeProxyConfiguration.mode ipvs")["deprecated"] in {r.first for r in ipvs}


def test_cgroups() -> None:
    by_cgroup = {
        version: frozenset(system for system, facts in SYSTEMS.items() if facts.cgroup == version)
        for version in (1, 2)
    }
    (second,) = [r for r in PAIR_RULES if r.when == {"image.os": by_cgroup[2]}]
    (first,) = [r for r in PAIR_RULES if r.when == {"image.os": by_cgroup[1]}]
    assert second.last == row("kubelet on a cgroup v2 (unified) host")["introduced"] - 1
    assert first.first == row("kubelet on a cgroup v1 host")["changed"]


def test_what_old_proxies_do_not_know() -> None:
    assert row("kube-proxy image detects iptables-nft")["introduced"] == IPTABLES_NFT_KNOWN
    assert row("ipvs without nf_conntrack_ipv4")["introduced"] == CONNTRACK_MERGED_KNOWN
    gate = row("SupportIPVSProxyMode")
    assert (
        gate["alpha"]
        <= min(r.last for r in PAIR_RULES if r.when == {"network.proxy": IPVS})
        < gate["introduced"]
    )
