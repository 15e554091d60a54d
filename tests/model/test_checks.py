"""What two values can get wrong together: each check once, at its place, with the places that take part."""

from __future__ import annotations

import pytest

from imagegen.diagnostics import CODES, Severity
from tests.model.texts import BASE, add, edit, findings, lines, load, resolve

MASTER_1 = "  - {name: master-1, roles: [master], address: 10.240.0.12}\n"
ETCD_1 = "  - {name: etcd-1, roles: [etcd], address: 10.240.0.13}\n"
LB = "  - {name: lb-0, roles: [lb], address: 10.240.0.5}\n"


def image(line: str) -> tuple[str, str]:
    return ("access:\n", f"image: {{{line}}}\naccess:\n")


def top(line: str) -> tuple[str, str]:
    return ("access:\n", f"{line}\naccess:\n")


def test_the_base_has_no_finding() -> None:
    assert findings(BASE) == []


@pytest.mark.parametrize(
    ("pairs", "line", "also"),
    [
        (
            [add("network", "services: 10.240.0.0/16")],
            "6:13 IMG104 services 10.240.0.0/16 overlaps nodes 10.240.0.0/24",
            ["7:10"],
        ),
        (
            [add("network", "pods: 10.32.128.0/17")],
            None,
            [],
        ),
        (
            [add("network", "services: 10.64.0.0/16\n  pods: 10.64.0.0/12")],
            "7:9 IMG104 pods 10.64.0.0/12 overlaps services 10.64.0.0/16",
            ["6:13"],
        ),
        (
            [add("network", "pods: 10.200.0.0/25\n  node_cidr_mask_size: 26")],
            "7:24 IMG123 a node gets 62 pod addresses, but the kubelet runs up to 110 pods",
            [],
        ),
        (
            [add("network", "pods: 10.200.0.0/25")],
            "6:9 IMG123 pods 10.200.0.0/25 cannot be cut into pieces of /24, wanted a larger range",
            [],
        ),
        (
            [
                add("network", "pods: 10.200.0.0/24"),
                (
                    "- {name: worker-0",
                    "- {name: w, roles: [worker], address: 10.240.0.22}\n  - {name: worker-0",
                ),
            ],
            "6:9 IMG123 pods 10.200.0.0/24 has 1 pieces of /24, wanted 2, one a node",
            [],
        ),
        (
            [add("network", "services: 10.32.0.0/11")],
            "6:13 IMG123 services 10.32.0.0/11 is too large, wanted /12 or smaller",
            [],
        ),
        (
            [add("network", "services: 10.32.0.0/29")],
            "6:13 IMG123 services 10.32.0.0/29 is too small, wanted /28 or larger",
            [],
        ),
        (
            [("10.240.0.0/24", "10.240.0.8/31")],
            "6:10 IMG123 nodes 10.240.0.8/31 has no room for nodes",
            [],
        ),
        (
            [("10.240.0.0/24", "10.240.0.8/30")],
            "6:10 IMG123 nodes 10.240.0.8/30 has 2 addresses, wanted 3",
            [],
        ),
        (
            [add("network", "dns: 10.33.0.10")],
            "6:8 IMG115 dns 10.33.0.10 is not in services 10.32.0.0/16",
            ["5:1"],
        ),
        (
            [add("network", "dns: 10.32.0.1")],
            "6:8 IMG115 dns 10.32.0.1 is the address of the API server, the first of services",
            ["5:1"],
        ),
        (
            [add("network", "dns: 10.32.255.255")],
            "6:8 IMG115 dns 10.32.255.255 is the network or broadcast address of services 10.32.0.0/16",
            ["5:1"],
        ),
        (
            [add("network", "gateway: 10.241.0.1")],
            "6:12 IMG124 gateway 10.241.0.1 is not in nodes 10.240.0.0/24",
            ["7:10"],
        ),
        (
            [add("network", "gateway: 10.240.0.255")],
            "6:12 IMG124 gateway 10.240.0.255 is the broadcast address of nodes 10.240.0.0/24",
            ["7:10"],
        ),
        (
            [add("network", "nameservers: [9.9.9.9, 10.32.0.10]")],
            "6:26 IMG124 name server 10.32.0.10 is in services 10.32.0.0/16, which nodes cannot reach while "
            "they start",
            ["5:1"],
        ),
        (
            [add("network", "cni: loopback")],
            "6:8 IMG128 cni loopback gives pods no network",
            [],
        ),
    ],
)
def test_network(pairs: list[tuple[str, str]], line: str | None, also: list[str]) -> None:
    found = [f for f in findings(edit(*pairs)) if f.code not in {"IMG113", "IMG127"}]
    assert [f"{f.span.line}:{f.span.column} {f.code} {f.message}" for f in found if f.span] == (
        [line] if line else []
    )
    assert [f"{s.line}:{s.column}" for f in found for s in f.also] == also


@pytest.mark.parametrize(
    ("pairs", "line"),
    [
        ([("worker-0", "etcd-0")], "13:12 IMG110 name etcd-0 is given twice"),
        (
            [("name: worker-0", "name: localhost")],
            "13:12 IMG107 localhost cannot be the name of a node, because",
        ),
        ([("name: worker-0", "name: 0644")], "13:12 IMG107 0644 cannot be the name of a node, because it"),
        ([("name: worker-0", "name: kubernetes")], "13:12 IMG107 kubernetes cannot be the name of a node"),
        (
            [("10.240.0.21", "10.240.0.11")],
            "13:48 IMG111 address 10.240.0.11 is given twice, also to master-0",
        ),
        (
            [
                ("10.240.0.21", '10.240.0.21, mac: "52:54:00:00:00:aa"'),
                ("10.240.0.11", '10.240.0.11, mac: "52-54-00-00-00-AA"'),
            ],
            "13:66 IMG112 mac 52:54:00:00:00:aa is given twice, also to master-0",
        ),
        (
            [("10.240.0.21", "10.240.1.21")],
            "13:48 IMG113 address 10.240.1.21 of worker-0 is not in nodes 10.240.0.0/24",
        ),
        (
            [("address: 10.240.0.21", "address: 10.240.0.0")],
            "13:48 IMG113 address 10.240.0.0 of worker-0 is the network address of nodes 10.240.0.0/24",
        ),
        (
            [("address: 10.240.0.21", "address: 10.240.0.255")],
            "13:48 IMG113 address 10.240.0.255 of worker-0 is the broadcast address of nodes 10.240.0.0/24",
        ),
        (
            [add("network", "gateway: 10.240.0.21")],
            "14:48 IMG113 address 10.240.0.21 of worker-0 is the gateway's",
        ),
        (
            [("10.240.0.11", "dhcp")],
            "12:48 IMG119 master-0 has the role master, wanted a fixed address, got dhcp",
        ),
        (
            [("[etcd], address: 10.240.0.10", "[etcd, worker], address: dhcp")],
            "11:52 IMG119 etcd-0 has the role etcd, wanted a fixed address, got dhcp",
        ),
    ],
)
def test_nodes(pairs: list[tuple[str, str]], line: str) -> None:
    (found,) = lines(edit(*pairs))
    assert found.startswith(line)


def test_names_are_compared_without_case() -> None:
    """Upper case is refused, so that no two names can differ in case only."""
    assert [line.split(" ")[:2] for line in lines(edit(("worker-0", "ETCD-0")))] == [["13:12", "IMG107"]]


def test_several_dhcp_nodes_need_a_mac() -> None:
    text = BASE + (
        "  - {name: w-1, roles: [worker], address: dhcp}\n"
        '  - {name: w-2, roles: [worker], address: dhcp, mac: "52:54:00:00:00:22"}\n'
    )
    cluster, report = load(text)
    assert cluster is not None
    assert [(f.code, f.severity) for f in report.findings] == [("IMG120", Severity.WARNING)]
    assert findings(text.replace("dhcp}", 'dhcp, mac: "52:54:00:00:00:23"}')) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (BASE + ETCD_1, ["10:1 IMG116 2 etcd members stand no more failures than 1"]),
        (
            edit(("[etcd]", "[base]")),
            ["10:1 IMG117 there is no etcd node, but masters keep their state in etcd"],
        ),
        (
            edit(("[master]", "[base]")) + LB,
            [
                "10:1 IMG117 there is no master node, but a load balancer needs masters behind it",
                "10:1 IMG117 there is no master node, but etcd serves nobody without a master",
                "10:1 IMG117 there is no master node, but workers join a master",
            ],
        ),
        (
            edit(("[worker]", "[worker, base]")),
            ["13:22 IMG118 worker-0 has the role base together with others"],
        ),
        (edit(("[worker]", "[worker, worker]")), ["13:22 IMG118 the role worker is given twice"]),
        (
            edit(("[master]", "[master, lb]")),
            ["12:22 IMG118 master-0 is a load balancer and a master, and both listen on port 6443"],
        ),
        (edit(("[master]", "[master, lb]"), top('control_plane: {endpoint: "10.240.0.11:8443"}')), []),
        (
            BASE + MASTER_1,
            ["10:1 IMG121 there are 2 masters and no load balancer, wanted control_plane.endpoint"],
        ),
        (
            BASE + LB + LB.replace("lb-0", "lb-1").replace(".5}", ".6}"),
            ["10:1 IMG121 there are 2 load balancers, wanted control_plane.endpoint"],
        ),
        (BASE + MASTER_1 + LB, []),
        (edit(top("control_plane: {endpoint: api.example}")) + MASTER_1, []),
        (
            edit(top("control_plane: {endpoint: 10.240.0.21}")),
            ["7:27 IMG122 endpoint 10.240.0.21 is worker-0, which is neither a master nor a load balancer"],
        ),
        (
            edit(top("control_plane: {endpoint: worker-0.cluster.local}")),
            [
                "7:27 IMG122 endpoint worker-0 is the node worker-0, which is neither a master nor a "
                "load balancer"
            ],
        ),
        (
            edit(top('control_plane: {endpoint: "10.240.0.11:443"}')),
            ["7:27 IMG122 endpoint 10.240.0.11:443 is a master, which listens on port 6443"],
        ),
        (
            edit(top("control_plane: {endpoint: 10.200.0.9}")),
            [
                "7:27 IMG122 endpoint 10.200.0.9 is in pods 10.200.0.0/16, which nodes cannot reach "
                "while they start"
            ],
        ),
        (BASE.split("  - {name: etcd")[0] + "  - {name: b, roles: [base], address: dhcp}\n", []),
    ],
)
def test_roles(text: str, found: list[str]) -> None:
    assert lines(text) == found


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        (
            [top("pki: {ca_lifetime: 1y, lifetime: 2y}")],
            "7:34 IMG130 lifetime 2y is longer than ca_lifetime 1y",
        ),
        ([top("pki: {ca_lifetime: 90d}")], "7:20 IMG130 lifetime 1y is longer than ca_lifetime 90d"),
        ([top("pki: {lifetime: 0}")], "7:17 IMG130 wanted a lifetime of at least 1h, got 0"),
        ([top("pki: {lifetime: 90s}")], "7:17 IMG130 wanted a lifetime of at least 1h, got 90s"),
        ([top("bootstrap: {token_lifetime: 0}")], "7:29 IMG131 bootstrap tokens never expire"),
        (
            [top("bootstrap: {token_lifetime: 1m}")],
            "7:29 IMG130 wanted a token lifetime of at least 5m, got 1m",
        ),
        ([top("pki: {key: ed25519}")], "7:12 IMG126 Kubernetes signs no service-account tokens with ed25519"),
        (
            [image("size: 1500MiB"), top("targets: [gce]")],
            "8:15 IMG160 the target gce takes whole GiB, got 1500MiB",
        ),
        ([image("formats: [raw, raw]")], "7:24 IMG109 raw is given twice"),
        ([top("targets: [qemu, gce, qemu]")], "7:22 IMG109 qemu is given twice"),
        ([add("network", "nameservers: [9.9.9.9, 9.9.9.9]")], "6:26 IMG109 9.9.9.9 is given twice"),
    ],
)
def test_policy_and_choices(pairs: list[tuple[str, str]], found: str) -> None:
    (line,) = lines(edit(*reversed(pairs)))
    assert line.startswith(found)


CALICO = [add("network", "cni: calico")]
FILE = top("bootstrap: {method: token-file}")


@pytest.mark.parametrize(
    ("version", "pairs", "code", "words"),
    [
        (
            "1.12.0",
            [("  version: 1.12.0", "  version: 1.12.0\n  layout: kubeadm"), image("os: oraclelinux-7")],
            "IMG125",
            "layout kubeadm needs Kubernetes 1.13, got 1.12.0",
        ),
        ("1.24.0", [top("runtime: docker")], "IMG125", "docker works up to Kubernetes 1.23, got 1.24.0"),
        ("1.23.0", [top("runtime: docker")], None, ""),
        (
            "1.9.0",
            [top("runtime: containerd"), image("os: oraclelinux-7")],
            "IMG125",
            "containerd needs Kubernetes 1.10, got 1.9.0",
        ),
        ("1.30.0", [add("network", "proxy: nftables")], "IMG125", "proxy nftables needs Kubernetes 1.31"),
        ("1.31.0", [add("network", "proxy: nftables")], None, ""),
        (
            "1.34.0",
            [add("network", "proxy: nftables"), image("os: oraclelinux-7")],
            "IMG125",
            "needs kernel 5.13, which oraclelinux-7 does not have",
        ),
        ("1.34.0", [add("network", "proxy: ipvs")], None, ""),
        ("1.35.0", [add("network", "proxy: ipvs")], "IMG126", "ipvs is deprecated"),
        ("1.8.0", [add("network", "proxy: ipvs"), image("os: oraclelinux-7")], "IMG125", "ipvs needs"),
        ("1.18.0", [image("os: debian-12")], "IMG125", "debian-12 boots with cgroup v2"),
        ("1.16.0", [image("os: oraclelinux-7")], None, ""),
        ("1.9.0", [add("network", "proxy: ipvs"), image("os: oraclelinux-7")], None, ""),
        ("1.19.0", [image("os: debian-12")], None, ""),
        ("1.10.0", [image("os: oraclelinux-7")], None, ""),
        ("1.35.0", [image("os: oraclelinux-7")], "IMG125", "oraclelinux-7 boots with cgroup v1"),
        ("1.36.4", [add("network", "cni: flannel-etcd")], "IMG126", "a key that opens all of etcd"),
        ("1.7.0", [*CALICO, image("os: oraclelinux-7"), FILE], "IMG125", "calico needs Kubernetes 1.8"),
        ("1.36.4", CALICO, None, ""),
        ("1.36.4", [top("pki: {certificates: single}")], "IMG126", "certificate opens it"),
        ("1.36.4", [top("bootstrap: {method: token-file}")], "IMG126", "tokens in a file never expire"),
        ("1.7.0", [image("os: oraclelinux-7")], "IMG126", "tokens are experimental before Kubernetes 1.8"),
    ],
)
def test_pairs(version: str, pairs: list[tuple[str, str]], code: str | None, words: str) -> None:
    found = [f for f in findings(edit(("1.36.4", version), *pairs)) if f.code in {"IMG125", "IMG126"}]
    assert [f.code for f in found] == ([code] if code else [])
    assert all(words in f.message for f in found)


def test_old_versions_of_kubeadm_read_rsa_keys_only() -> None:
    layout = ("  version: 1.14.0", "  version: 1.14.0\n  layout: kubeadm")
    found = findings(edit(("1.36.4", "1.14.0"), layout, image("os: oraclelinux-7")))
    assert [f.hint for f in found if f.code == "IMG125" and "ecdsa-p256" in f.message] == ["use rsa-2048"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("pki: {key: ed25519}", "kubeadm reads RSA and ECDSA keys only, got ed25519"),
        ("bootstrap: {method: token-file}", "kubeadm join needs bootstrap tokens"),
    ],
)
def test_what_kubeadm_cannot_do_is_said(more: str, words: str) -> None:
    layout = ("  version: 1.36.4", "  version: 1.36.4\n  layout: kubeadm")
    (found,) = [f for f in findings(edit(layout, top(more))) if f.code == "IMG125"]
    assert words in found.message


def test_an_old_version_on_a_new_system_hears_of_everything_that_stands_in_its_way() -> None:
    text = edit(("1.36.4", "1.12.0"), add("network", "proxy: ipvs"), image("os: debian-12"))
    found = {f.message: f.hint for f in findings(text) if f.code == "IMG125"}
    assert len(found) == 3
    for words in ("cgroup v2", "writes nftables rules", "nf_conntrack_ipv4"):
        (hint,) = [hint for message, hint in found.items() if words in message]
        assert hint is not None
        assert "oraclelinux-7" in hint


def test_the_default_runtime_of_old_versions_is_possible() -> None:
    """1.6 on an old system: everything that is reported is that nobody has booted it."""
    text = edit(("1.36.4", "1.6.2"), image("os: oraclelinux-7"), top("bootstrap: {method: token-file}"))
    assert {f.code for f in findings(text)} == {"IMG191"}


@pytest.mark.parametrize("version", ["1.30.0", "1.31.14", "1.33.1", "1.37.0"])
@pytest.mark.parametrize(
    "system", ["debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04", "oraclelinux-9"]
)
def test_what_this_release_makes(version: str, system: str) -> None:
    assert resolve(edit(("1.36.4", version), image(f"os: {system}")))


ED25519 = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (f"ssh-ed25519 {ED25519}", None),
        (f"ssh-ed25519 {ED25519} a comment with blanks", None),
        (f'from="10.0.0.0/8 x",no-pty ssh-ed25519 {ED25519} ops', None),
        (f"ssh-rsa {ED25519}", "IMG141 wanted a key of type ssh-rsa, got ssh-ed25519"),
        (f"ssh-ed25519 {ED25519[:-4]}", "IMG141 the ssh-ed25519 key is damaged"),
        (f"ssh-ed25519 {ED25519[:-1]}!", "IMG141 the ssh-ed25519 key is damaged"),
        ("ssh-ed25519", "IMG141 wanted a key after ssh-ed25519, got nothing"),
        ("ssh-ed25519 AAAA", "IMG141 the ssh-ed25519 key is damaged"),
        ("ssh-dss AAAAB3NzaC1kc3M= x", "IMG141 DSA keys are not accepted by OpenSSH any more"),
        ("ssh-ed25519 AAAA… ops@example", "IMG141 the ssh-ed25519 key is damaged"),
        ("ops", "IMG141 wanted a public SSH key"),
        ("", "IMG141 wanted a public SSH key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "IMG142 wanted a public key, got a private key"),
        (f"ssh-ed25519 {ED25519}\\nssh-ed25519 {ED25519}", "IMG141 wanted one line"),
    ],
)
def test_ssh_keys(key: str, found: str | None) -> None:
    old = BASE.split("    - ")[1].split("\n")[0]
    quoted = '"' + key.replace('"', '\\"') + '"'
    report = lines(edit((old, quoted)))
    if found is None:
        assert report == []
    else:
        (line,) = report
        assert line.startswith(f"9:7 {found}")


@pytest.mark.parametrize("bits", [1024, 2048])
def test_rsa_keys_have_a_size(bits: int) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, bits).public_key()
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    old = BASE.split("    - ")[1].split("\n")[0]
    assert lines(edit((old, text))) == (
        ["9:7 IMG141 wanted an RSA key of 2048 bits or more, got 1024"] if bits == 1024 else []
    )


@pytest.mark.parametrize("curve", ["SECP256R1", "SECP384R1", "SECP521R1"])
def test_ecdsa_keys_are_taken(curve: str) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(getattr(ec, curve)()).public_key()
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    old = BASE.split("    - ")[1].split("\n")[0]
    assert lines(edit((old, text))) == []


def test_no_key_is_a_note() -> None:
    text = BASE.split("access:")[0] + BASE[BASE.index("nodes:\n  - ") :]
    cluster, report = load(text)
    assert cluster is not None
    assert [(f.code, f.severity) for f in report.findings] == [("IMG143", Severity.NOTE)]


@pytest.mark.parametrize("user", ["ops", "_ops", "a", "o" * 32, "kubeadmin"])
def test_login_names(user: str) -> None:
    assert resolve(edit(add("access", f"user: {user}"))).access.user == user


@pytest.mark.parametrize(
    "user",
    [
        "root",
        "etcd",
        "kube-proxy",
        "systemd-network",
        "nobody",
        "Ops",
        "1ops",
        "o" * 33,
        "a b",
        "-a",
        "a:b",
        '""',
    ],
)
def test_no_login_names(user: str) -> None:
    assert [f.code for f in findings(edit(add("access", f"user: {user}")))] == ["IMG140"]


def test_every_code_is_documented() -> None:
    model = [code for name, code in CODES.items() if name < "IMG2"]
    assert len(model) > 40
    for code in model:
        assert code.title[0].islower() or code.title.split()[0].isupper()
        assert not code.title.endswith(".")
        assert code.explanation.endswith(".")


def test_every_node_may_have_its_keys_in_its_own_image() -> None:
    assert findings(edit(image("pki: baked"))) == []


@pytest.mark.parametrize("number", [1, 3])
def test_keys_in_a_shared_image_are_refused_with_the_nodes_that_share_it(number: int) -> None:
    more = [
        f"  - {{name: worker-{n}, roles: [worker], address: 10.240.0.3{n}}}\n" for n in range(1, number + 1)
    ]
    (found,) = findings(edit(image("pki: baked")) + "".join(more))
    rest = " and 2 more" if number == 3 else ""
    assert found.code == "IMG161"
    assert found.message == (
        f"pki baked puts keys into the image worker, which worker-0 and worker-1{rest} would share"
    )
    assert (found.span and found.span.line, [span.line for span in found.also]) == (7, [14, 15])
    assert found.hint == "use pki: seed, which gives every node its own seed"


def test_nothing_can_be_baked_into_a_stock_image() -> None:
    (found,) = lines(edit(image("pki: baked, mode: stock")))
    assert found == "7:14 IMG161 pki baked needs images that imagegen builds, got mode stock"


@pytest.mark.parametrize("choice", ["targets: [gce]", "image: {size: 8001MiB, formats: [gce]}"])
def test_compute_engine_takes_whole_gib(choice: str) -> None:
    text = edit(top(choice)) if "size" in choice else edit(top(choice), image("size: 8001MiB"))
    (found,) = findings(text)
    assert (found.code, found.hint) == ("IMG160", "for example 8GiB")
