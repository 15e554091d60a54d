"""Secrets of every kind, made up for the tests, in every wrapping; and what only looks like one."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import tarfile
import textwrap
import zipfile
import zlib
from dataclasses import dataclass

import zstandard
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)


@dataclass(frozen=True)
class Plant:
    """``kind`` is what must be found in the file, ``wrapped`` the layers that it is found in."""

    path: str
    body: bytes
    kind: str
    wrapped: tuple[str, ...] = ()


def _b64(data: bytes) -> bytes:
    return base64.b64encode(data)


def _fold(data: bytes, width: int, indent: str = "") -> bytes:
    return "\n".join(
        textwrap.wrap(data.decode(), width, initial_indent=indent, subsequent_indent=indent)
    ).encode()


def _tar(name: str, body: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(body)
        archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def _zip(name: str, body: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, body)
    return buffer.getvalue()


def _cpio(name: str, body: bytes) -> bytes:
    out = b""
    for number, (entry, content) in enumerate([(name, body), ("TRAILER!!!", b"")]):
        mode = 0o100644 if content else 0
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(entry) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + entry.encode() + b"\0"
        out += b"\0" * (-len(out) % 4)
        out += content
        out += b"\0" * (-len(out) % 4)
    return out


def _jwt() -> bytes:
    claims = {"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:kube-system:default"}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "kid": "k"}, claims)]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in [*parts, bytes(range(64))])


EC = ec.generate_private_key(ec.SECP256R1())
EC_PEM = EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
EC_DER = EC.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
P521_PEM = ec.generate_private_key(ec.SECP521R1()).private_bytes(
    Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
)
SEC1_DER = EC.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
RSA = rsa.generate_private_key(65537, 2048)
RSA_PEM = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
RSA_DER = RSA.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
ED = ed25519.Ed25519PrivateKey.generate()
ED_DER = ED.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
SSH_KEY = ED.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
LOCKED_PEM = EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x" * 12))
LOCKED_DER = EC.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x" * 12))
STORE = pkcs12.serialize_key_and_certificates(b"k", EC, None, None, BestAvailableEncryption(b"x" * 12))
PUBLIC_PEM = EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PUTTY = (
    b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: ops\nPublic-Lines: 1\n"
    b"AAAAC3NzaC1lZDI1NTE5AAAA\nPrivate-Lines: 1\nAAAAIGJ1aWxkIGtleSBvZiBhIHRlc3Q=\nPrivate-MAC: 0\n"
)
TOKEN = b"07401b.f395accd246ae52d"
SHA512 = (
    b"$6$saltsalt$"
    + b"qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
)
YESCRYPT = b"$y$j9T$F5Jx5fExrKuPp53xLKQ..1$tnSYvahCwPBHKZUspmcxMfb0.WiB9W.zEaKlOBL35rC"
SHADOW = b"root:*:20000:0:99999:7:::\nops:%s:20000:0:99999:7:::\n"
AWS = b"[default]\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYzX94kGwPq1\n"
KUBECONFIG = b"users:\n- name: admin\n  user:\n    client-key-data: %s\n" % _b64(EC_PEM)


def _ar(*members: tuple[str, bytes]) -> bytes:
    """A Debian package's outer archive (deb(5))."""
    out = b"!<arch>\n"
    for name, body in members:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode() + body
        out += b"\n" * (len(body) % 2)
    return out


def _jwk() -> bytes:
    numbers = EC.private_numbers()
    point = numbers.public_numbers
    values = {"x": point.x, "y": point.y, "d": numbers.private_value}
    words = {name: base64.urlsafe_b64encode(value.to_bytes(32, "big")) for name, value in values.items()}
    key = {name: word.decode().rstrip("=") for name, word in words.items()}
    return json.dumps({"kty": "EC", "crv": "P-256", **key}).encode()


PLANTS = (
    Plant(
        "/srv/package.deb",
        _ar(("debian-binary", b"2.0\n"), ("data.tar.xz", lzma.compress(_tar("./etc/key.pem", EC_PEM)))),
        "private key",
        ("ar", "xz", "tar"),
    ),
    Plant("/srv/der.hex", EC_DER.hex().encode(), "PKCS#8 private key", ("hexadecimal",)),
    Plant("/srv/colons", EC_DER.hex(":").encode(), "PKCS#8 private key", ("hexadecimal",)),
    Plant("/srv/jwk.json", _jwk(), "private JSON web key"),
    Plant(
        "/srv/token.csv",
        b'31ada4fdadec460c809a9e56ceb75269,kubelet-bootstrap,10001,"system:bootstrappers"\n',
        "static credential of the API server",
    ),
    Plant("/srv/basic.csv", b"Sup3rSecretPw,admin,1,system:masters\n", "static credential of the API server"),
    Plant(
        "/srv/admin.yaml",
        b"users:\n- name: a\n  user:\n    token: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b\n",
        "token in a kubeconfig",
    ),
    Plant("/srv/slack", b"xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx", "Slack or GitLab token"),
    Plant("/srv/gitlab", b"x glpat-AbCdEf1234567890_xyz y", "Slack or GitLab token"),
    Plant("/etc/ssl/private/ssl-cert-snakeoil.key", RSA_PEM, "private key"),
    Plant("/srv/ec.pem", b"text before\n" + EC_PEM, "private key"),
    Plant("/srv/p521.pem", P521_PEM, "private key"),
    Plant("/srv/ssh", SSH_KEY, "private key"),
    Plant("/srv/locked.pem", LOCKED_PEM, "private key"),
    Plant("/srv/key.ppk", PUTTY, "PuTTY private key"),
    Plant("/usr/bin/program", b"\x7fELF" + bytes(999) + RSA_DER + bytes(99), "PKCS#1 private key"),
    Plant("/srv/pkcs8.bin", bytes(13) + EC_DER, "PKCS#8 private key"),
    Plant("/srv/ed25519.der", ED_DER, "PKCS#8 private key"),
    Plant("/srv/sec1.der", SEC1_DER, "SEC 1 private key"),
    Plant("/srv/locked.der", LOCKED_DER, "encrypted PKCS#8 private key"),
    Plant("/srv/store.p12", STORE, "PKCS#12 key store"),
    Plant("/srv/kubeconfig", KUBECONFIG, "key in a kubeconfig"),
    Plant(
        "/srv/kubeconfig.gz.b64",
        _fold(_b64(gzip.compress(KUBECONFIG)), 76),
        "key in a kubeconfig",
        ("base64", "gzip"),
    ),
    Plant("/srv/once.json", json.dumps({"data": _b64(EC_PEM).decode()}).encode(), "private key", ("base64",)),
    Plant(
        "/srv/twice.yaml",
        b"key: |\n" + _fold(_b64(_b64(EC_PEM)), 64, "  "),
        "private key",
        ("base64", "base64"),
    ),
    Plant("/srv/quoted.json", json.dumps({"key": EC_PEM.decode()}).encode(), "private key"),
    Plant(
        "/srv/lines.json",
        json.dumps({"key": _fold(_b64(EC_PEM), 60).decode()}).encode(),
        "private key",
        ("escaped", "base64"),
    ),
    Plant("/srv/der.b64", b"blob=" + _b64(ED_DER), "PKCS#8 private key", ("base64",)),
    Plant(
        "/srv/in-program", bytes(50) + b"\0" + _b64(b"xy" + EC_PEM) + b"\0" * 9, "private key", ("base64",)
    ),
    Plant("/srv/hex", b"key " + EC_PEM.hex().encode(), "private key", ("hexadecimal",)),
    Plant("/srv/windows.txt", ("\ufeff" + EC_PEM.decode()).encode("utf-16-le"), "private key", ("utf-16",)),
    Plant("/srv/wide.txt", EC_PEM.decode().encode("utf-32"), "private key", ("utf-32",)),
    Plant("/srv/wide-be.txt", EC_PEM.decode().encode("utf-32-be"), "private key", ("utf-32",)),
    Plant("/srv/narrow.b64", _fold(_b64(EC_DER), 12), "PKCS#8 private key", ("base64",)),
    Plant("/srv/k.b32", _fold(base64.b32encode(EC_PEM), 64), "private key", ("base32",)),
    Plant("/srv/k.lzma", lzma.compress(EC_PEM, lzma.FORMAT_ALONE), "private key", ("lzma",)),
    Plant("/srv/k.zlib", zlib.compress(EC_PEM), "private key", ("zlib",)),
    Plant("/srv/zlib.b64", _b64(zlib.compress(EC_PEM)), "private key", ("base64", "zlib")),
    Plant(
        "/srv/wpa.conf",
        b'network={\n  ssid="x"\n  psk="plenty of salt"\n}\n',
        "password of a wireless network",
    ),
    Plant(
        "/srv/netplan.yaml",
        b"wifis:\n  wlan0:\n    access-points:\n      home:\n        password: plentyofsalt\n",
        "password of a wireless network",
    ),
    Plant("/srv/apt.conf", b"deb https://ops:Tr0ub4dor@repo.corp.test/debian x main\n", "password in a URL"),
    Plant("/srv/redis", b"url = redis://:Tr0ub4dor@10.0.0.1:6379/0\n", "password in a URL"),
    Plant(
        "/srv/chpasswd.yaml",
        b"#cloud-config\nchpasswd:\n  expire: false\n  list: |\n    root:Tr0ub4dor\n",
        "password in cloud-init data",
    ),
    Plant(
        "/srv/chpasswd-users.yaml",
        b"#cloud-config\nchpasswd:\n  users:\n  - {name: root, password: Tr0ub4dor, type: text}\n",
        "password in cloud-init data",
    ),
    Plant("/srv/setup.sh", b"#!/bin/sh\necho root:Tr0ub4dor | chpasswd\n", "password in cloud-init data"),
    Plant(
        "/srv/top", b"#cloud-config\nssh_pwauth: true\npassword: Tr0ub4dor\n", "password in cloud-init data"
    ),
    Plant("/srv/k.gz", gzip.compress(EC_PEM), "private key", ("gzip",)),
    Plant("/srv/k.xz", lzma.compress(EC_PEM), "private key", ("xz",)),
    Plant("/srv/k.bz2", bz2.compress(EC_PEM), "private key", ("bzip2",)),
    Plant("/srv/k.zst", zstandard.compress(EC_PEM), "private key", ("zstd",)),
    Plant("/srv/k.tar.gz", gzip.compress(_tar("a/k", EC_PEM)), "private key", ("gzip", "tar")),
    Plant("/srv/k.zip", _zip("a/k", SSH_KEY), "private key", ("zip",)),
    Plant(
        "/boot/initrd.img",
        _cpio("kernel/x86", b"microcode") + bytes(512) + zstandard.compress(_cpio("etc/k", EC_PEM)),
        "private key",
        ("cpio", "zstd", "cpio"),
    ),
    Plant("/etc/kubernetes/bootstrap.kubeconfig", b"user: {token: %s}\n" % TOKEN, "bootstrap token"),
    Plant("/srv/token", TOKEN + b"\n", "bootstrap token"),
    Plant("/srv/secret.yaml", b"stringData:\n  token-secret: f395accd246ae52d\n", "bootstrap token secret"),
    Plant("/srv/sa.token", _jwt(), "JSON web token"),
    Plant(
        "/srv/encryption.yaml",
        b"- secretbox:\n    keys:\n    - name: key1\n      secret: %s\n" % _b64(bytes(range(32))),
        "encryption key of the API server",
    ),
    Plant("/etc/shadow", SHADOW % YESCRYPT, "password hash"),
    Plant("/srv/preseed", b"d-i passwd/root-password-crypted password " + SHA512, "password hash"),
    Plant("/var/backups/etc/shadow", SHADOW % b"", "account without a password"),
    Plant(
        "/srv/user-data",
        b"#cloud-config\nusers:\n- name: x\n  plain_text_passwd: hunter22\n",
        "password in cloud-init data",
    ),
    Plant("/etc/ssh/ssh_host_ed25519_key.pub", b"ssh-ed25519 AAAA host\n", "SSH host key"),
    Plant("/root/.ssh/authorized_keys", b"ssh-ed25519 AAAA build\n", "authorized SSH keys"),
    Plant("/etc/machine-id", b"0123456789abcdef0123456789abcdef\n", "machine id"),
    Plant("/var/lib/systemd/random-seed", bytes(range(1, 200)), "random seed"),
    Plant("/var/lib/cloud/data/instance-id", b"iid-1\n", "cloud-init state"),
    Plant("/root/.bash_history", b"ls\n", "shell history"),
    Plant("/srv/aws.ini", AWS, "AWS secret key"),
    Plant("/srv/google", b"key=AIzaSyA1bC2dE3fG4hI5jK6lM7nO8pQ9rS0tU1v\n", "Google API key or token"),
)

#: nothing of this is a secret
DECOYS = {
    "/etc/machine-id": b"",
    "/etc/shadow": SHADOW % b"!*",
    "/etc/ssl/certs/public.pem": PUBLIC_PEM,
    "/etc/ssh/sshd_config": b"HostKey /etc/ssh/ssh_host_ed25519_key\n",
    "/usr/bin/program": b"\x7fELF\0-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----\0$6$\0" + bytes(64),
    "/usr/share/doc/manual": b"The key starts with -----BEGIN RSA PRIVATE KEY----- and then text.\n"
    b"client-key-data: BASE64\ntoken: abcdef.0123456789abcdeg0\ntoken-secret: xxxxxxxxxxxxxxxx\n",
    "/usr/share/sums": b"".join(
        b"%064x  usr/share/doc/some/File%d\n" % (7**number, number) for number in range(20, 70)
    ),
    "/usr/share/oid": bytes.fromhex("06092a864886f70d010101") + bytes(32),
    "/usr/share/damaged.gz": b"\x1f\x8b\x08" + bytes(40),
    "/usr/share/urls": b"https://user:password@host/ http://a:80/x@y ftp://u:${PASS}@h git+ssh://git@host:22/x\n",
    "/usr/share/words": b"".join(b"abcdefgh%s\n" % bytes([65 + number]) for number in range(20)),
    "/usr/share/constants": b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ\n",
    "/usr/share/wpa": b"psk=$PSK\nwpa-psk=\nkeyword_psk=something-else\n",
    "/usr/share/power": b"x^2 + y^2 = 1\n]\0\0 is no lzma\n",
    "/usr/lib/set_passwords.py": b"#cloud-config\nchpasswd:\n  users:\n  - {name: a, type: RANDOM}\n",
    "/var/lib/dpkg/info": b"libfoo1.0123456789abcdef token\n",
}
