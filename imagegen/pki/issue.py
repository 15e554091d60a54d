"""Brings the secret store in line with the cluster: issues what is missing or no longer fits, keeps the rest.

A certificate whose names, subject, usages or issuer no longer fit is issued again for the key it has, because
a new name is no reason to distrust a key; a lost key, another algorithm and a renewal mean a new key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from imagegen.diagnostics import Report, register_code
from imagegen.errors import InputError
from imagegen.model.cluster import Cluster, KeyAlgorithm, Role
from imagegen.pki import inventory, spec
from imagegen.pki.authorities import (
    CA_ENDS_FIRST,
    CA_KEY_MISMATCH,
    CA_KEY_MISSING,
    UNREADABLE,
    format_time,
    load_authority,
    read_key,
    read_stored,
)
from imagegen.pki.certificates import (
    Authority,
    build_authority,
    build_leaf,
    encode_certificate,
    expected_end,
    find_differences,
)
from imagegen.pki.keys import (
    KeyFault,
    PrivateKey,
    Randomness,
    SystemRandomness,
    decode_public_key,
    encode_key,
    encode_public_key,
    name_algorithm,
)
from imagegen.pki.store import SecretStore
from imagegen.pki.tokens import TokenSource, is_secretbox_key, make_secretbox_key, parse_token_id

CA_LOST = register_code(
    "IMG310",
    "an authority is gone, but certificates that it signed are still there",
    "Making a new authority would cut off every running node, so imagegen does not do it on its own. Restore "
    "the authority from a backup. To start the cluster anew, remove the certificates that it signed as well.",
)
LEAF_EXPIRED = register_code(
    "IMG311",
    "a certificate has expired",
    "Nodes made with it could not talk to each other. Issue it again with: imagegen pki renew CLUSTER",
)
LEAF_EXPIRES_SOON = register_code(
    "IMG312",
    "a certificate expires soon",
    "It is inside the renewal window: the last 30 days, or the last third of a shorter life. Issue it again "
    "with imagegen pki renew CLUSTER, then replace the nodes that hold it.",
)
TOKEN_INVALID = register_code(
    "IMG313",
    "a secret in the store does not have the form that Kubernetes wants",
    "A bootstrap token is [a-z0-9]{6}.[a-z0-9]{16} without a line break, its first half different on every "
    "node; encryption/secretbox-key is the base64 text of 32 bytes. Remove the file to have a new one made. "
    "A new secretbox key makes the Secrets unreadable that etcd already holds.",
)

RENEWAL_WINDOW = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that was written: its stem or name in the store, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueResult:
    """``changes`` in the order of writing; ``kept`` counts what was left as it is.

    ``stale_nodes`` have secrets in the store but are not in the cluster file.
    """

    changes: tuple[Change, ...]
    kept: int
    stale_nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A leaf to issue; ``key`` None means a new one."""

    spec: spec.CertificateSpec
    authority: Authority
    key: PrivateKey | None
    reason: str


#: says why a fitting certificate gets a new key and certificate all the same, or None
RenewalRule = Callable[[spec.CertificateSpec, x509.Certificate], str | None]


def issue_material(
    cluster: Cluster,
    store: SecretStore,
    report: Report,
    *,
    now: datetime,
    randomness: Randomness | None = None,
    renewal: RenewalRule | None = None,
    new_tokens: Collection[str] = (),
) -> IssueResult:
    """Make the store hold everything that the nodes of ``cluster`` need at ``now`` (an aware datetime).

    The nodes of ``new_tokens`` get a new bootstrap token if they have one.

    Raises InputError, having written nothing, when an authority or a secret in the store cannot be used;
    every reason is in ``report``. Raises StoreError when the store cannot be read or written.
    """
    with store.lock():
        session = _Session(
            cluster, store, report, now, randomness or SystemRandomness(), renewal, frozenset(new_tokens)
        )
        before = len(report.findings)
        session.plan()
        if any(finding.severity.value == "error" for finding in report.findings[before:]):
            raise InputError(report)
        session.write()
        store.seal_plain()
    return IssueResult(
        changes=tuple(session.changes), kept=session.kept, stale_nodes=_list_stale_nodes(cluster, store)
    )


@dataclass(slots=True)
class _Session:
    """One run. ``plan`` looks at everything and decides; ``write`` makes keys, signs and puts it on disk."""

    cluster: Cluster
    store: SecretStore
    report: Report
    now: datetime
    randomness: Randomness
    renewal: RenewalRule | None
    new_tokens: frozenset[str]
    changes: list[Change] = field(default_factory=list)
    kept: int = 0
    authorities: dict[str, Authority] = field(default_factory=dict)
    jobs: list[_Job] = field(default_factory=list)
    entries: list[tuple[str, bytes]] = field(default_factory=list)

    def plan(self) -> None:
        certificates = tuple(inventory.list_certificates(self.cluster))
        for authority in inventory.list_authorities(self.cluster):
            self._plan_authority(authority, certificates)
        for certificate in certificates:
            self._plan_leaf(certificate)
        self._check_authority_keys()
        self._plan_service_account()
        self._plan_tokens()
        self._plan_secretbox_key()

    def write(self) -> None:
        keys = self._make_keys([job.spec.key for job in self.jobs if job.key is None])
        for job in self.jobs:
            key = job.key
            if key is None:
                key = keys.pop(0)
                self.entries.append((f"{job.spec.name}.key", encode_key(key)))
            leaf = build_leaf(job.spec, key, job.authority, now=self.now, randomness=self.randomness)
            self.entries.append((f"{job.spec.name}.crt", encode_certificate(leaf)))
            self.changes.append(Change(job.spec.name, job.reason))
        with self.store.batch():
            for name, data in self.entries:
                self.store.write(name, data)

    def _make_keys(self, algorithms: Sequence[KeyAlgorithm]) -> list[PrivateKey]:
        """New keys in order. RSA takes long and runs outside Python's lock, so it gets every core."""
        if algorithms and algorithms[0].value.startswith("rsa"):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return list(pool.map(self.randomness.make_key, algorithms))
        return [self.randomness.make_key(algorithm) for algorithm in algorithms]

    def _plan_authority(
        self, wanted: spec.AuthoritySpec, certificates: Sequence[spec.CertificateSpec]
    ) -> None:
        name, store = wanted.name, self.store
        if store.exists(f"{name}.crt"):
            authority = load_authority(store, name, self.report, now=self.now)
            if authority is not None:
                self.authorities[name] = authority
                self.kept += 1
            return
        reason = "new"
        if store.exists(f"{name}.key"):
            key = read_key(store, name, self.report)
            if key is None:
                return
            reason = "its key was there without a certificate"
        else:
            orphans = [c.name for c in certificates if c.issuer == name and store.exists(f"{c.name}.crt")]
            if orphans:
                self.report.error(
                    CA_LOST,
                    f"{store.root}/{name}.crt is gone, but {len(orphans)} certificates signed by it are "
                    f"there, {orphans[0]}.crt first",
                    hint="restore it from a backup, or remove those too to start the cluster anew",
                    path=f"{name}.crt",
                )
                return
            key = self.randomness.make_key(wanted.key)
            self.entries.append((f"{name}.key", encode_key(key)))
        certificate = build_authority(wanted, key, now=self.now, randomness=self.randomness)
        self.entries.append((f"{name}.crt", encode_certificate(certificate)))
        self.authorities[name] = Authority(name=name, certificate=certificate, key=key)
        self.changes.append(Change(name, reason))

    def _plan_leaf(self, wanted: spec.CertificateSpec) -> None:
        authority = self.authorities.get(wanted.issuer)
        if authority is None:
            return
        faults = len(self.report.findings)
        stored = read_stored(self.store, wanted.name, self.report)
        if len(self.report.findings) > faults:
            return
        key, certificate = stored.key, stored.certificate
        if key is not None and name_algorithm(key.public_key()) != wanted.key.value:
            key = None
        if certificate is None:
            reason = "new" if stored.key is None else "the certificate was missing"
        elif stored.key is None:
            reason = "the key was missing"
        elif certificate.public_key() != stored.key.public_key():
            reason = "key and certificate did not belong together"
        else:
            reason = "; ".join(find_differences(certificate, wanted, authority.certificate))
            renewal = self.renewal(wanted, certificate) if self.renewal else None
            if not reason and renewal:
                reason, key = renewal, None
            if not reason:
                self._check_kept(wanted, certificate)
                return
        self.jobs.append(_Job(spec=wanted, authority=authority, key=key, reason=reason))

    def _check_kept(self, wanted: spec.CertificateSpec, certificate: x509.Certificate) -> None:
        self.kept += 1
        file, end = f"{self.store.root}/{wanted.name}.crt", certificate.not_valid_after_utc
        hint = f"imagegen pki renew {self.cluster.file}"
        if self.now > end:
            self.report.error(LEAF_EXPIRED, f"{file} expired on {format_time(end)}", hint=hint)
        elif is_due(certificate, self.now):
            self.report.warning(LEAF_EXPIRES_SOON, f"{file} expires on {format_time(end)}", hint=hint)

    def _check_authority_keys(self) -> None:
        for authority in self.authorities.values():
            jobs = [job for job in self.jobs if job.authority is authority]
            needs_on_masters = authority.name == spec.CLUSTER_CA and self.cluster.nodes_with(Role.MASTER)
            file = f"{self.store.root}/{authority.name}.key"
            if authority.key is None and jobs:
                more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
                self.report.error(
                    CA_KEY_MISSING,
                    f"{file} is missing, and {jobs[0].spec.name}{more} must be issued: {jobs[0].reason}",
                    hint="put the authority's key beside its certificate",
                    path=f"{authority.name}.key",
                )
            elif authority.key is None and needs_on_masters:
                self.report.error(
                    CA_KEY_MISSING,
                    f"{file} is missing: on the masters it signs the kubelets' requests",
                    hint="put the authority's key beside its certificate",
                    path=f"{authority.name}.key",
                )
            end = authority.certificate.not_valid_after_utc
            cut = [job for job in jobs if expected_end(job.spec, self.now) > end]
            if cut:
                later = expected_end(cut[0].spec, self.now)
                self.report.warning(
                    CA_ENDS_FIRST,
                    f"{self.store.root}/{authority.name}.crt ends on {format_time(end)}, so {len(cut)} new "
                    f"certificates end with it instead of on {format_time(later)}",
                    hint="plan for a new authority before that day",
                    path=f"{authority.name}.crt",
                )

    def _plan_service_account(self) -> None:
        name, store = spec.SERVICE_ACCOUNT, self.store
        has_key, has_public = store.exists(f"{name}.key"), store.exists(f"{name}.pub")
        if not has_key and has_public:
            self.report.error(
                CA_KEY_MISSING,
                f"{store.root}/{name}.key is missing, but {name}.pub is there",
                hint="restore the key; without it no token can be signed. Remove both to start anew",
            )
            return
        if has_key:
            found = read_key(store, name, self.report)
            if found is None:
                return
            key, reason = found, "its private key was there"
        else:
            key = self.randomness.make_key(inventory.service_account_algorithm(self.cluster))
            self.entries.append((f"{name}.key", encode_key(key)))
            reason = "new"
        if has_public:
            self._check_service_account(key)
            return
        self.entries.append((f"{name}.pub", encode_public_key(key)))
        self.changes.append(Change(name, reason))

    def _check_service_account(self, key: PrivateKey) -> None:
        file = f"{self.store.root}/{spec.SERVICE_ACCOUNT}.pub"
        try:
            public = decode_public_key(self.store.read(f"{spec.SERVICE_ACCOUNT}.pub"))
        except KeyFault as fault:
            self.report.error(
                UNREADABLE, f"{file}: {fault}", hint="remove it; it is made from the private key"
            )
            return
        if public != key.public_key():
            self.report.error(CA_KEY_MISMATCH, f"{file} does not belong to {spec.SERVICE_ACCOUNT}.key")
            return
        self.kept += 1

    def _plan_tokens(self) -> None:
        """One token a kubelet; its public half names a Secret, so no two may be alike."""
        owners: dict[str, str] = {}
        wanted: list[tuple[str, str]] = []
        retired: set[str] = set()
        for node in self.cluster.nodes:
            if not inventory.has_bootstrap_token(self.cluster, node):
                continue
            name = inventory.bootstrap_token_name(node.name)
            if not self.store.exists(name):
                wanted.append((name, "new"))
                continue
            token_id = parse_token_id(self.store.read(name))
            if token_id is not None and node.name in self.new_tokens:
                retired.add(token_id)
                wanted.append((name, "renewed because you asked for it"))
                continue
            if token_id is None:
                self.report.error(
                    TOKEN_INVALID, f"{self.store.root}/{name} is not a bootstrap token", path=name
                )
            elif token_id in owners:
                self.report.error(
                    TOKEN_INVALID,
                    f"{self.store.root}/{name} has the same first half as {owners[token_id]}",
                    hint="remove the one whose node has not joined yet",
                    path=name,
                )
            else:
                owners[token_id] = name
                self.kept += 1
        source, taken = TokenSource(self.randomness), retired | set(owners)
        for name, reason in wanted:
            self.entries.append((name, source.make_token(taken).encode("ascii")))
            self.changes.append(Change(name, reason))

    def _plan_secretbox_key(self) -> None:
        name = spec.SECRETBOX_KEY
        if not self.store.exists(name):
            self.entries.append((name, make_secretbox_key(self.randomness)))
            self.changes.append(Change(name, "new"))
        elif is_secretbox_key(self.store.read(name)):
            self.kept += 1
        else:
            self.report.error(
                TOKEN_INVALID, f"{self.store.root}/{name} is not the base64 text of 32 bytes", path=name
            )


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether the certificate is inside its renewal window: 30 days, or a third of a shorter life."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now > end - min(RENEWAL_WINDOW, (end - start) / 3)


def _list_stale_nodes(cluster: Cluster, store: SecretStore) -> tuple[str, ...]:
    try:
        present = os.listdir(store.root / "nodes")
    except FileNotFoundError:
        return ()
    known = {node.name for node in cluster.nodes}
    return tuple(sorted(name for name in present if name not in known and not name.startswith(".")))
