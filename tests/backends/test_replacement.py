"""A new machine in the place of an old one: what is to be done, in which order; the Secret of its token."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from imagegen.backends.replacement import check_replaceable, list_steps, make_token_secret
from imagegen.errors import UsageError
from imagegen.kubernetes.etcd import etcd_config
from imagegen.kubernetes.gates import load_gates
from imagegen.model.cluster import BootstrapMethod, Cluster, ImagePki
from tests.cloud_init.programs import load_program
from tests.pki.clusters import ha, quickstart

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
TOKEN = "abcdef.0123456789abcdef"


def list_commands(cluster: Cluster, name: str) -> list[str]:
    return [step.command for step in list_steps(cluster, cluster.node(name), f"out/nodes/{name}", TOKEN)]


def test_a_worker_is_forgotten_and_joins_with_a_new_token() -> None:
    commands = [command for command in list_commands(ha(), "worker-0") if command]
    assert [command.split(" --")[0] for command in commands] == [
        "kubectl drain worker-0",
        "kubectl delete node worker-0",
        "kubectl -n kube-system delete secret bootstrap-token-abcdef",
        "kubectl apply -f out/nodes/worker-0/bootstrap-token.yaml",
        "kubectl wait",
    ]
    assert not any(TOKEN.partition(".")[2] in command for command in commands)


def test_a_member_is_removed_before_it_is_announced_and_announced_before_it_starts() -> None:
    steps = list(list_steps(ha(), ha().node("etcd-1"), "out/nodes/etcd-1"))
    words = [step.command.rpartition(".key ")[2] for step in steps]
    assert words[1:4] == [
        "member list",
        "member remove ID",
        f"member add etcd-1 --peer-urls=https://{ha().node('etcd-1').address}:2380",
    ]
    assert steps[-1].what.startswith("start a new machine")
    assert all("kubectl" not in step.command for step in steps)


@pytest.mark.parametrize("name", ["master-0", "lb-0"])
def test_who_has_no_data_is_simply_started_again(name: str) -> None:
    assert list_commands(ha(), name) == ["", ""]


def test_with_a_token_file_nobody_is_told_a_token() -> None:
    cluster = quickstart()
    cluster = replace(cluster, bootstrap=replace(cluster.bootstrap, method=BootstrapMethod.TOKEN_FILE))
    assert not any(
        "secret" in command or "apply" in command for command in list_commands(cluster, "worker-0")
    )


def test_the_only_member_is_not_replaced() -> None:
    with pytest.raises(UsageError, match="the only member of etcd"):
        check_replaceable(quickstart(), quickstart().node("etcd-0"))
    check_replaceable(ha(), ha().node("etcd-0"))


def test_a_member_with_its_seed_in_its_image_is_not_replaced() -> None:
    cluster = ha()
    baked = replace(cluster, image=replace(cluster.image, pki=ImagePki.BAKED))
    with pytest.raises(UsageError, match="has its seed in its image"):
        check_replaceable(baked, baked.node("etcd-0"))


def test_only_the_new_machine_finds_an_etcd_that_exists() -> None:
    cluster = ha().rejoin("etcd-1")
    states = {
        node.name: etcd_config(cluster, load_gates(cluster.kubernetes.version), node)["initial-cluster-state"]
        for node in cluster.nodes
        if node.name.startswith("etcd")
    }
    assert states == {"etcd-0": "new", "etcd-1": "existing", "etcd-2": "new"}


def test_the_secret_is_the_one_that_first_boot_makes() -> None:
    """The program of the masters is the other author of such Secrets."""
    program = load_program("bootstrap_tokens.py")
    cluster = ha()
    made = make_token_secret(cluster, cluster.node("worker-0"), TOKEN, NOW)
    expiration = (NOW + cluster.bootstrap.token_lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
    wanted = program.token_secret("worker-0", program.Token(*TOKEN.split(".")), expiration, signing=True)
    wanted["metadata"]["namespace"] = "kube-system"
    assert made == wanted
