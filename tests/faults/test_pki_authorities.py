"""Faulty authorities and keys in the store (faults P1 to P5): each is refused with its code and file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import NameOID

from imagegen.diagnostics import Report, Severity
from imagegen.errors import InputError
from imagegen.model.cluster import KeyAlgorithm
from imagegen.pki.certificates import decode_certificate, encode_certificate, is_issued_by
from imagegen.pki.issue import IssueResult, issue_material
from imagegen.pki.keys import SystemRandomness, decode_key
from imagegen.pki.store import SecretStore
from imagegen.pki.verify import verify_edges
from tests.conftest import require_judge
from tests.pki.clusters import quickstart
from tests.pki.workshop import NOW, YEAR, Workshop, issue_store

CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "our own CA")])


def make_authority(
    key: Any,
    *,
    start: datetime = NOW - YEAR,
    end: datetime = NOW + 5 * YEAR,
    ca: bool = True,
    sign: bool = True,
    key_id: bool = True,
    digest: hashes.HashAlgorithm | None = None,
    issuer: tuple[x509.Certificate, Any] | None = None,
) -> x509.Certificate:
    """A user's own authority, not made by imagegen."""
    usage = x509.KeyUsage(True, False, False, False, False, sign, sign, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(CA_NAME)
        .issuer_name(issuer[0].subject if issuer else CA_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(usage, critical=True)
    )
    if key_id:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if issuer:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[0].public_key())  # type: ignore[arg-type]
        builder = builder.add_extension(authority, critical=False)
    return builder.sign(issuer[1] if issuer else key, digest or hashes.SHA256())


def pem(key: Any, password: bytes | None = None, form: str = "PKCS8") -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    data: bytes = key.private_bytes(
        serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), protection
    )
    return data


def put_authority(root: Path, key: Any, *, name: str = "pki/ca", **changes: Any) -> None:
    """Drop a CA into the store the way a user does it: plain files."""
    folder = (root / name).parent
    folder.mkdir(parents=True, exist_ok=True)
    (root / f"{name}.crt").write_bytes(encode_certificate(make_authority(key, **changes)))
    (root / f"{name}.key").write_bytes(pem(key))
    (root / f"{name}.key").chmod(0o600)


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def issue(root: Path, *, lifetime: timedelta = YEAR) -> tuple[IssueResult, Report]:
    cluster = quickstart()
    cluster = replace(cluster, pki=replace(cluster.pki, lifetime=lifetime))
    report = Report()
    return issue_material(cluster, SecretStore(root), report, now=NOW), report


def refuse(root: Path) -> list[tuple[str, str]]:
    """Codes and messages of the errors that stop the issuing; nothing may be written."""
    before = sorted(path for path in root.rglob("*") if not path.name.startswith("."))
    report = Report()
    with pytest.raises(InputError):
        issue_material(quickstart(), SecretStore(root), report, now=NOW)
    assert sorted(path for path in root.rglob("*") if not path.name.startswith(".")) == before
    return [(each.code, each.message) for each in report.findings if each.severity is Severity.ERROR]


# --- a user's own authority that is good ---


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (p256, "PKCS8"),
        (p256, "TraditionalOpenSSL"),
        (lambda: ec.generate_private_key(ec.SECP521R1()), "PKCS8"),
        (lambda: rsa.generate_private_key(65537, 2048), "TraditionalOpenSSL"),
    ],
)
def test_own_authority_signs_everything(make: Callable[[], Any], form: str, tmp_path: Path) -> None:
    root = tmp_path / "secrets"
    key = make()
    put_authority(root, key)
    (root / "pki/ca.key").write_bytes(pem(key, form=form))
    before = (root / "pki/ca.crt").read_bytes()
    issue(root)
    assert (root / "pki/ca.crt").read_bytes() == before
    leaf = decode_certificate((root / "pki/admin.crt").read_bytes())
    assert is_issued_by(leaf, decode_certificate(before))
    report = Report()
    verify_edges(quickstart(), SecretStore(root), NOW, report)
    assert report.render_text() == ""


def test_intermediate_authority_is_an_anchor_of_its_own(tmp_path: Path) -> None:
    root_key, key = p256(), p256()
    top = make_authority(root_key)
    root = tmp_path / "secrets"
    put_authority(root, key, issuer=(top, root_key))
    issue(root)
    report = Report()
    verify_edges(quickstart(), SecretStore(root), NOW, report)
    assert report.render_text() == ""


def test_chain_in_the_file_is_refused_because_the_controller_manager_does(tmp_path: Path) -> None:
    root_key, key = p256(), p256()
    top = make_authority(root_key)
    root = tmp_path / "secrets"
    put_authority(root, key, issuer=(top, root_key))
    with (root / "pki/ca.crt").open("ab") as file:
        file.write(encode_certificate(top))
    [(code, message)] = refuse(root)
    assert code == "IMG309"
    assert "pki/ca.crt: holds 2 certificates" in message


@pytest.mark.judge
def test_authority_made_by_openssl(tmp_path: Path) -> None:
    openssl = require_judge("openssl")
    folder = tmp_path / "secrets/pki/etcd"
    folder.mkdir(parents=True)
    options = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-noenc", "-days", "900")
    extensions = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    names = ("-subj", "/CN=made elsewhere", "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    done = openssl.run("req", "-x509", *options, *extensions, *names)
    assert done.returncode == 0, done.stderr
    (folder / "ca.key").chmod(0o600)
    now = datetime.now(UTC)
    report = Report()
    store = SecretStore(tmp_path / "secrets")
    issue_material(quickstart(), store, report, now=now)
    verify_edges(quickstart(), store, now, report)
    assert report.render_text() == ""


# --- P1: dates ---


def test_expired_authority_is_refused(tmp_path: Path) -> None:
    put_authority(tmp_path / "secrets", p256(), start=NOW - 5 * YEAR, end=NOW - timedelta(days=1))
    [(code, message)] = refuse(tmp_path / "secrets")
    assert code == "IMG301"
    assert "pki/ca.crt expired on 2026-11-20 06:00:00 UTC" in message


def test_authority_of_the_future_points_at_the_clock(tmp_path: Path) -> None:
    put_authority(tmp_path / "secrets", p256(), start=NOW + YEAR)
    report = Report()
    with pytest.raises(InputError):
        issue_material(quickstart(), SecretStore(tmp_path / "secrets"), report, now=NOW)
    assert [(each.code, "clock" in str(each.hint)) for each in report.findings] == [("IMG301", True)]


def test_leaf_never_outlives_its_authority(tmp_path: Path) -> None:
    root = tmp_path / "secrets"
    end = NOW + timedelta(days=100)
    put_authority(root, p256(), end=end)
    _, report = issue(root)
    [warning] = report.findings
    assert (warning.code, warning.severity) == ("IMG302", Severity.WARNING)
    assert "pki/ca.crt ends on 2027-03-01" in warning.message
    for path in root.rglob("*.crt"):
        assert (
            decode_certificate(path.read_bytes()).not_valid_after_utc <= end
            or "etcd" in str(path)
            or ("front-proxy" in str(path))
        )
    assert decode_certificate((root / "pki/admin.crt").read_bytes()).not_valid_after_utc == end


@pytest.mark.parametrize("lifetime", [timedelta(hours=1), timedelta(days=365_000 * 5)])
def test_extreme_lifetimes(lifetime: timedelta, tmp_path: Path) -> None:
    cluster = quickstart()
    cluster = replace(cluster, pki=replace(cluster.pki, lifetime=lifetime, ca_lifetime=lifetime))
    store = SecretStore(tmp_path / "secrets")
    issue_material(cluster, store, Report(), now=NOW)
    leaf = decode_certificate(store.read("pki/admin.crt"))
    assert NOW < leaf.not_valid_after_utc <= decode_certificate(store.read("pki/ca.crt")).not_valid_after_utc


# --- P2: keys and form ---


def test_key_of_another_authority_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "secrets"
    put_authority(root, p256())
    (root / "pki/ca.key").write_bytes(pem(p256()))
    [(code, message)] = refuse(root)
    assert code == "IMG303"
    assert "pki/ca.key does not belong to pki/ca.crt" in message


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_encrypted_key_is_refused(form: str, tmp_path: Path) -> None:
    root, key = tmp_path / "secrets", p256()
    put_authority(root, key)
    (root / "pki/ca.key").write_bytes(pem(key, b"password", form))
    [(code, message)] = refuse(root)
    assert code == "IMG304"
    assert "pki/ca.key" in message


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: rsa.generate_private_key(65537, 1024), "RSA with 1024 bits"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "curve secp256k1"),
        (lambda: ec.generate_private_key(ec.SECP224R1()), "curve secp224r1"),
        (lambda: dsa.generate_private_key(1024), "dsa keys are not understood"),
    ],
)
def test_weak_keys_are_refused(make: Callable[[], Any], word: str, tmp_path: Path) -> None:
    put_authority(tmp_path / "secrets", make())
    findings = refuse(tmp_path / "secrets")
    assert {code for code, _ in findings} == {"IMG305"}
    assert any("pki/ca.crt" in message and word in message for _, message in findings)
    assert any("pki/ca.key" in message and word in message for _, message in findings)


def test_broken_hash_is_refused(tmp_path: Path) -> None:
    """The library signs no SHA-1 any more, so the certificate is put together around its bytes."""
    root, key = tmp_path / "secrets", rsa.generate_private_key(65537, 2048)
    put_authority(root, key)
    der = make_authority(key).public_bytes(serialization.Encoding.DER)
    sha256 = bytes.fromhex("06092a864886f70d01010b")
    assert der.count(sha256) == 2
    weak = x509.load_der_x509_certificate(der.replace(sha256, bytes.fromhex("06092a864886f70d010105")))
    (root / "pki/ca.crt").write_bytes(encode_certificate(weak))
    [(code, message)] = refuse(root)
    assert code == "IMG306"
    assert "sha1" in message


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"ca": False}, "basicConstraints CA:TRUE is missing"),
        ({"sign": False}, "keyUsage keyCertSign is missing"),
        ({"key_id": False}, "subject key identifier is missing"),
    ],
)
def test_what_is_no_authority_is_refused(changes: dict[str, bool], word: str, tmp_path: Path) -> None:
    put_authority(tmp_path / "secrets", p256(), **changes)
    [(code, message)] = refuse(tmp_path / "secrets")
    assert code == "IMG307"
    assert word in message


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\xff" * 50, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
    ids=["empty", "binary", "bad-pem"],
)
@pytest.mark.parametrize("suffix", ["crt", "key"])
def test_garbage_is_refused(data: bytes, suffix: str, tmp_path: Path) -> None:
    root = tmp_path / "secrets"
    put_authority(root, p256())
    (root / f"pki/ca.{suffix}").write_bytes(data)
    [(code, message)] = refuse(root)
    assert code == "IMG309"
    assert f"pki/ca.{suffix}" in message


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    root = tmp_path / "secrets"
    put_authority(root, p256(), ca=False, sign=False, end=NOW - timedelta(days=1))
    put_authority(root, p256(), name="pki/etcd/ca")
    (root / "pki/etcd/ca.key").write_bytes(pem(p256()))
    put_authority(root, p256(), name="pki/front-proxy-ca", key_id=False)
    codes = [code for code, _ in refuse(root)]
    assert sorted(codes) == ["IMG301", "IMG303", "IMG307", "IMG307", "IMG307"]


# --- authorities without their key ---


def test_authority_without_key_is_enough_when_nothing_must_be_signed(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    (root / "pki/etcd/ca.key").unlink()
    (root / "pki/front-proxy-ca.key").unlink()
    result, report = issue(root)
    assert (result.changes, report.findings) == ((), [])
    verify_edges(quickstart(), SecretStore(root), NOW, report)
    assert report.findings == []


def test_authority_without_key_is_an_error_when_something_must_be_signed(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    (root / "pki/etcd/ca.key").unlink()
    (root / "nodes/etcd-0/etcd-peer.crt").unlink()
    [(code, message)] = refuse(root)
    assert code == "IMG308"
    assert "pki/etcd/ca.key is missing, and nodes/etcd-0/etcd-peer must be issued" in message


def test_masters_need_the_key_of_the_cluster_authority(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    (root / "pki/ca.key").unlink()
    [(code, message)] = refuse(root)
    assert code == "IMG308"
    assert "on the masters" in message


def test_lost_authority_is_not_replaced_silently(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    for name in ("ca.crt", "ca.key"):
        (root / "pki" / name).unlink()
    [(code, message)] = refuse(root)
    assert code == "IMG310"
    assert "pki/admin.crt first" in message


# --- the other secrets ---


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("pki/sa.pub", b"?", "IMG309"),
        ("pki/sa.key", b"?", "IMG309"),
        ("nodes/worker-0/bootstrap-token", b"abcdef.0123456789abcdef\n", "IMG313"),
        ("nodes/worker-0/bootstrap-token", b"ABCDEF.0123456789abcdef", "IMG313"),
        ("nodes/worker-0/bootstrap-token", b"\xff", "IMG313"),
        ("encryption/secretbox-key", b"c2hvcnQ=", "IMG313"),
        ("encryption/secretbox-key", b"not base64!", "IMG313"),
        ("nodes/master-0/apiserver.key", b"?", "IMG309"),
        ("nodes/master-0/apiserver.crt", b"?", "IMG309"),
    ],
)
def test_broken_secret_is_named(name: str, data: bytes, code: str, tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    (root / name).write_bytes(data)
    [(got, message)] = refuse(root)
    assert got == code
    assert name in message


def test_service_account_halves_must_belong_together(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    Workshop(quickstart(), SecretStore(root)).new_key("pki/sa")
    [(code, message)] = refuse(root)
    assert (code, "sa.pub does not belong" in message) == ("IMG303", True)
    (root / "pki/sa.key").unlink()
    [(code, message)] = refuse(root)
    assert (code, "sa.key is missing" in message) == ("IMG308", True)


def test_two_nodes_with_one_token_are_named(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    (root / "nodes/worker-1/bootstrap-token").write_bytes(
        (root / "nodes/worker-0/bootstrap-token").read_bytes()
    )
    [(code, message)] = refuse(root)
    assert code == "IMG313"
    assert "worker-1" in message
    assert "worker-0" in message


def test_expired_leaf_stops_and_a_due_one_warns(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    workshop = Workshop(quickstart(), SecretStore(root))
    workshop.reissue("pki/admin", now=NOW, lifetime=timedelta(days=60))
    report = Report()
    issue_material(quickstart(), SecretStore(root), report, now=NOW + timedelta(days=40))
    assert [(each.code, each.severity) for each in report.findings] == [("IMG312", Severity.WARNING)]
    report = Report()
    with pytest.raises(InputError):
        issue_material(quickstart(), SecretStore(root), report, now=NOW + timedelta(days=61))
    assert [each.code for each in report.findings] == ["IMG311"]


def test_no_finding_shows_a_secret(tmp_path: Path) -> None:
    root = issue_store(quickstart(), tmp_path / "secrets").root
    secrets = [
        path.read_text()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.suffix not in {".crt", ".pub"}
    ]
    for path in root.rglob("*.crt"):
        path.write_bytes(b"?")
    (root / "nodes/worker-0/bootstrap-token").write_text("x" + secrets[0][:40])
    report = Report()
    with pytest.raises(InputError):
        issue_material(quickstart(), SecretStore(root), report, now=NOW)
    text = report.render_text() + report.render_json()
    for secret in secrets:
        assert all(line not in text for line in secret.splitlines() if len(line) > 20 and "-----" not in line)


def test_key_of_a_kind_we_cannot_make_is_still_read(tmp_path: Path) -> None:
    """SEC 1 and PKCS #1 files, as other tools write them."""
    for key, form in ((p256(), "TraditionalOpenSSL"), (rsa.generate_private_key(65537, 2048), "PKCS8")):
        assert decode_key(pem(key, form=form)).public_key() == key.public_key()
    assert decode_key(pem(SystemRandomness().make_key(KeyAlgorithm.ED25519)))
