"""The JSON Schema of the cluster file, for editors. It knows each key alone, ``imagegen check`` all."""

from __future__ import annotations

from typing import Any

from imagegen.model.document import ClusterFile


def cluster_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of version 1 of the cluster file, as plain data."""
    schema = ClusterFile.model_json_schema(mode="validation")
    _tidy(schema)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:imagegen:cluster:1",
        "title": "imagegen cluster file",
    }
    return head | {key: value for key, value in schema.items() if key != "title"}


def _tidy(schema: Any) -> None:
    """Defaults that depend on other keys are prose; free mappings take no keys beside their pattern."""
    if isinstance(schema, dict):
        if (
            "$ref" in schema
            or schema.get("default", ...) is None
            or "Default: " in str(schema.get("description"))
        ):
            schema.pop("default", None)
        if "patternProperties" in schema:
            schema["additionalProperties"] = False
        for value in schema.values():
            _tidy(value)
    elif isinstance(schema, list):
        for value in schema:
            _tidy(value)
