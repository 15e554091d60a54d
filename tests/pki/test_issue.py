"""Issuing: what is made, what is kept, and what exactly is made again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from imagegen.diagnostics import Report
from imagegen.errors import InputError
from imagegen.model.cluster import BootstrapMethod, Cluster, KeyAlgorithm
from imagegen.pki import inventory
from imagegen.pki.certificates import decode_certificate, read_names, read_usages
from imagegen.pki.expiry import CertificateState, list_expiry, renew_material, replace_identity
from imagegen.pki.issue import IssueResult, issue_material
from imagegen.pki.keys import decode_key, name_algorithm
from imagegen.pki.store import SecretStore
from imagegen.pki.tokens import TOKEN_PATTERN
from tests.pki.clusters import E, M, W, all_in_one, ha, make_node, quickstart, with_workers
from tests.pki.seeded import SeededRandomness
from tests.pki.workshop import NOW, YEAR, Workshop, issue_store


def read_all(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def issue(cluster: Cluster, root: Path, seed: str = "again") -> IssueResult:
    return issue_material(cluster, SecretStore(root), Report(), now=NOW, randomness=SeededRandomness(seed))


def changed(before: dict[str, bytes], root: Path) -> set[str]:
    after = read_all(root)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_everything_that_the_list_names_is_there(tmp_path: Path) -> None:
    cluster = ha()
    store = issue_store(cluster, tmp_path / "secrets")
    wanted = {
        f"{each.name}{suffix}" for each in inventory.list_certificates(cluster) for suffix in (".crt", ".key")
    }
    wanted |= {
        f"{each.name}{suffix}" for each in inventory.list_authorities(cluster) for suffix in (".crt", ".key")
    }
    wanted |= {"pki/sa.key", "pki/sa.pub", "encryption/secretbox-key"}
    wanted |= {f"nodes/worker-{i}/bootstrap-token" for i in range(3)}
    assert set(store.names()) == wanted


def test_worker_gets_a_token_and_nothing_else(tmp_path: Path) -> None:
    store = issue_store(quickstart(), tmp_path / "secrets")
    assert [name for name in store.names() if "worker" in name] == [
        "nodes/worker-0/bootstrap-token",
        "nodes/worker-1/bootstrap-token",
    ]
    assert TOKEN_PATTERN.fullmatch(store.read("nodes/worker-0/bootstrap-token").decode())


def test_same_randomness_same_bytes(tmp_path: Path) -> None:
    stores = [issue_store(ha(), tmp_path / name) for name in ("one", "two")]
    assert read_all(stores[0].root) == read_all(stores[1].root)
    other = issue_store(ha(), tmp_path / "three", seed="other")
    assert read_all(other.root) != read_all(stores[0].root)


@pytest.mark.parametrize(
    ("algorithm", "kind", "signature"),
    [
        (KeyAlgorithm.ECDSA_P256, ec.EllipticCurvePrivateKey, "sha256"),
        (KeyAlgorithm.ECDSA_P384, ec.EllipticCurvePrivateKey, "sha384"),
        (KeyAlgorithm.ECDSA_P521, ec.EllipticCurvePrivateKey, "sha512"),
        (KeyAlgorithm.RSA_2048, rsa.RSAPrivateKey, "sha256"),
        (KeyAlgorithm.ED25519, ed25519.Ed25519PrivateKey, None),
    ],
)
def test_algorithms(algorithm: KeyAlgorithm, kind: type, signature: str | None, tmp_path: Path) -> None:
    store = issue_store(quickstart(algorithm), tmp_path / "secrets")
    certificate = decode_certificate(store.read("nodes/master-0/apiserver.crt"))
    assert isinstance(decode_key(store.read("nodes/master-0/apiserver.key")), kind)
    assert name_algorithm(certificate.public_key()) == algorithm.value
    used = certificate.signature_hash_algorithm
    assert (used.name if used else None) == signature
    account = decode_key(store.read("pki/sa.key"))
    assert not isinstance(account, ed25519.Ed25519PrivateKey), "Kubernetes signs no tokens with Ed25519"


def test_certificate_form(tmp_path: Path) -> None:
    store = issue_store(quickstart(KeyAlgorithm.RSA_2048), tmp_path / "secrets", now=NOW)
    ca = decode_certificate(store.read("pki/ca.crt"))
    leaf = decode_certificate(store.read("nodes/master-0/apiserver.crt"))
    for certificate, is_ca in ((ca, True), (leaf, False)):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert (constraints.critical, constraints.value.ca) == (True, is_ca)
        assert (usage.critical, usage.value.key_cert_sign) == (True, is_ca)
        assert certificate.serial_number.bit_length() > 100
        assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment
    assert leaf.not_valid_after_utc == NOW + YEAR
    key_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == key_id
    assert read_usages(leaf) == {"serverAuth"}
    names = read_names(leaf)
    assert names.addresses == {"10.240.0.11", "10.32.0.1", "127.0.0.1"}
    assert names.dns == {
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "master-0",
    }


def test_serials_are_never_the_same(tmp_path: Path) -> None:
    store = issue_store(ha(), tmp_path / "secrets")
    certificates = [decode_certificate(store.read(n)) for n in store.names() if n.endswith(".crt")]
    assert len({each.serial_number for each in certificates}) == len(certificates)


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    root = issue_store(ha(), tmp_path / "secrets").root
    before = read_all(root)
    result = issue(ha(), root)
    assert changed(before, root) == set()
    assert result.changes == ()
    assert result.kept == 3 + len(list(inventory.list_certificates(ha()))) + 1 + 3 + 1


def test_new_node_gets_its_own_material_only(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    before = read_all(root)
    more = replace(quickstart(), nodes=(*quickstart().nodes, make_node("extra", [M, W], "10.240.0.50")))
    result = issue(more, root)
    assert {name.split("/")[1] for name in changed(before, root)} == {"extra"}
    assert all(change.reason == "new" for change in result.changes)


def test_removed_node_is_named_and_kept(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    before = read_all(root)
    result = issue(replace(quickstart(), nodes=quickstart().nodes[:-1]), root)
    assert result.stale_nodes == ("worker-1",)
    assert changed(before, root) == set()


@pytest.mark.parametrize(
    ("lost", "again", "reason"),
    [
        (".key", {".key", ".crt"}, "the key was missing"),
        (".crt", {".crt"}, "the certificate was missing"),
    ],
)
def test_lost_file_re_issues_only_that_pair(lost: str, again: set[str], reason: str, tmp_path: Path) -> None:
    root = issue_store(ha(), tmp_path / "secrets").root
    before = read_all(root)
    stem = "nodes/etcd-1/etcd-peer"
    (root / f"{stem}{lost}").unlink()
    result = issue(ha(), root)
    assert changed(before, root) == {f"{stem}{suffix}" for suffix in again}
    assert [(change.name, change.reason) for change in result.changes] == [(stem, reason)]


def test_new_endpoint_re_issues_the_api_servers_for_the_keys_they_have(tmp_path: Path) -> None:
    root = issue_store(ha(), tmp_path / "secrets").root
    before = read_all(root)
    result = issue(ha(endpoint="other.example.com"), root)
    assert changed(before, root) == {f"nodes/master-{i}/apiserver.crt" for i in range(3)}
    assert {change.reason for change in result.changes} == {
        "names lack other.example.com; names have api.example.com too much"
    }


def test_other_algorithm_makes_new_leaves_and_keeps_authorities(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    before = read_all(root)
    issue(quickstart(KeyAlgorithm.ECDSA_P384), root)
    touched = changed(before, root)
    assert "nodes/master-0/apiserver.key" in touched
    assert not {name for name in touched if name.startswith(("pki/ca", "pki/etcd", "pki/front", "pki/sa"))}


def test_swapped_keys_are_brought_in_order(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    workshop = Workshop(quickstart(), SecretStore(root))
    workshop.swap("pki/admin.key", "pki/super-admin.key")
    result = issue(quickstart(), root)
    assert {change.name for change in result.changes} == {"pki/admin", "pki/super-admin"}
    for stem in ("pki/admin", "pki/super-admin"):
        key = decode_key((root / f"{stem}.key").read_bytes())
        assert workshop.certificate(stem).public_key() == key.public_key()


def test_authority_certificate_is_made_again_for_its_key(tmp_path: Path) -> None:
    """What a run leaves that was killed between the two files; the leaves stay good."""
    root = issue_store(quickstart(), tmp_path / "secrets").root
    (root / "pki/ca.crt").unlink()
    result = issue(quickstart(), root)
    assert [change.name for change in result.changes] == ["pki/ca"]


def test_public_half_of_the_service_account_is_made_again(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    before = read_all(root)
    (root / "pki/sa.pub").unlink()
    issue(quickstart(), root)
    assert changed(before, root) == set()


def test_tokens_have_different_ids(tmp_path: Path) -> None:
    cluster = with_workers(300)
    store = issue_store(cluster, tmp_path / "secrets")
    tokens = [store.read(f"nodes/worker-{i}/bootstrap-token").decode() for i in range(300)]
    assert len({token[:6] for token in tokens}) == 300
    assert set("".join(tokens)) > set("abcxyz0189.")


def test_nothing_is_issued_when_something_is_wrong(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    (root / "nodes/worker-0/bootstrap-token").write_bytes(b"not a token")
    (root / "nodes/master-0/apiserver.crt").unlink()
    before = read_all(root)
    with pytest.raises(InputError):
        issue(quickstart(), root)
    assert changed(before, root) == set()


def test_renewal_gives_due_leaves_new_keys_and_keeps_the_rest(tmp_path: Path) -> None:
    cluster = quickstart()
    store = issue_store(cluster, tmp_path / "secrets", now=NOW)
    before = read_all(store.root)
    Workshop(cluster, store).reissue("pki/admin", lifetime=timedelta(days=20))
    between = read_all(store.root)
    report = Report()
    later = NOW + timedelta(days=15)
    result = renew_material(
        cluster, SecretStore(store.root), report, now=later, randomness=SeededRandomness("r")
    )
    assert changed(between, store.root) == {"pki/admin.crt", "pki/admin.key"}
    assert [change.reason for change in result.changes] == ["renewed: its end was 2026-12-11"]
    renew_material(
        cluster, SecretStore(store.root), report, now=NOW, everything=True, randomness=SeededRandomness("all")
    )
    touched = changed(before, store.root)
    assert touched == {
        f"{each.name}{suffix}" for each in inventory.list_certificates(cluster) for suffix in (".crt", ".key")
    }


def test_renewal_heals_what_has_expired(tmp_path: Path) -> None:
    cluster = quickstart()
    store = issue_store(cluster, tmp_path / "secrets", now=NOW - 2 * YEAR)
    with pytest.raises(InputError):
        issue(cluster, store.root)
    renew_material(cluster, SecretStore(store.root), Report(), now=NOW, randomness=SeededRandomness("r"))
    states = {each.name: each.state for each in list_expiry(cluster, SecretStore(store.root), NOW)}
    assert set(states.values()) == {CertificateState.OK}
    assert issue(cluster, store.root).changes == ()


def test_expiry_lists_everything_in_every_state(tmp_path: Path) -> None:
    cluster = all_in_one()
    store = issue_store(cluster, tmp_path / "secrets", now=NOW)
    workshop = Workshop(cluster, store)
    workshop.reissue("pki/admin", lifetime=timedelta(minutes=30))
    workshop.reissue("nodes/solo/scheduler", now=NOW + timedelta(days=1))
    workshop.remove("nodes/solo/kube-proxy.crt")
    workshop.put("nodes/solo/first-boot.crt", b"?")
    rows = {
        each.name: each for each in list_expiry(cluster, SecretStore(store.root), NOW + timedelta(hours=1))
    }
    states = {name: row.state for name, row in rows.items() if row.state is not CertificateState.OK}
    assert states == {
        "pki/admin": CertificateState.EXPIRED,
        "nodes/solo/scheduler": CertificateState.EARLY,
        "nodes/solo/kube-proxy": CertificateState.MISSING,
        "nodes/solo/first-boot": CertificateState.UNREADABLE,
    }
    assert rows["pki/ca"].days_left == 3649
    assert rows["pki/admin"].days_left == -1
    row = rows["nodes/solo/etcd-peer"].as_dict()
    assert row["subject"] == "CN=etcd-peer"
    assert row["issuer"] == "pki/etcd/ca"
    assert row["usages"] == ["clientAuth", "serverAuth"]
    due = {
        e.name
        for e in list_expiry(cluster, SecretStore(store.root), NOW + timedelta(days=340))
        if e.state == "due"
    }
    assert "nodes/solo/apiserver" in due
    assert "pki/ca" not in due


def test_short_lived_leaves_are_due_in_their_last_third(tmp_path: Path) -> None:
    cluster = quickstart()
    cluster = replace(cluster, pki=replace(cluster.pki, lifetime=timedelta(days=3)))
    store = issue_store(cluster, tmp_path / "secrets", now=NOW)
    for hours, state in ((1, "ok"), (46, "ok"), (50, "due")):
        rows = list_expiry(cluster, SecretStore(store.root), NOW + timedelta(hours=hours))
        assert {row.state.value for row in rows if row.issuer != "itself"} == {state}


def test_every_etcd_member_is_apart(tmp_path: Path) -> None:
    """Nothing but authorities, the account key and the encryption key is shared."""
    store = issue_store(ha(), tmp_path / "secrets")
    keys = [store.read(name) for name in store.names() if name.endswith(".key")]
    assert len(set(keys)) == len(keys)
    assert {each.node for each in inventory.list_certificates(ha())} == {None} | {
        node.name for node in ha().nodes if node.has(E) or node.has(M)
    }


@pytest.mark.parametrize("name", ["worker-0", "master-1", "etcd-2", "lb-0"])
def test_a_replaced_node_has_nothing_of_its_old_identity_and_others_keep_theirs(
    tmp_path: Path, name: str
) -> None:
    cluster = ha()
    store = issue_store(cluster, tmp_path / "secrets")
    before = read_all(tmp_path / "secrets")
    replace_identity(cluster, store, Report(), name, now=NOW)
    own = {path for path in before if path.startswith(f"nodes/{name}/")}
    assert changed(before, tmp_path / "secrets") == own
    assert issue(cluster, tmp_path / "secrets").changes == ()


def test_a_token_in_a_token_file_stays(tmp_path: Path) -> None:
    cluster = quickstart()
    cluster = replace(cluster, bootstrap=replace(cluster.bootstrap, method=BootstrapMethod.TOKEN_FILE))
    store = issue_store(cluster, tmp_path / "secrets")
    before = read_all(tmp_path / "secrets")
    replace_identity(cluster, store, Report(), "worker-0", now=NOW)
    assert changed(before, tmp_path / "secrets") == set()
