"""What container registries want besides plain HTTP: media types, and a token even from anonymous readers."""

from __future__ import annotations

import json
import re

from imagegen.fetch.failures import TransferError

#: without these a registry answers with a format of 2014
MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


def token_scope(url: str) -> str:
    """What one token opens: everything below ``https://HOST/v2/REPOSITORY``."""
    return re.split(r"/(?:manifests|blobs)/", url, maxsplit=1)[0]


def read_challenge(header: str) -> dict[str, str]:
    """The parameters of ``Bearer realm="…",service="…",scope="…"``; empty for other schemes."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "bearer":
        return {}
    found = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    return (
        {name: found[name] for name in ("realm", "service", "scope") if name in found}
        if "realm" in found
        else {}
    )


def read_token(text: str) -> str:
    """The token in the answer of a token service; raises TransferError."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
    if not isinstance(token, str) or not token.isprintable():
        raise TransferError("the registry's token service gave no token", permanent=True)
    return token
