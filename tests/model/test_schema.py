"""The JSON Schema: a foreign validator takes every example with it and refuses what it should."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from imagegen.model.schema import cluster_schema
from tests.model.texts import BASE, edit, findings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*/cluster.yaml"))
CHECKER = [sys.executable, "-m", "check_jsonschema"]


@pytest.fixture(scope="module")
def schema_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "cluster.json"
    path.write_text(json.dumps(cluster_schema()))
    return path


def objects(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for key, value in schema.items():
            yield from objects(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value, path)


def test_no_mapping_takes_unknown_keys() -> None:
    found = dict(objects(cluster_schema()))
    assert len(found) > 10
    for path, schema in found.items():
        closed = schema.get("additionalProperties") is False or "propertyNames" in schema
        assert closed, path


def test_every_key_is_described() -> None:
    for path, schema in objects(cluster_schema()):
        for name, key in schema.get("properties", {}).items():
            assert "$ref" in key or key["description"].endswith((".", ")")), f"{path}/{name}"
            assert key["title"], f"{path}/{name}"


def test_defaults_are_spelt_as_in_the_file() -> None:
    """Every default that the schema shows can be written into a file and changes nothing."""
    definitions = cluster_schema()["$defs"]
    for section, name in (
        ("pki", "PkiSection"),
        ("bootstrap", "BootstrapSection"),
        ("image", "ImageSection"),
    ):
        keys = definitions[name]["properties"]
        body = {key: value["default"] for key, value in keys.items() if "default" in value}
        assert len(body) >= 3
        # JSON is YAML
        assert findings(edit(("access:\n", f"{section}: {json.dumps(body)}\naccess:\n"))) == []


@pytest.mark.judge
def test_the_schema_is_a_schema(schema_file: Path) -> None:
    subprocess.run([*CHECKER, "--check-metaschema", str(schema_file)], check=True, capture_output=True)


@pytest.mark.judge
def test_a_foreign_validator_takes_every_example(schema_file: Path) -> None:
    assert len(EXAMPLES) >= 3
    command = [*CHECKER, "--schemafile", str(schema_file), *map(str, EXAMPLES)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "edits",
    [
        ("name: demo", "name: De mo"),
        ("name: demo", "nmae: demo"),
        ("version: 1.36.4", "version: 1.36"),
        ("10.240.0.0/24", "10.240.0.0"),
        ("10.240.0.10}", "10.240.0.1000}"),
        ("[etcd]", "[etdc]"),
        ("[etcd]", "[]"),
        ("version: 1\n", "version: 2\n"),
        ("version: 1\n", "version: '1'\n"),
        ("access:\n", "pki: {lifetime: 24}\naccess:\n"),
        ("access:\n", "bootstrap: {approve_serving: 'true'}\naccess:\n"),
    ],
)
def test_it_refuses_what_check_refuses(edits: tuple[str, str]) -> None:
    validator = jsonschema.Draft202012Validator(cluster_schema())
    assert validator.is_valid(yaml.safe_load(BASE))
    text = edit(edits)
    assert not validator.is_valid(yaml.safe_load(text))
    assert any(f.severity.value == "error" for f in findings(text))


def test_the_base_of_the_tests_is_fine() -> None:
    assert findings(BASE) == []
