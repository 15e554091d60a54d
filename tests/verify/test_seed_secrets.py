"""Whose secrets are on whose seed: the whole store looked for in every seed of the ha example."""

from __future__ import annotations

import base64
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagegen.backends.render import render_cluster
from imagegen.diagnostics import Report
from imagegen.model.cluster import Role
from imagegen.pki.store import SecretStore, is_public
from imagegen.plan.plan import Plan
from imagegen.resources import find_resource
from imagegen.run import Runner
from imagegen.verify.scan import scan_image
from tests.plan.plans import make_plan


@pytest.fixture(scope="module", name="seeded")
def _seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, SecretStore, Path]:
    folder = tmp_path_factory.mktemp("seeded")
    shutil.copy(find_resource("examples", "ha", "cluster.yaml"), folder)
    plan, store = make_plan(folder / "cluster.yaml"), SecretStore(folder / "secrets")
    now = datetime.now(UTC)
    render_cluster(plan, store, folder / "out", Report(), now=now, epoch=int(now.timestamp()), with_iso=True)
    return plan, store, folder / "out/nodes"


def list_secrets(store: SecretStore) -> dict[str, bytes]:
    """The part of every private entry that cannot be there by chance."""
    return {name: read_core(store.read(name)) for name in store.names() if not is_public(name)}


def read_core(secret: bytes) -> bytes:
    if b"-----BEGIN" not in secret:
        return secret.strip()
    lines = [line for line in secret.splitlines() if line and not line.startswith(b"-----")]
    return max(lines, key=len)


def holds(data: bytes, core: bytes) -> bool:
    """Whether the secret is in there, plain or in base64 of whatever alignment."""
    forms = [core]
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + core)
        forms.append(encoded[4:-4])
    return any(form in data for form in forms)


def test_workers_and_balancers_hold_nothing_but_their_token(seeded: tuple[Plan, SecretStore, Path]) -> None:
    plan, store, nodes = seeded
    secrets = list_secrets(store)
    assert len(secrets) > 40
    for node in plan.cluster.nodes:
        data = (nodes / node.name / "seed.iso").read_bytes()
        held = {name for name, core in secrets.items() if holds(data, core)}
        if node.roles == (Role.WORKER,):
            assert held == {f"nodes/{node.name}/bootstrap-token"}
        elif node.roles == (Role.LB,):
            assert held == set()


def test_nobody_holds_the_keys_of_another_node(seeded: tuple[Plan, SecretStore, Path]) -> None:
    plan, store, nodes = seeded
    secrets = list_secrets(store)
    for node in plan.cluster.nodes:
        data = (nodes / node.name / "seed.iso").read_bytes()
        for name, core in secrets.items():
            owner = name.split("/")[1] if name.startswith("nodes/") else node.name
            # masters bring every node's token into the cluster
            if owner != node.name and not (Role.MASTER in node.roles and name.endswith("bootstrap-token")):
                assert not holds(data, core), f"{node.name} holds {name}"


def test_only_masters_hold_the_authority(seeded: tuple[Plan, SecretStore, Path]) -> None:
    plan, store, nodes = seeded
    authority = read_core(store.read("pki/ca.key"))
    holders = {
        n.name for n in plan.cluster.nodes if holds((nodes / n.name / "seed.iso").read_bytes(), authority)
    }
    assert holders == {n.name for n in plan.cluster.nodes_with(Role.MASTER)}
    others = [name for name in store.names() if name.endswith("ca.key") and name != "pki/ca.key"]
    for name in others:
        core = read_core(store.read(name))
        assert not any(holds((nodes / n.name / "seed.iso").read_bytes(), core) for n in plan.cluster.nodes)


def test_the_scan_agrees(seeded: tuple[Plan, SecretStore, Path]) -> None:
    plan, _, nodes = seeded
    for node in plan.cluster.nodes_with(Role.WORKER):
        result = scan_image(Runner(), nodes / node.name / "seed.iso")
        assert [finding.kind for finding in result.findings] == ["bootstrap token"]
