"""Answers of a metadata server as on Compute Engine.

https://cloud.google.com/compute/docs/metadata/querying-metadata; what cloud-init asks for is in its
DataSourceGCE.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from imagegen.lab.networkplan import Metadata

_FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
_ROOT = "/computeMetadata/v1"

Answer = tuple[int, dict[str, str], bytes]


def answer_metadata(target: str, headers: Mapping[str, str], machine: Metadata | None) -> Answer:
    """Status, headers and body for a GET of ``target``; ``headers`` have lower-case names.

    A machine that is not known gets 404 at once: programs that look for a cloud then go on.
    """
    if machine is None:
        return _refuse(404, "no metadata for this machine")
    if headers.get("metadata-flavor") != "Google":
        return _refuse(403, "Missing Metadata-Flavor:Google header.")
    if "x-forwarded-for" in headers:
        return _refuse(403, "Metadata requests must not be forwarded.")
    parts = urlsplit(target)
    path = parts.path.rstrip("/")
    if path != _ROOT and not path.startswith(f"{_ROOT}/"):
        return _refuse(404, "unknown path")
    found: object = _describe(machine)
    for step in path.removeprefix(_ROOT).strip("/").split("/"):
        if step:
            if not isinstance(found, dict) or step not in found:
                return _refuse(404, "unknown path")
            found = found[step]
    if not isinstance(found, dict):
        return 200, {**_FLAVOR, "Content-Type": "application/text"}, str(found).encode()
    if parse_qs(parts.query).get("recursive", ["false"])[0].lower() == "true":
        return 200, {**_FLAVOR, "Content-Type": "application/json"}, json.dumps(found).encode()
    listing = "".join(f"{name}/\n" if isinstance(found[name], dict) else f"{name}\n" for name in found)
    return 200, {**_FLAVOR, "Content-Type": "application/text"}, listing.encode()


def _describe(machine: Metadata) -> dict[str, object]:
    attributes = {
        name: Path(path).read_text(encoding="utf-8", errors="surrogateescape")
        for name, path in machine.attributes
    }
    return {
        "instance": {
            "attributes": attributes,
            "hostname": machine.hostname,
            "id": machine.instance_id,
            "name": machine.hostname.partition(".")[0],
            "zone": "projects/0/zones/lab-a",
            "network-interfaces": {"0": {"ip": machine.address}},
        },
        "project": {"attributes": {}, "project-id": "lab", "numeric-project-id": "0"},
    }


def _refuse(status: int, reason: str) -> Answer:
    return status, {**_FLAVOR, "Content-Type": "text/plain"}, f"{reason}\n".encode()
