"""Applies manifests as ``kubectl apply --server-side --force-conflicts`` would, over one connection.

kubectl would read the API's whole description first, for every call; that is most of a first boot's time on
a slow machine. Asks the API only where objects of a kind live.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import yaml
from kube_api import SAFE_LOADER, ApiClient, ApiError, Object

#: Who owns the fields that are applied, in ``metadata.managedFields``.
MANAGER = "imagegen"


class ManifestError(Exception):
    """A manifest that cannot be applied now; the text says which object and why."""


class Applier:
    """Applies manifests through ``api``; what it learns about the API stays known until it is asked anew."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        #: ``apiVersion`` → kind → (name of the collection, whether it is in namespaces)
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    def apply(self, path: Path) -> int:
        """Apply a file, or all ``*.yaml`` of a folder in order of name; returns the number of objects.

        Raises ManifestError, and ApiError and connection errors of questions about the API itself.
        """
        paths = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        count = 0
        for source in paths:
            for manifest in read_manifests(source):
                self._apply_object(manifest, source.name)
                count += 1
        return count

    def _apply_object(self, manifest: Object, source: str) -> None:
        try:
            kind, name = str(manifest["kind"]), str(manifest["metadata"]["name"])
            namespace = manifest["metadata"].get("namespace")
            collection = self._find_collection(str(manifest["apiVersion"]), kind, namespace)
        except (KeyError, TypeError, AttributeError):
            raise ManifestError(f"{source}: an object without apiVersion, kind or name") from None
        if collection is None:
            raise ManifestError(f"{source}: the API has no {manifest['apiVersion']} {kind} (yet)")
        try:
            self._send(collection, name, manifest)
        except ApiError as error:
            raise ManifestError(f"{source}: {kind} {name}: {error}") from error

    def _send(self, collection: str, name: str, manifest: Object) -> None:
        path = f"{collection}/{quote(name, safe='')}"
        query = {"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"}
        try:
            self._api.request("PATCH", path, manifest, query, "application/apply-patch+yaml")
        except ApiError as error:
            if error.status != 415:
                raise
            # before Kubernetes 1.16 (KEP-555)
            self._create_or_merge(collection, path, manifest)

    def _create_or_merge(self, collection: str, path: str, manifest: Object) -> None:
        try:
            self._api.request("POST", collection, manifest)
        except ApiError as error:
            if error.status != 409:
                raise
            self._api.request("PATCH", path, manifest, None, "application/merge-patch+json")

    def _find_collection(self, version: str, kind: str, namespace: object) -> str | None:
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        if kind not in self._kinds.get(version, {}):
            self._kinds[version] = self._ask_kinds(root)
        found = self._kinds[version].get(kind)
        if found is None:
            return None
        plural, is_namespaced = found
        if not is_namespaced:
            return f"{root}/{plural}"
        return f"{root}/namespaces/{quote(str(namespace or 'default'), safe='')}/{plural}"

    def _ask_kinds(self, root: str) -> dict[str, tuple[str, bool]]:
        try:
            resources = self._api.request("GET", root).get("resources") or ()
        except ApiError as error:
            if error.status != 404:
                raise
            return {}
        return {
            str(entry["kind"]): (str(entry["name"]), bool(entry.get("namespaced")))
            for entry in resources
            if "/" not in str(entry.get("name"))
        }


def read_manifests(path: Path) -> list[Object]:
    """The objects of a YAML file, those in lists included; raises ManifestError."""
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=SAFE_LOADER))
        json.dumps(documents)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ManifestError(f"{path.name}: {error}") from None
    manifests: list[Object] = []
    for document in documents:
        if (
            isinstance(document, dict)
            and str(document.get("kind", "")).endswith("List")
            and "items" in document
        ):
            manifests += document["items"] or ()
        elif document is not None:
            manifests.append(document)
    return manifests
