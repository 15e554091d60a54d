"""Every pair that cannot boot is refused, and what the finding tells people to do instead is taken."""

from __future__ import annotations

import pytest

from tests.model.texts import BASE, edit, findings

OLD_SYSTEM, NEW_SYSTEM = "image: {os: oraclelinux-7, mode: stock}", "image: {os: debian-12}"


def write(
    version: str, *, layout: str = "systemd", proxy: str = "", runtime: str = "", more: str = ""
) -> str:
    """A cluster file with these choices; ``more`` are lines at the top level."""
    text = edit(("version: 1.36.4", f"version: {version}\n  layout: {layout}"))
    if proxy:
        text = edit(("network:\n", f"network:\n  proxy: {proxy}\n"), text=text)
    return text + (f"runtime: {runtime}\n" if runtime else "") + (f"{more}\n" if more else "")


#: what is refused: the words of its message, those of its hint, and the file that does as the hint says
CASES = {
    "cgroup v2 and an old kubelet": (
        write("1.18.20", proxy="iptables", more=NEW_SYSTEM),
        "boots with cgroup v2, which the kubelet knows since 1.19, got 1.18.20",
        "use oraclelinux-7",
        write("1.18.20", proxy="iptables", more=OLD_SYSTEM),
    ),
    "cgroup v1 and a new kubelet": (
        write("1.35.4", proxy="iptables", more=OLD_SYSTEM),
        "boots with cgroup v1, which the kubelet refuses since 1.35",
        "use a newer operating system",
        write("1.35.4", proxy="iptables", more=NEW_SYSTEM),
    ),
    "dockershim is gone": (
        write("1.24.17", runtime="docker"),
        "docker works up to Kubernetes 1.23, got 1.24.17",
        "use containerd",
        write("1.24.17", runtime="containerd"),
    ),
    "no CRI that containerd serves": (
        write("1.9.11", runtime="containerd", more=OLD_SYSTEM),
        "containerd needs Kubernetes 1.10, got 1.9.11",
        "use docker",
        write("1.9.11", runtime="docker", more=OLD_SYSTEM),
    ),
    "iptables-nft and an old kube-proxy": (
        write("1.16.15", proxy="iptables", more=NEW_SYSTEM),
        "has an iptables that writes nftables rules, which kube-proxy knows since Kubernetes 1.17",
        "use oraclelinux-7",
        write("1.16.15", proxy="iptables", more=OLD_SYSTEM),
    ),
    "no nftables mode yet": (
        write("1.30.14", proxy="nftables"),
        "proxy nftables needs Kubernetes 1.31",
        "use iptables",
        write("1.30.14", proxy="iptables"),
    ),
    "nftables mode and an old kernel": (
        write("1.34.4", proxy="nftables", more=OLD_SYSTEM),
        "proxy nftables needs kernel 5.13",
        "use iptables",
        write("1.34.4", proxy="iptables", more=OLD_SYSTEM),
    ),
    "no ipvs mode yet": (
        write("1.8.15", proxy="ipvs", more=OLD_SYSTEM),
        "proxy ipvs needs Kubernetes 1.9, got 1.8.15",
        "use iptables",
        write("1.8.15", proxy="iptables", more=OLD_SYSTEM),
    ),
    "ipvs and a kernel without its module": (
        write("1.12.10", proxy="ipvs", more=NEW_SYSTEM),
        "looks for the module nf_conntrack_ipv4 before Kubernetes 1.13",
        "oraclelinux-7",
        write("1.12.10", proxy="ipvs", more=OLD_SYSTEM),
    ),
    "kubeadm reads alphas only": (
        write("1.12.10", layout="kubeadm", more=OLD_SYSTEM),
        "layout kubeadm needs Kubernetes 1.13, got 1.12.10",
        "use static-pods",
        write("1.12.10", layout="static-pods", more=OLD_SYSTEM),
    ),
    "kubeadm reads no such key": (
        write("1.14.10", layout="kubeadm", more=OLD_SYSTEM),
        "kubeadm reads ecdsa-p256 since Kubernetes 1.15",
        "use rsa-2048",
        write("1.14.10", layout="kubeadm", more=f"{OLD_SYSTEM}\npki: {{key: rsa-2048}}"),
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_way_out_is_a_way_out(case: str) -> None:
    refused, words, hint, instead = CASES[case]
    found = [f for f in findings(refused) if f.code == "IMG125" and words in f.message]
    assert [hint in (f.hint or "") for f in found] == [True]
    assert [f.message for f in findings(instead) if f.severity.value == "error"] == []


def test_versions_of_single_nodes_cannot_be_written() -> None:
    """A cluster file has one version, so there is no skew between kubelets and API servers to refuse."""
    text = edit(("roles: [worker], ", "roles: [worker], version: 1.30.4, "), text=BASE)
    assert [f.code for f in findings(text) if "version" in f.message] == ["IMG101"]
