"""The administrator's login: the user's name and the public SSH keys."""

from __future__ import annotations

import base64
import binascii
import re

from imagegen.diagnostics import Severity, register_code
from imagegen.model.refusals import show
from imagegen.model.review import Review

BAD_USER = register_code(
    "IMG140",
    "the login name is not usable",
    "Login names begin with a lower case letter or underscore and have at most 32 lower case letters, "
    "digits, hyphens and underscores. Names that the system or a component of Kubernetes uses are "
    "taken.",
)
BAD_KEY = register_code(
    "IMG141",
    "an SSH key is not a usable public key",
    "Each entry is one line of an authorized_keys file: options (optional), type, base64 and a "
    "comment. RSA keys have at least 2048 bits; DSA keys are not accepted by OpenSSH any more.",
)
PRIVATE_KEY = register_code(
    "IMG142",
    "a private key was put into the cluster file",
    "access.ssh_authorized_keys takes public keys (the .pub file). A private key in a cluster file is "
    "readable for everyone who gets the file: consider it lost and make a new one.",
)
NO_KEY = register_code(
    "IMG143",
    "nobody can log in",
    "There are no SSH keys and never passwords, so nobody can log in to the nodes. That is fine where "
    "nodes are replaced and never repaired; otherwise add a public key to access.ssh_authorized_keys.",
)

#: users of the distributions and of the components; a login of that name would clash
RESERVED_USERS = frozenset(
    (
        *("root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy"),
        *("www-data", "backup", "list", "irc", "gnats", "nobody", "sshd", "messagebus", "adm", "shutdown"),
        *("halt", "operator", "ftp", "chrony", "ntp", "polkitd", "dbus", "tss", "_apt", "_chrony", "syslog"),
        *("etcd", "haproxy", "containerd", "docker", "kubelet", "kubernetes", "flannel", "csr-approver"),
    )
)
_RESERVED_PREFIXES = ("kube-", "systemd-", "etcd-", "imagegen")

_KEY_TYPES = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
#: fields of a public key after its type (RFC 4253, RFC 5656, RFC 8709, OpenSSH PROTOCOL.u2f)
_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}


def check_access(review: Review) -> None:
    access = review.cluster.access
    _check_user(review, access.user)
    seen: dict[str, int] = {}
    for number, key in enumerate(access.ssh_authorized_keys):
        path = f"access.ssh_authorized_keys[{number}]"
        if "PRIVATE KEY" in key:
            message = "wanted a public key, got a private key"
            review.error(
                PRIVATE_KEY,
                message,
                path,
                hint="use the .pub file, and replace this key: it is no secret now",
            )
            continue
        problem = public_key_problem(key)
        if problem:
            review.error(BAD_KEY, problem, path, hint="copy the one line of the .pub file")
        first = seen.setdefault(key, number)
        if first != number:
            also = [f"access.ssh_authorized_keys[{first}]"]
            review.error(BAD_KEY, "the key is given twice", path, also=also, hint="remove one")
    if not access.ssh_authorized_keys:
        at = "access.ssh_authorized_keys" if review.is_written("access.ssh_authorized_keys") else "access"
        hint = "add a public key to access.ssh_authorized_keys"
        review.add(Severity.NOTE, NO_KEY, "nobody can log in: there are no SSH keys", at, hint=hint)


def _check_user(review: Review, user: str) -> None:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        message = f"wanted a login name such as ops, got {show(user)}"
        review.error(
            BAD_USER, message, "access.user", hint="lower case letters, digits, hyphens, underscores"
        )
    elif user in RESERVED_USERS or user.startswith(_RESERVED_PREFIXES):
        review.error(
            BAD_USER, f"the login name {user} is taken by the system", "access.user", hint="for example ops"
        )


def public_key_problem(line: str) -> str:
    """Why ``line`` is not one line of an authorized_keys file, or nothing."""
    if not line.isprintable():
        return "wanted one line, got a text with line breaks or control characters"
    words = _split_options(line)
    kind = next((i for i, word in enumerate(words[:2]) if word in _KEY_TYPES), None)
    if kind is None:
        if "ssh-dss" in words[:2]:
            return "DSA keys are not accepted by OpenSSH any more"
        return f"wanted a public SSH key such as ssh-ed25519 AAAA… NAME, got {show(line[:40])}"
    if len(words) < kind + 2:
        return f"wanted a key after {words[kind]}, got nothing"
    try:
        raw = base64.b64decode(words[kind + 1], validate=True)
        fields = _read_fields(raw)
    except (binascii.Error, ValueError):
        return f"the {words[kind]} key is damaged: its base64 does not decode"
    if fields[0] != words[kind].encode():
        return f"wanted a key of type {words[kind]}, got {show(fields[0].decode('ascii', 'replace'))}"
    if len(fields) - 1 != _FIELDS.get(words[kind], 2):
        return f"the {words[kind]} key is damaged: it has the wrong number of parts"
    if words[kind] == "ssh-ed25519" and len(fields[1]) != 32:
        return "the ssh-ed25519 key is damaged: it has the wrong length"
    if words[kind] == "ssh-rsa" and int.from_bytes(fields[2], "big").bit_length() < 2048:
        return f"wanted an RSA key of 2048 bits or more, got {int.from_bytes(fields[2], 'big').bit_length()}"
    return ""


def _split_options(line: str) -> list[str]:
    """The words of ``line``, options first as one word; blanks in quotes do not separate (sshd(8))."""
    return re.findall(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+', line)


def _read_fields(raw: bytes) -> list[bytes]:
    fields = []
    at = 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "big")
        if at + 4 + length > len(raw) or len(raw) - at < 4:
            raise ValueError("truncated")
        fields.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    if not fields:
        raise ValueError("empty")
    return fields
