"""What gives a secret or another machine's identity away by its place, whatever it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """``pattern`` matches the end of a path; ``harmless`` is content that gives nothing away."""

    kind: str
    pattern: re.Pattern[str]
    harmless: tuple[bytes, ...] = (b"",)


def _place(kind: str, pattern: str, *harmless: bytes) -> Place:
    return Place(kind, re.compile(rf"(?:^|/)(?:{pattern})$"), (b"", *harmless))


#: systemd's word for "no id yet" (machine-id(5))
_NO_ID = b"uninitialized"

PLACES: tuple[Place, ...] = (
    _place("SSH host key", r"etc/ssh/ssh_host_\w+_key(?:\.pub)?"),
    _place("authorized SSH keys", r"\.ssh/authorized_keys2?|etc/ssh/authorized_keys(?:\.d)?/[^/]+"),
    _place("SSH private key", r"\.ssh/(?:id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?|identity)"),
    _place("machine id", r"etc/machine-id|var/lib/dbus/machine-id", _NO_ID),
    _place("random seed", r"var/lib/systemd/random-seed|var/lib/urandom/random-seed|loader/random-seed"),
    _place("credential secret", r"var/lib/systemd/credential\.secret"),
    _place("cloud-init state", r"var/lib/cloud/(?:instances?|data|sem|seed|handlers|scripts)/.+"),
    _place("cloud-init log", r"var/log/cloud-init(?:-output)?\.log"),
    _place(
        "shell history", r"\.(?:ba|z|k)?sh_history|\.history|\.(?:python|mysql|psql|lesshst|viminfo)_history"
    ),
    _place(
        "cloud credentials", r"\.aws/credentials|\.boto|\.config/gcloud/(?:credentials|access_tokens)\.db"
    ),
    _place("kubeconfig of a person", r"\.kube/config"),
    _place("container registry login", r"\.docker/config\.json|containers/auth\.json"),
    _place("password file", r"\.netrc|\.pgpass|\.my\.cnf|\.git-credentials"),
    _place("DHCP lease", r"var/lib/dhcpc?/[^/]+\.leases?"),
)
_SHADOW = re.compile(r"(?:^|/)etc/g?shadow-?$")
#: crypt(5): what no password can have as its hash
_LOCKED = re.compile(rb"[!*][^$]*\Z")


def find_by_place(path: str, content: bytes) -> Iterator[tuple[str, int]]:
    """Kind and line (0 for the whole file) of what the place of a file gives away; ``content`` may be cut."""
    for place in PLACES:
        if place.pattern.search(path) and content.strip() not in place.harmless:
            yield place.kind, 0
    if _SHADOW.search(path):
        for number, line in enumerate(content.splitlines(), 1):
            fields = line.split(b":")
            if len(fields) > 3 and not fields[1] and "gshadow" not in path:
                yield "account without a password", number
            elif len(fields) > 3 and fields[1] and not _LOCKED.match(fields[1]):
                yield "password hash", number
