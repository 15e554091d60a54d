"""What a secret looks like in plain bytes: keys, tokens, password hashes, credentials of clouds.

Every kind has literal marks that are searched first, and a pattern that must match around a mark: that is
fast enough for whole images and keeps words in programs and documentation apart from secrets.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imagegen.verify.derkeys import find_der_keys


@dataclass(frozen=True, slots=True)
class Match:
    """A secret at ``start`` to ``end`` of the bytes that were looked at."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """``pattern`` must match at a mark, or with ``reach`` anywhere from ``before`` bytes before it to
    ``reach`` bytes behind it; ``accept`` may refuse what matched.
    """

    kind: str
    marks: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    reach: int = 0
    before: int = 64
    accept: Callable[[re.Match[bytes]], bool] = lambda match: True
    text_only: bool = False


#: between the lines of a key: white space, and what JSON, YAML, shells and source code put there
_GAP = rb"(?:[ \t\r\n\"'`,;+#>|*]|\\[nrt\"\\/]){0,40}"
_PEM = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----"
    rb"(?:"
    + _GAP
    + rb"[A-Za-z-]{4,20}: [^\r\n\\]{1,200}){0,4}"
    + _GAP
    + rb"(?P<body>[A-Za-z0-9+/=\s\\\"',+#>|*]{24,})"
)
_BODY_NOISE = re.compile(rb"\\[nrt]|[^A-Za-z0-9+/]")
_CRYPT = rb"[./A-Za-z0-9]"
_DER_HEAD = b"0"
_SSH_HEAD = b"openssh-key-v1\0"


def _has_key_body(match: re.Match[bytes]) -> bool:
    """Whether a real key follows the header: 24 bytes that begin like one of the formats do."""
    body = match["body"].split(b"-----", 1)[0]
    letters = _BODY_NOISE.sub(b"", body)[:64]
    letters = letters[: len(letters) // 4 * 4]
    if len(letters) < 24:
        return False
    head = base64.b64decode(letters)
    if b"OPENSSH" in match[1]:
        return head.startswith(_SSH_HEAD)
    # a legacy encrypted key and an OpenPGP key start with any byte
    return b"ENCRYPTED" in match[0] or b"PGP" in match[1] or head.startswith(_DER_HEAD)


def _is_token_of_json(match: re.Match[bytes]) -> bool:
    try:
        header = json.loads(_decode_segment(match[1]))
        claims = json.loads(_decode_segment(match[2]))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header and isinstance(claims, dict)


def _decode_segment(segment: bytes) -> bytes:
    return base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))


def _is_long_base64(match: re.Match[bytes]) -> bool:
    try:
        return len(base64.b64decode(match["value"], validate=False)) >= 16
    except binascii.Error:
        return False


def _is_varied(match: re.Match[bytes]) -> bool:
    """Not a row of x or of zeros, as documentation writes it."""
    return len(set(match["value"])) >= 6


def _is_other_token(match: re.Match[bytes]) -> bool:
    """Bootstrap tokens have a name of their own."""
    return _is_varied(match) and re.fullmatch(_TOKEN, match["value"]) is None


def _is_password(match: re.Match[bytes]) -> bool:
    """Not a word that documentation has in its place, nor one of cloud-init's for "make one up"."""
    values = (value for name, value in match.groupdict().items() if value and name != "host")
    return all(value.strip(b"<>[]-_.*!").lower() not in _PLACEHOLDERS for value in values)


def _find(pattern: bytes, flags: int = 0) -> re.Pattern[bytes]:
    return re.compile(pattern, flags)


_ACCOUNT = rb"[a-z_][a-z0-9_-]{0,31}"
_WORD = rb"[^\s\"'{}$<>|,\[\]]{4,128}"
_PLACEHOLDERS = frozenset(
    b"pass passwd password pwd secret mypassword mypass yourpassword your_password userpass user_password "
    b"random none null true false string text hash changeme xxxx xxxxx xxxxxx xxxxxxxx".split()
)
_TOKEN = rb"(?<![A-Za-z0-9.])(?P<value>[a-z0-9]{6}\.[a-z0-9]{16})(?![A-Za-z0-9.])"

DETECTORS: tuple[Detector, ...] = (
    Detector(kind="private key", marks=(b"-----BEGIN ",), pattern=_PEM, accept=_has_key_body),
    Detector(
        kind="PuTTY private key",
        marks=(b"PuTTY-User-Key-File-",),
        pattern=_find(rb"PuTTY-User-Key-File-\d: \S.{0,8000}?Private-Lines: \d+\s+[A-Za-z0-9+/]{16}", re.S),
    ),
    Detector(
        kind="age identity",
        marks=(b"AGE-SECRET-KEY-",),
        pattern=_find(rb"AGE-SECRET-KEY-(?:PQ-)?1(?P<value>[0-9A-Z]{50,})"),
        accept=_is_varied,
    ),
    Detector(
        kind="key in a kubeconfig",
        marks=(b"client-key-data",),
        pattern=_find(rb"client-key-data[\"']?\s*:\s*[|>-]*\s*[\"']?(?P<value>[A-Za-z0-9+/]{24,}={0,2})"),
        accept=_is_long_base64,
    ),
    Detector(
        kind="bootstrap token secret",
        marks=(b"token-secret",),
        pattern=_find(
            rb"token-secret[\"']?\s*:\s*[\"']?(?P<value>[a-z0-9]{16}(?![A-Za-z0-9])|[A-Za-z0-9+/]{22}==)"
        ),
        accept=_is_varied,
    ),
    Detector(
        kind="bootstrap token",
        marks=(b"oken", b"TOKEN", b"ootstrap", b"kubeadm join"),
        pattern=_find(_TOKEN),
        reach=240,
        accept=_is_varied,
        text_only=True,
    ),
    Detector(
        kind="static credential of the API server",
        marks=(b"system:",),
        pattern=_find(
            rb"(?m)^\"?(?P<value>[^\s,\"]{8,}?)\"?,\"?[a-z][^\s,\"]*\"?,\"?[A-Za-z0-9._:-]+\"?(?:,\"?system:|\s*$)"
        ),
        reach=120,
        before=200,
        accept=_is_varied,
        text_only=True,
    ),
    Detector(
        kind="token in a kubeconfig",
        marks=(b"user:", b'"user"'),
        pattern=_find(rb"\"?user\"?:\s+\{?\s*\"?token\"?:\s*[\"']?(?P<value>[A-Za-z0-9._~+/=-]{16,})"),
        accept=_is_other_token,
        text_only=True,
    ),
    Detector(
        kind="private JSON web key",
        marks=(b'"kty"',),
        pattern=_find(rb"\"d\"\s*:\s*\"(?P<value>[A-Za-z0-9_-]{40,})\""),
        reach=3000,
        before=3000,
        accept=_is_varied,
        text_only=True,
    ),
    Detector(
        kind="encryption key of the API server",
        marks=(b"secretbox", b"aescbc", b"aesgcm"),
        pattern=_find(
            rb"(?:secretbox|aescbc|aesgcm)\W.{0,200}?secret[\"']?\s*:\s*[\"']?"
            rb"(?P<value>[A-Za-z0-9+/]{22}==|[A-Za-z0-9+/]{32}|[A-Za-z0-9+/]{43}=)(?![A-Za-z0-9+/=])",
            re.S,
        ),
        accept=_is_varied,
    ),
    Detector(
        kind="JSON web token",
        marks=(b"eyJ",),
        pattern=_find(rb"(eyJ[A-Za-z0-9_-]{8,4000})\.(eyJ[A-Za-z0-9_-]{8,16000})\.[A-Za-z0-9_-]{20,2000}"),
        accept=_is_token_of_json,
    ),
    Detector(
        kind="password hash",
        marks=(b"$6$", b"$5$"),
        pattern=_find(
            rb"\$(?:6\$(?:rounds=\d+\$)?" + _CRYPT + rb"{1,16}\$(?P<value>" + _CRYPT + rb"{86})"
            rb"|5\$(?:rounds=\d+\$)?" + _CRYPT + rb"{1,16}\$" + _CRYPT + rb"{43})(?!" + _CRYPT + rb")"
        ),
    ),
    Detector(
        kind="password hash",
        marks=(b"$1$", b"$apr1$"),
        pattern=_find(rb"\$(?:apr)?1\$" + _CRYPT + rb"{1,8}\$" + _CRYPT + rb"{22}(?!" + _CRYPT + rb")"),
    ),
    Detector(
        kind="password hash",
        marks=(b"$y$", b"$gy$", b"$7$"),
        pattern=_find(
            rb"\$(?:g?y\$"
            + _CRYPT
            + rb"{1,32}\$"
            + _CRYPT
            + rb"{1,86}|7\$"
            + _CRYPT
            + rb"{11,97})\$"
            + _CRYPT
            + rb"{43}(?!"
            + _CRYPT
            + rb")"
        ),
    ),
    Detector(
        kind="password hash",
        marks=(b"$2a$", b"$2b$", b"$2y$", b"$2x$"),
        pattern=_find(rb"\$2[abxy]\$\d\d\$(?P<value>" + _CRYPT + rb"{53})(?!" + _CRYPT + rb")"),
    ),
    Detector(
        kind="password hash",
        marks=(b"$argon2",),
        pattern=_find(
            rb"\$argon2(?:id|i|d)\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]{8,}\$[A-Za-z0-9+/]{16,}"
        ),
    ),
    Detector(
        kind="password in cloud-init data",
        marks=(b"plain_text_passwd",),
        pattern=_find(rb"plain_text_passwd[\"']?\s*:[ \t]*[\"']?(?P<value>[^\s\"'{}$<]{4,})"),
        text_only=True,
    ),
    Detector(
        kind="password in cloud-init data",
        marks=(b"chpasswd",),
        pattern=_find(
            rb"chpasswd[\"']?[ \t]*:[^#]{0,200}?(?:list[\"']?[ \t]*:[ \t]*[|>]?-?[^:#]{0,60}?"
            + _ACCOUNT
            + rb":"
            rb"|password[\"']?[ \t]*:[ \t]*)[\"']?(?P<value>" + _WORD + rb")"
            rb"|(?:echo|printf)[ \t]+(?:-\w[ \t]+)?[\"']?"
            + _ACCOUNT
            + rb":(?P<piped>"
            + _WORD
            + rb")[^\n|]{0,20}"
            rb"\|[ \t]*(?:sudo[ \t]+)?(?:/usr)?(?:/sbin/)?chpasswd",
        ),
        reach=600,
        before=160,
        accept=_is_password,
        text_only=True,
    ),
    Detector(
        kind="password in cloud-init data",
        marks=(b"#cloud-config",),
        pattern=_find(
            rb"#cloud-config\b.{0,60000}?^password:[ \t]*[\"']?(?P<value>" + _WORD + rb")", re.S | re.M
        ),
        accept=_is_password,
        text_only=True,
    ),
    Detector(
        kind="password of a wireless network",
        marks=(b"psk=", b"access-points"),
        pattern=_find(
            rb"(?<![A-Za-z0-9_-])(?:psk=(?:\"(?P<value>[^\"\r\n$<]{8,63})\"|(?P<key>[0-9A-Fa-f]{64})(?![0-9A-Fa-f])"
            rb"|(?P<bare>[^\s\"'$<{]{8,63})[ \t]*$)"
            rb"|access-points[\"']?:.{0,400}?password[\"']?:[ \t]*[\"']?"
            rb"(?P<netplan>[^\s\"'{}$<][^\r\n\"'{}$<]{6,62}))",
            re.S | re.M,
        ),
        accept=_is_password,
        text_only=True,
    ),
    Detector(
        kind="password in a URL",
        marks=(b"://",),
        pattern=_find(
            rb"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,14}://[A-Za-z0-9._~%+-]{0,64}"
            rb":(?P<value>[^\s/@:\"'<>{}$()\[\]*`\\|,;?#&]{4,128})@(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])"
        ),
        reach=300,
        before=18,
        accept=_is_password,
        text_only=True,
    ),
    Detector(
        kind="AWS access key",
        marks=(b"AKIA", b"ASIA"),
        pattern=_find(rb"(?<![A-Z0-9])A(?:KI|SI)A(?P<value>[A-Z2-7]{16})(?![A-Za-z0-9+/])"),
        accept=_is_varied,
    ),
    Detector(
        kind="AWS secret key",
        marks=(b"aws_secret_access_key", b"AWS_SECRET_ACCESS_KEY", b"SecretAccessKey"),
        pattern=_find(
            rb"(?i:aws_secret_access_key|SecretAccessKey)[\"']?\s*[:=]\s*[\"']?(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
        accept=_is_varied,
    ),
    Detector(
        kind="Google API key or token",
        marks=(b"AIza", b"ya29."),
        pattern=_find(rb"AIza(?P<value>[0-9A-Za-z_-]{35})(?![0-9A-Za-z_-])|ya29\.[0-9A-Za-z_-]{40,}"),
    ),
    Detector(
        kind="GitHub token",
        marks=(b"ghp_", b"gho_", b"ghs_", b"github_pat_"),
        pattern=_find(rb"gh[pos]_[A-Za-z0-9]{36}(?![A-Za-z0-9])|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    ),
    Detector(
        kind="Slack or GitLab token",
        marks=(b"xoxb-", b"xoxp-", b"xoxa-", b"glpat-"),
        pattern=_find(
            rb"xox[abp]-(?P<value>\d{8,}-[A-Za-z0-9-]{20,})|glpat-[A-Za-z0-9_-]{20,}(?![A-Za-z0-9_-])"
        ),
    ),
    Detector(
        kind="WireGuard private key",
        marks=(b"PrivateKey",),
        pattern=_find(rb"PrivateKey\s*=\s*(?P<value>[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)"),
        text_only=True,
    ),
)


def is_text(data: bytes) -> bool:
    """Whether bytes are text in ASCII or a superset of it: no NUL and few control characters at the start."""
    return b"\0" not in data[:65536]


def find_secrets(data: bytes) -> list[Match]:
    """Every secret that lies plainly in ``data``, by place; a secret inside a secret counts once."""
    text = is_text(data)
    if text and len(data) < 64 and re.fullmatch(_TOKEN, data.strip()):
        return [Match(0, len(data), "bootstrap token")]
    found = [Match(start, end, kind) for start, end, kind in find_der_keys(data)]
    for detector in DETECTORS:
        if text or not detector.text_only:
            found += _run(detector, data)
    found.sort(key=lambda match: (match.start, -match.end))
    result: list[Match] = []
    for match in found:
        if not result or match.start >= result[-1].end:
            result.append(match)
    return result


def _run(detector: Detector, data: bytes) -> Iterator[Match]:
    for mark in detector.marks:
        at = data.find(mark)
        while at >= 0:
            if detector.reach:
                match = detector.pattern.search(data, max(0, at - detector.before), at + detector.reach)
            else:
                match = detector.pattern.match(data, at)
            if match is not None and detector.accept(match):
                yield Match(match.start(), match.end(), detector.kind)
                at = data.find(mark, max(match.end(), at + 1))
            else:
                at = data.find(mark, at + 1)
