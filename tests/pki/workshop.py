"""Breaks an issued secret store in one place at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from imagegen.diagnostics import Report
from imagegen.model.cluster import Cluster, KeyAlgorithm
from imagegen.pki import inventory, spec
from imagegen.pki.certificates import (
    Authority,
    build_authority,
    build_leaf,
    decode_certificate,
    encode_certificate,
)
from imagegen.pki.issue import issue_material
from imagegen.pki.keys import SystemRandomness, decode_key, encode_key
from imagegen.pki.store import SecretStore
from tests.pki.seeded import SeededRandomness

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
YEAR = timedelta(days=365)


def issue_store(
    cluster: Cluster, root: Path, *, now: datetime = NOW - timedelta(days=90), seed: str = "test"
) -> SecretStore:
    """A new store at ``root`` with everything that ``cluster`` needs."""
    store = SecretStore(root)
    issue_material(cluster, store, Report(), now=now, randomness=SeededRandomness(seed))
    return store


@dataclass(frozen=True)
class Workshop:
    """A copy of an issued store, to be broken. Names are stems in the store."""

    cluster: Cluster
    store: SecretStore

    @classmethod
    def copy(cls, cluster: Cluster, pristine: Path, root: Path) -> Workshop:
        shutil.copytree(pristine, root)
        return cls(cluster, SecretStore(root))

    def path(self, name: str) -> Path:
        return self.store.root / name

    def put(self, name: str, data: bytes) -> None:
        """Past the store's own care: no batch, no sync."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_bytes(data)
        self.path(name).chmod(0o600)

    def remove(self, name: str) -> None:
        self.path(name).unlink()

    def spec(self, stem: str) -> spec.CertificateSpec:
        return next(each for each in inventory.list_certificates(self.cluster) if each.name == stem)

    def certificate(self, stem: str) -> x509.Certificate:
        return decode_certificate(self.path(f"{stem}.crt").read_bytes())

    def authority(self, stem: str) -> Authority:
        key = decode_key(self.path(f"{stem}.key").read_bytes())
        return Authority(name=stem, certificate=self.certificate(stem), key=key)

    def foreign_authority(self, stem: str) -> Authority:
        """Another authority with the same subject."""
        wanted = next(each for each in inventory.list_authorities(self.cluster) if each.name == stem)
        key = SystemRandomness().make_key(KeyAlgorithm.ECDSA_P256)
        certificate = build_authority(wanted, key, now=NOW, randomness=SystemRandomness())
        return Authority(name=stem, certificate=certificate, key=key)

    def reissue(
        self, stem: str, *, issuer: Authority | None = None, now: datetime = NOW, **changes: Any
    ) -> None:
        """Sign the leaf again for its key, with ``changes`` to its specification."""
        wanted = replace(self.spec(stem), **changes)
        key = decode_key(self.path(f"{stem}.key").read_bytes())
        authority = issuer or self.authority(wanted.issuer)
        leaf = build_leaf(wanted, key, authority, now=now, randomness=SystemRandomness())
        self.put(f"{stem}.crt", encode_certificate(leaf))

    def resign(
        self, stem: str, edit: Callable[[x509.CertificateBuilder], x509.CertificateBuilder], **skip: bool
    ) -> None:
        """Sign a certificate again after ``edit``; ``skip`` names extension classes to leave out."""
        old = self.certificate(stem)
        issuer = self.authority(self.spec(stem).issuer if stem in self._leaves else stem)
        builder = (
            x509.CertificateBuilder()
            .subject_name(old.subject)
            .issuer_name(old.issuer)
            .public_key(old.public_key())  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(old.not_valid_before_utc)
            .not_valid_after(old.not_valid_after_utc)
        )
        for extension in old.extensions:
            if not skip.get(type(extension.value).__name__):
                builder = builder.add_extension(extension.value, extension.critical)
        assert issuer.key is not None
        certificate = edit(builder).sign(issuer.key, hashes.SHA256())
        self.put(f"{stem}.crt", encode_certificate(certificate))

    @property
    def _leaves(self) -> set[str]:
        return {each.name for each in inventory.list_certificates(self.cluster)}

    def outlive(self, stem: str) -> None:
        """Sign the leaf so that it ends a year after its authority, which ``build_leaf`` never does."""
        end = self.certificate(self.spec(stem).issuer).not_valid_after_utc + YEAR

        def edit(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
            builder._not_valid_after = None  # the builder refuses to set it twice
            return builder.not_valid_after(end)

        self.resign(stem, edit)

    def replace_authority(self, stem: str, **changes: Any) -> None:
        """A new certificate for the authority's own key, with ``changes`` to its specification."""
        self.put(f"{stem}.crt", encode_certificate(self.build_authority(stem, **changes)))

    def build_authority(self, stem: str, *, now: datetime = NOW, **changes: Any) -> x509.Certificate:
        wanted = next(each for each in inventory.list_authorities(self.cluster) if each.name == stem)
        key = decode_key(self.path(f"{stem}.key").read_bytes())
        return build_authority(replace(wanted, **changes), key, now=now, randomness=SystemRandomness())

    def swap(self, one: str, other: str) -> None:
        """Exchange two files."""
        first, second = self.path(one).read_bytes(), self.path(other).read_bytes()
        self.put(one, second)
        self.put(other, first)

    def encrypt_key(self, stem: str) -> None:
        key = decode_key(self.path(f"{stem}.key").read_bytes())
        self.put(
            f"{stem}.key",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"secret"),
            ),
        )

    def new_key(self, stem: str) -> None:
        self.put(f"{stem}.key", encode_key(SystemRandomness().make_key(KeyAlgorithm.ECDSA_P256)))

    def weak_pair(self, stem: str) -> None:
        """An authority with RSA 1024."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        wanted = next(each for each in inventory.list_authorities(self.cluster) if each.name == stem)
        certificate = build_authority(wanted, key, now=NOW, randomness=SystemRandomness())
        self.put(f"{stem}.crt", encode_certificate(certificate))
        self.put(f"{stem}.key", encode_key(key))
