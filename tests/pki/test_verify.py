"""The proof of the TLS edges: silent on what we issue, and naming the edge for every way to break it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from imagegen.diagnostics import Report
from imagegen.model.cluster import Cluster, KeyAlgorithm
from imagegen.pki.edges import list_edges
from imagegen.pki.keys import SystemRandomness, encode_key, encode_public_key
from imagegen.pki.spec import Subject, Usage
from imagegen.pki.store import SecretStore
from imagegen.pki.verify import verify_edges
from tests.pki.clusters import E, L, M, W, all_in_one, ha, make_cluster, make_node, quickstart, with_workers
from tests.pki.workshop import NOW, YEAR, Workshop, issue_store

Break = Callable[[Workshop], None]


def small(key: KeyAlgorithm = KeyAlgorithm.ECDSA_P256) -> Cluster:
    """Two of everything that the control plane has, so that a wrong name would be seen."""
    nodes = [
        make_node("etcd-0", [E], "10.240.0.10"),
        make_node("etcd-1", [E], "10.240.0.11"),
        make_node("master-0", [M], "10.240.0.20"),
        make_node("master-1", [M, W], "10.240.0.21"),
        make_node("lb-0", [L], "10.240.0.30"),
        make_node("worker-0", [W], None),
    ]
    return make_cluster(nodes, endpoint="api.example.com", key=key)


#: stem → an edge that needs it, or the end that every client of it dials
EDGE_OF = {
    "nodes/master-1/apiserver": "→ kube-apiserver@master-1:6443",
    "nodes/master-1/apiserver-etcd-client": "kube-apiserver@master-1 → etcd@etcd-1:2379",
    "nodes/master-1/apiserver-kubelet-client": "kube-apiserver@master-1 → kubelet@worker-0:10250",
    "nodes/master-0/front-proxy-client": "kube-apiserver@master-0 → aggregated API server",
    "nodes/master-0/controller-manager-server": "monitoring → kube-controller-manager@master-0:10257",
    "nodes/master-1/scheduler-server": "monitoring → kube-scheduler@master-1:10259",
    "nodes/master-0/controller-manager": "kube-controller-manager@master-0 → kube-apiserver@master-0:6443",
    "nodes/master-1/scheduler": "kube-scheduler@master-1 → kube-apiserver@master-1:6443",
    "nodes/master-0/csr-approver": "csr-approver@master-0 → kube-apiserver@master-0:6443",
    "nodes/master-1/first-boot": "first-boot@master-1 → kube-apiserver@master-1:6443",
    "nodes/master-1/kube-proxy": "kube-proxy@master-1 → kube-apiserver@master-0:6443",
    "nodes/etcd-0/etcd-server": "→ etcd@etcd-0:2379",
    "nodes/etcd-1/etcd-peer": "etcd@etcd-0 → etcd@etcd-1:2380",
    "nodes/etcd-1/etcd-healthcheck-client": "etcdctl@etcd-1 → etcd@etcd-1:2379",
    "pki/admin": "admin → kube-apiserver@master-0:6443",
    "pki/super-admin": "super-admin → kube-apiserver@master-0:6443",
}


def list_leaf_faults() -> Iterator[tuple[str, Callable[[str], Break]]]:
    """What can be wrong with any leaf: name of the fault, and from a stem to its doing."""
    yield "foreign-ca", lambda s: lambda w: w.reissue(s, issuer=w.foreign_authority(w.spec(s).issuer))
    yield "other-ca", lambda s: lambda w: w.reissue(s, issuer=w.authority(other_authority(w, s)))
    yield "expired", lambda s: lambda w: w.reissue(s, now=NOW - 2 * timedelta(days=30), lifetime=timedelta(1))
    yield "not-yet-valid", lambda s: lambda w: w.reissue(s, now=NOW + timedelta(days=2))
    yield "outlives-ca", lambda s: lambda w: w.outlive(s)
    yield "wrong-cn", lambda s: lambda w: w.reissue(s, subject=Subject("somebody"))
    yield "wrong-usage", lambda s: lambda w: w.reissue(s, usages=opposite_usage(w, s))
    yield "new-key", lambda s: lambda w: w.new_key(s)
    yield "no-key", lambda s: lambda w: w.remove(f"{s}.key")
    yield "no-certificate", lambda s: lambda w: w.remove(f"{s}.crt")
    yield "garbage", lambda s: lambda w: w.put(f"{s}.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n")
    yield "encrypted-key", lambda s: lambda w: w.encrypt_key(s)


def other_authority(w: Workshop, stem: str) -> str:
    return "pki/etcd/ca" if w.spec(stem).issuer != "pki/etcd/ca" else "pki/ca"


def opposite_usage(w: Workshop, stem: str) -> tuple[Usage, ...]:
    """Usages that the certificate's role cannot live with."""
    return (Usage.CLIENT,) if Usage.SERVER in w.spec(stem).usages else (Usage.SERVER,)


def without(*names: str) -> Callable[[str], Break]:
    """Leave names and addresses out of the certificate."""

    def make(stem: str) -> Break:
        def do(w: Workshop) -> None:
            wanted = w.spec(stem)
            w.reissue(
                stem,
                dns_names=tuple(name for name in wanted.dns_names if name not in names),
                addresses=tuple(a for a in wanted.addresses if str(a) not in names),
            )

        return do

    return make


def only(usage: Usage) -> Callable[[str], Break]:
    return lambda stem: lambda w: w.reissue(stem, usages=(usage,))


def named(common_name: str, organization: str = "") -> Callable[[str], Break]:
    return lambda stem: lambda w: w.reissue(stem, subject=Subject(common_name, organization))


def swap_with(other: str, *suffixes: str) -> Callable[[str], Break]:
    def make(stem: str) -> Break:
        def do(w: Workshop) -> None:
            for suffix in suffixes:
                w.swap(f"{stem}{suffix}", f"{other}{suffix}")

        return do

    return make


def add_extension(value: x509.ExtensionType, **skip: bool) -> Callable[[str], Break]:
    return lambda stem: lambda w: w.resign(stem, lambda b: b.add_extension(value, True), **skip)


def drop(**skip: bool) -> Callable[[str], Break]:
    return lambda stem: lambda w: w.resign(stem, lambda b: b, **skip)


_CA_USAGE = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
_API = "nodes/master-1/apiserver"
_APPROVER = "nodes/master-0/csr-approver"
_PEER, _SERVER = "nodes/etcd-1/etcd-peer", "nodes/etcd-0/etcd-server"

#: stem, fault, what to do, the edge that must be named
SPECIAL: tuple[tuple[str, str, Callable[[str], Break], str], ...] = (
    (
        _API,
        "no-loopback",
        without("127.0.0.1"),
        "kube-scheduler@master-1 → kube-apiserver@master-1:6443",
    ),
    (_API, "no-service-address", without("10.32.0.1"), "pods → kube-apiserver@master-1:6443"),
    (_API, "no-service-name", without("kubernetes.default.svc"), "pods → kube-apiserver@master-1:6443"),
    (_API, "no-short-name", without("kubernetes"), "pods → kube-apiserver@master-1:6443"),
    (_API, "no-namespace-name", without("kubernetes.default"), "pods → kube-apiserver@master-1:6443"),
    (
        _API,
        "no-domain-name",
        without("kubernetes.default.svc.cluster.local"),
        "pods → kube-apiserver@master-1:6443",
    ),
    (_API, "no-endpoint", without("api.example.com"), "admin → kube-apiserver@master-1:6443"),
    (_API, "no-balancer-name", without("lb-0"), "admin → kube-apiserver@master-1:6443"),
    (_API, "no-balancer-address", without("10.240.0.30"), "admin → kube-apiserver@master-1:6443"),
    (_API, "no-own-address", without("10.240.0.21"), "super-admin → kube-apiserver@master-1:6443"),
    (_API, "no-own-name", without("master-1"), "super-admin → kube-apiserver@master-1:6443"),
    (_API, "of-other-master", swap_with("nodes/master-0/apiserver", ".crt", ".key"), EDGE_OF[_API]),
    (_API, "key-of-other-master", swap_with("nodes/master-0/apiserver", ".key"), EDGE_OF[_API]),
    (_API, "no-names", drop(SubjectAlternativeName=True), EDGE_OF[_API]),
    (_API, "no-usage", drop(ExtendedKeyUsage=True), EDGE_OF[_API]),
    (_API, "no-authority-id", drop(AuthorityKeyIdentifier=True), EDGE_OF[_API]),
    (_API, "is-a-ca", add_extension(x509.BasicConstraints(True, None), BasicConstraints=True), EDGE_OF[_API]),
    (_API, "may-sign", add_extension(_CA_USAGE, KeyUsage=True), EDGE_OF[_API]),
    (
        _API,
        "any-usage",
        add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), ExtendedKeyUsage=True
        ),
        EDGE_OF[_API],
    ),
    ("pki/admin", "wrong-o", named("kubernetes-admin", "developers"), EDGE_OF["pki/admin"]),
    ("pki/admin", "no-o", named("kubernetes-admin"), EDGE_OF["pki/admin"]),
    ("pki/admin", "is-master", named("kubernetes-admin", "system:masters"), EDGE_OF["pki/admin"]),
    (
        "pki/super-admin",
        "wrong-o",
        named("kubernetes-super-admin", "system:nodes"),
        EDGE_OF["pki/super-admin"],
    ),
    ("pki/admin", "of-super-admin", swap_with("pki/super-admin", ".crt", ".key"), EDGE_OF["pki/admin"]),
    ("pki/admin", "key-of-super-admin", swap_with("pki/super-admin", ".key"), EDGE_OF["pki/admin"]),
    (_APPROVER, "is-master", named("imagegen:csr-approver", "system:masters"), EDGE_OF[_APPROVER]),
    (
        "nodes/master-1/first-boot",
        "wrong-o",
        named("imagegen:first-boot", "system:nodes"),
        EDGE_OF["nodes/master-1/first-boot"],
    ),
    (
        "nodes/master-1/kube-proxy",
        "wrong-o",
        named("system:kube-proxy", "system:masters"),
        EDGE_OF["nodes/master-1/kube-proxy"],
    ),
    (
        "nodes/master-1/apiserver-kubelet-client",
        "is-master",
        named("kube-apiserver-kubelet-client", "system:masters"),
        EDGE_OF["nodes/master-1/apiserver-kubelet-client"],
    ),
    (
        "nodes/master-0/front-proxy-client",
        "not-allowed-name",
        named("front-proxy"),
        EDGE_OF["nodes/master-0/front-proxy-client"],
    ),
    (
        "nodes/master-0/controller-manager",
        "of-scheduler",
        swap_with("nodes/master-0/scheduler", ".crt", ".key"),
        EDGE_OF["nodes/master-0/controller-manager"],
    ),
    (_PEER, "server-only", only(Usage.SERVER), "etcd@etcd-1 → etcd@etcd-0:2380"),
    (_PEER, "client-only", only(Usage.CLIENT), "etcd@etcd-0 → etcd@etcd-1:2380"),
    (_PEER, "no-address", without("10.240.0.11"), "etcd@etcd-0 → etcd@etcd-1:2380"),
    (_PEER, "of-other-member", swap_with("nodes/etcd-0/etcd-peer", ".crt", ".key"), EDGE_OF[_PEER]),
    (_SERVER, "server-only", only(Usage.SERVER), "etcd-gateway@etcd-0 → etcd@etcd-0:2379"),
    (_SERVER, "no-address", without("10.240.0.10"), "kube-apiserver@master-0 → etcd@etcd-0:2379"),
    (_SERVER, "no-loopback", without("127.0.0.1"), "etcdctl@etcd-0 → etcd@etcd-0:2379"),
    (_SERVER, "no-localhost", without("localhost"), "etcdctl@etcd-0 → etcd@etcd-0:2379"),
    (_SERVER, "is-peer", swap_with("nodes/etcd-0/etcd-peer", ".crt", ".key"), EDGE_OF[_SERVER]),
    (
        "nodes/master-1/apiserver-etcd-client",
        "foreign-address",
        lambda s: lambda w: w.reissue(s, addresses=(IPv4Address("192.0.2.1"),)),
        EDGE_OF["nodes/master-1/apiserver-etcd-client"],
    ),
)

_ANY_CLUSTER = "kube-controller-manager@master-0 → kube-apiserver@master-0:6443"
_ANY_ETCD = "kube-apiserver@master-0 → etcd@etcd-0:2379"
_ANY_PROXY = "kube-apiserver@master-0 → aggregated API server"
_TOKENS = "pods → kube-apiserver (service-account tokens)"


def list_authority_faults(stem: str) -> Iterator[tuple[str, Break]]:
    constraints = x509.BasicConstraints(True, None)
    not_ca = x509.BasicConstraints(False, None)
    yield "expired", lambda w: w.replace_authority(stem, now=NOW - 3 * YEAR, lifetime=YEAR)
    yield "not-yet-valid", lambda w: w.replace_authority(stem, now=NOW + YEAR)
    yield "other-key", lambda w: w.new_key(stem)
    yield "no-certificate", lambda w: w.remove(f"{stem}.crt")
    yield "garbage", lambda w: w.put(f"{stem}.crt", b"nothing")
    yield "rsa-1024", lambda w: w.weak_pair(stem)
    yield "encrypted-key", lambda w: w.encrypt_key(stem)
    yield (
        "not-a-ca",
        lambda w: w.resign(stem, lambda b: b.add_extension(not_ca, True), BasicConstraints=True),
    )
    yield (
        "constraints-not-critical",
        lambda w: w.resign(stem, lambda b: b.add_extension(constraints, False), BasicConstraints=True),
    )
    yield "no-key-usage", lambda w: w.resign(stem, lambda b: b, KeyUsage=True)
    yield "no-key-id", lambda w: w.resign(stem, lambda b: b, SubjectKeyIdentifier=True)
    yield (
        "two-certificates",
        lambda w: w.put(f"{stem}.crt", w.path(f"{stem}.crt").read_bytes() * 2),
    )

    def replace_whole(w: Workshop) -> None:
        w.put(f"{stem}.crt", w.path("nodes/master-0/apiserver.crt").read_bytes())

    yield "is-a-leaf", replace_whole


def put_account(part: str, algorithm: KeyAlgorithm) -> Break:
    def do(w: Workshop) -> None:
        key = SystemRandomness().make_key(algorithm)
        if "key" in part:
            w.put("pki/sa.key", encode_key(key))
        if "pub" in part:
            w.put("pki/sa.pub", encode_public_key(key))

    return do


def list_mutations() -> Iterator[ParameterSet]:
    for stem, edge in EDGE_OF.items():
        for fault, make in list_leaf_faults():
            as_client = (stem, fault) == (_PEER, "wrong-cn")  # the name matters where the member dials
            where = "etcd@etcd-1 → etcd@etcd-0:2380" if as_client else edge
            yield pytest.param(make(stem), where, id=f"{stem.rpartition('/')[2]}-{fault}")
    for stem, fault, make, edge in SPECIAL:
        yield pytest.param(make(stem), edge, id=f"{stem.rpartition('/')[2]}-{fault}")
    for stem, edge in (
        ("pki/ca", _ANY_CLUSTER),
        ("pki/etcd/ca", _ANY_ETCD),
        ("pki/front-proxy-ca", _ANY_PROXY),
    ):
        for fault, do in list_authority_faults(stem):
            yield pytest.param(do, edge, id=f"{stem}-{fault}")
    signer = "kube-apiserver@master-0 → kubelet@master-1:10250"
    yield pytest.param(lambda w: w.remove("pki/ca.key"), signer, id="pki/ca-cannot-sign")
    ec, ed = KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ED25519
    for fault, do in (
        ("other-key", put_account("key", ec)),
        ("other-public-key", put_account("pub", ec)),
        ("ed25519", put_account("key pub", ed)),
        ("no-key", lambda w: w.remove("pki/sa.key")),
        ("no-public-key", lambda w: w.remove("pki/sa.pub")),
        ("garbage", lambda w: w.put("pki/sa.pub", b"?")),
    ):
        yield pytest.param(do, _TOKENS, id=f"pki/sa-{fault}")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issue_store(small(), tmp_path_factory.mktemp("pki") / "secrets").root


def prove(w: Workshop) -> Report:
    report = Report()
    verify_edges(w.cluster, w.store, NOW, report)
    return report


def sort_by_pace(mutations: Iterator[ParameterSet]) -> Iterator[ParameterSet]:
    """Every eighth is part of the fast tests; all of them take a minute."""
    for number, mutation in enumerate(mutations):
        marks = () if number % 8 == 0 else (pytest.mark.slow,)
        yield pytest.param(*mutation.values, id=mutation.id, marks=marks)


@pytest.mark.parametrize(("do", "edge"), list(sort_by_pace(list_mutations())))
def test_mutation_is_caught_and_its_edge_named(do: Break, edge: str, pristine: Path, tmp_path: Path) -> None:
    workshop = Workshop.copy(small(), pristine, tmp_path / "secrets")
    do(workshop)
    report = prove(workshop)
    assert report.has_errors
    assert edge in report.render_text()


def test_there_are_enough_mutations() -> None:
    assert len(list(list_mutations())) >= 250


@pytest.mark.slow
@pytest.mark.parametrize("key", [KeyAlgorithm.ECDSA_P521, KeyAlgorithm.RSA_2048, KeyAlgorithm.ED25519])
def test_mutations_are_caught_with_other_algorithms(key: KeyAlgorithm, tmp_path: Path) -> None:
    cluster = quickstart(key)
    pristine = issue_store(cluster, tmp_path / "pristine").root
    api = "nodes/master-0/apiserver"
    for number, do in enumerate(
        (
            without("127.0.0.1")(api),
            named("somebody")("pki/admin"),
            only(Usage.CLIENT)(api),
            lambda w: w.reissue(api, issuer=w.foreign_authority("pki/ca")),
        )
    ):
        workshop = Workshop.copy(cluster, pristine, tmp_path / str(number))
        assert not prove(workshop).findings
        do(Workshop(cluster, workshop.store))
        text = prove(Workshop.copy(cluster, workshop.store.root, tmp_path / f"{number}-broken")).render_text()
        assert "→ kube-apiserver@master-0:6443" in text


@pytest.mark.parametrize("build", [quickstart, all_in_one, ha])
@pytest.mark.parametrize(
    "key",
    [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.ECDSA_P384, KeyAlgorithm.ECDSA_P521, KeyAlgorithm.ED25519],
)
def test_no_false_alarm(build: Callable[[KeyAlgorithm], Cluster], key: KeyAlgorithm, tmp_path: Path) -> None:
    cluster = build(key)
    report = Report()
    proof = verify_edges(cluster, issue_store(cluster, tmp_path / "secrets"), NOW, report)
    assert not report.findings
    assert proof.broken == 0
    assert proof.handshakes >= proof.edges >= 17


@pytest.mark.slow
def test_no_false_alarm_with_rsa(tmp_path: Path) -> None:
    cluster = all_in_one(KeyAlgorithm.RSA_2048)
    report = Report()
    verify_edges(cluster, issue_store(cluster, tmp_path / "secrets"), NOW, report)
    assert not report.findings


def test_one_fault_is_told_once_with_the_edges_it_breaks(pristine: Path, tmp_path: Path) -> None:
    workshop = Workshop.copy(small(), pristine, tmp_path / "secrets")
    workshop.replace_authority("pki/etcd/ca", now=NOW - 3 * YEAR, lifetime=YEAR)
    findings = [finding for finding in prove(workshop).findings if "expired" in finding.message]
    assert len(findings) == 1
    assert "and 4 more" in findings[0].message


def test_wrong_clock_breaks_every_edge(pristine: Path) -> None:
    for moment, word in ((NOW + 20 * YEAR, "expired"), (NOW - 10 * YEAR, "from")):
        report = Report()
        proof = verify_edges(small(), SecretStore(pristine), moment, report)
        assert proof.broken == proof.edges
        assert all(word in finding.message or "cannot" in finding.message for finding in report.findings[:3])


def test_work_grows_with_the_control_plane_only() -> None:
    few, many = list(list_edges(with_workers(1))), list(list_edges(with_workers(5000)))
    assert len(few) == len(many)
    assert len(list(list_edges(ha()))) < 60


def test_proof_writes_nothing(pristine: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in pristine.rglob("*")}
    report = Report()
    verify_edges(small(), SecretStore(pristine), NOW, report)
    assert {path: path.stat().st_mtime_ns for path in pristine.rglob("*")} == before
