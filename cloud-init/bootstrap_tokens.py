"""Bootstrap tokens of first boot: reads the token file and brings each token into the cluster once, and
never again.

A record in ``kube-system`` remembers every token that any master ever brought in, with the expiry it got
then. So no reboot and no other master extends a token or revives one that expired or was revoked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kube_api import MANAGED_BY, ApiClient, ApiError, Object, log, read_config_map, write_config_map

SECRETS = "/api/v1/namespaces/kube-system/secrets"
RECORD_PREFIX = "imagegen-bootstrap-tokens-"
#: The cluster-info ConfigMap gets one signature a token and may be 1 MiB; beyond this, tokens are not for
#: signing.
MAX_SIGNING_TOKENS = 500

_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Token:
    """One node's bootstrap token."""

    id: str
    secret: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.id}.{self.secret}".encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """What the record says of one token: ``expiration`` is RFC 3339 or ``never``; ``applied``: its
    Secret was made.
    """

    id: str
    digest: str
    expiration: str
    applied: bool

    def __str__(self) -> str:
        return f"{self.id} {self.digest} {self.expiration} {'applied' if self.applied else 'pending'}"


#: What one ConfigMap of the record says: node → its tokens, oldest first.
Record = dict[str, tuple[Entry, ...]]
RecordChange = Callable[[Record], Record]


def parse_tokens(text: str) -> dict[str, Token]:
    """Lines ``NODE TOKEN``; raises ValueError with the line's number, never with the token."""
    tokens: dict[str, Token] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        match = _TOKEN.fullmatch(words[1]) if len(words) == 2 else None
        if match is None or _NODE_NAME.fullmatch(words[0]) is None or words[0] in tokens:
            raise ValueError(f"line {number}: wanted NODE TOKEN, each node once")
        tokens[words[0]] = Token(*match.groups())
    return tokens


def apply_tokens(
    api: ApiClient,
    tokens: Mapping[str, Token],
    lifetime: timedelta,
    now: datetime,
    groups: Sequence[str] = (),
) -> int:
    """Bring in every token that the cluster has never seen; returns how many Secrets were made.

    A lifetime of zero means no expiry; ``groups`` are those of every token beside that of its node. First the
    expiry is recorded, then the Secret is made, then that is recorded: a run that was cut off is finished by
    the next, with the same expiry. Raises ApiError and connection errors.
    """
    expiration = (now + lifetime).strftime("%Y-%m-%dT%H:%M:%SZ") if lifetime else "never"
    signing = len(tokens) <= MAX_SIGNING_TOKENS
    shards: dict[str, dict[str, Token]] = {}
    for node, token in tokens.items():
        shards.setdefault(shard_of(node), {})[node] = token
    return sum(
        _apply_shard(api, RECORD_PREFIX + shard, members, expiration, now, groups, signing=signing)
        for shard, members in sorted(shards.items())
    )


def shard_of(node: str) -> str:
    """Which sixteenth of the record a node belongs to: one ConfigMap could not hold 10,000 nodes."""
    return hashlib.sha256(node.encode()).hexdigest()[0]


def _apply_shard(
    api: ApiClient,
    name: str,
    tokens: Mapping[str, Token],
    expiration: str,
    now: datetime,
    groups: Sequence[str],
    *,
    signing: bool,
) -> int:
    def add_unknown(record: Record) -> Record:
        out = dict(record)
        for node, token in tokens.items():
            known = out.get(node, ())
            if all(entry.digest != token.digest for entry in known):
                out[node] = (*known, Entry(token.id, token.digest, expiration, applied=False))
        return out

    record = update_record(api, name, add_unknown)
    made: set[str] = set()
    count = 0
    for node, token in tokens.items():
        for entry in record[node]:
            if entry.digest == token.digest and not entry.applied:
                count += _make_secret(api, node, token, entry.expiration, now, groups, signing=signing)
                made.add(token.digest)

    def mark_applied(record: Record) -> Record:
        return {
            node: tuple(replace(entry, applied=entry.applied or entry.digest in made) for entry in entries)
            for node, entries in record.items()
        }

    if made:
        update_record(api, name, mark_applied)
    return count


def _make_secret(
    api: ApiClient,
    node: str,
    token: Token,
    expiration: str,
    now: datetime,
    groups: Sequence[str],
    *,
    signing: bool,
) -> int:
    if expiration != "never" and datetime.fromisoformat(expiration.replace("Z", "+00:00")) <= now:
        log("expired", node=node, expiration=expiration)
        return 0
    try:
        api.request("POST", SECRETS, token_secret(node, token, expiration, groups, signing=signing))
    except ApiError as error:
        if error.status != 409:
            raise
        # Another master was quicker, or this run continues one that was cut off.
        return 0
    return 1


def token_secret(
    node: str, token: Token, expiration: str, groups: Sequence[str] = (), *, signing: bool
) -> Object:
    """The Secret that the API server's bootstrap authenticator reads; its extra group carries the
    node's name.
    """
    data = {
        "token-id": token.id,
        "token-secret": token.secret,
        "description": f"TLS bootstrap of node {node}",
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": ",".join([f"system:bootstrappers:imagegen:{node}", *groups]),
    }
    if signing:
        data["usage-bootstrap-signing"] = "true"
    if expiration != "never":
        data["expiration"] = expiration
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": f"bootstrap-token-{token.id}", "labels": dict(MANAGED_BY)},
        "stringData": data,
    }


def update_record(api: ApiClient, name: str, change: RecordChange) -> Record:
    """Read the ConfigMap, change it, write it unless nothing changed; starts over when somebody
    else wrote first.
    """
    while True:
        config_map = read_config_map(api, name)
        before = _parse_record(config_map.get("data") or {})
        after = change(before)
        if after == before:
            return after
        config_map["data"] = {node: "\n".join(map(str, entries)) for node, entries in after.items()}
        if write_config_map(api, config_map):
            return after


def _parse_record(data: Mapping[str, str]) -> Record:
    record: Record = {}
    for node, text in data.items():
        entries = []
        for line in text.splitlines():
            words = line.split()
            if len(words) != 4:
                raise ValueError(f"the record of node {node} is damaged")
            entries.append(Entry(words[0], words[1], words[2], words[3] == "applied"))
        record[node] = tuple(entries)
    return record
