"""Power cuts in the middle of a first boot: the machine converges, and nothing is there twice.

``IMAGEGEN_TEST_OUT=FOLDER`` names golden images that are there, beside their cluster file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagegen.lab.cluster import LabCluster, LabOptions, start_lab
from imagegen.lab.errors import LabError
from imagegen.lab.progress import Event
from imagegen.lab.watch import Watch
from imagegen.pki.resolve import resolve_content
from imagegen.pki.store import SecretStore
from imagegen.plan.items import File
from tests.plan.plans import make_plan
from tests.vm.labs import PATIENCE, find_mirror, list_versions, require_lab, run_imagegen, write_example

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.long]

NODE = "node-0"
#: a container's disk forgets nothing, a machine's does; but six boots of a machine in emulation take too
#: long for every run: ``IMAGEGEN_TEST_ENGINE=qemu`` asks for them
ENGINE = os.environ.get("IMAGEGEN_TEST_ENGINE", "nspawn")
#: what that engine changes on the node
CHANGED = {"/etc/containerd/config.toml", "/etc/kubernetes/kubelet.yaml"} if ENGINE == "nspawn" else set()


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    """An all-in-one machine after five power cuts, one in each of the next boots, and then left alone."""
    require_lab()
    if ENGINE == "nspawn" and shutil.which("systemd-nspawn") is None:
        pytest.skip("systemd-container is not installed")
    mirror = find_mirror()
    if ready := os.environ.get("IMAGEGEN_TEST_OUT"):
        cluster = Path(ready).parent / "cluster.yaml"
    else:
        cluster = write_example(tmp_path_factory.mktemp("power"), "all-in-one", list_versions(mirror)[0])
        run_imagegen(
            "build", str(cluster), "-o", str(cluster.parent / "out"), "--mirror", str(mirror), "--offline"
        )
    options = LabOptions(out=cluster.parent / "out", engine=ENGINE, fresh=True)
    try:
        lab = start_lab(cluster, options)
        for number, reached in enumerate(POINTS.values()):
            if number:
                lab.start_node(NODE)
            wait_for(lab, reached)
            lab.power_cut(NODE)
        lab.start_node(NODE)
        lab.wait_ready(PATIENCE)
        yield lab
    finally:
        run_imagegen("down", str(cluster), "--quiet", check=False)


def after(event: Event, seconds: float = 0.0) -> Callable[[Watch], bool]:
    """Whether the event of this start happened, so many seconds ago."""

    def reached(watch: Watch) -> bool:
        found = watch.nodes[NODE].times.get(event)
        machine = watch.lab.machines[NODE]
        return found is not None and time.time() - machine.started_at >= found + seconds

    return reached


#: in the order of a boot, so that each start gets further than the one before
POINTS: dict[str, Callable[[Watch], bool]] = {
    "cloud-init": after(Event.USERSPACE, 5),
    "etcd's first start": after(Event.ETCD),
    "first-boot bootstrap": after(Event.API, 1),
    "import of images": after(Event.API, 6),
    "the kubelet's bootstrap": after(Event.KUBELET, 1),
}


def wait_for(lab: LabCluster, reached: Callable[[Watch], bool]) -> None:
    watch, deadline = lab.watch(), time.monotonic() + PATIENCE
    while not reached(watch):
        assert time.monotonic() < deadline, watch.lab.machines[NODE].read_console()[-3000:]
        watch.look()
        assert not watch.nodes[NODE].trouble, watch.nodes[NODE].trouble
        time.sleep(0.2)


def run_as_root(lab: LabCluster, script: str) -> str:
    encoded = base64.b64encode(script.encode()).decode()
    return lab.ssh(NODE, f"echo {encoded} | base64 -d | sudo sh").stdout


def test_the_node_is_ready_and_there_once(cut: LabCluster) -> None:
    (node,) = json.loads(cut.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    assert node["metadata"]["name"] == NODE
    failed = run_as_root(cut, "systemctl list-units --failed --plain --no-legend")
    assert failed == ""


def test_etcd_has_one_member(cut: LabCluster) -> None:
    pki = "/etc/etcd/pki"
    text = run_as_root(
        cut,
        f"etcdctl --endpoints=https://127.0.0.1:2379 --cacert={pki}/ca.crt"
        f" --cert={pki}/healthcheck-client.crt --key={pki}/healthcheck-client.key"
        " member list --write-out=json",
    )
    (member,) = json.loads(text)["members"]
    assert member["name"] == NODE


def test_every_file_of_the_seed_is_whole(cut: LabCluster) -> None:
    """Every file that the plan has, by its sum; so there is one authority, too."""
    cluster = Path(cut.cluster.file)
    plan, store = make_plan(cluster), SecretStore(cluster.parent / "secrets")
    node = plan.node_plan(NODE)
    wanted = {
        item.path: hashlib.sha256(resolve_content(item.content, store)).hexdigest()
        for item in (*node.role_plan.items, *node.items)
        if isinstance(item, File)
    }
    text = run_as_root(cut, "sha256sum -- " + " ".join(shlex.quote(path) for path in sorted(wanted)))
    found = {path: digest for digest, path in (line.split("  ", 1) for line in text.splitlines())}
    assert {path for path in wanted if found.get(path) != wanted[path]} <= CHANGED


def test_the_kubelet_trusts_and_is_trusted_by_the_one_authority(cut: LabCluster) -> None:
    done = run_as_root(
        cut,
        "openssl verify -CAfile /etc/kubernetes/pki/ca.crt /var/lib/kubelet/pki/kubelet-client-current.pem",
    )
    assert done.strip().endswith(": OK")


def test_every_image_is_whole(cut: LabCluster) -> None:
    """The content of each image is what its name says."""
    text = run_as_root(cut, "ctr --namespace k8s.io images check")
    rows = text.splitlines()[1:]
    assert rows
    assert [row for row in rows if "complete" not in row] == []


def test_tokens_came_once(cut: LabCluster) -> None:
    arguments = ("get", "secrets", "-n", "kube-system", "--field-selector")
    secrets = cut.kubectl(*arguments, "type=bootstrap.kubernetes.io/token", "-o", "name").stdout.split()
    assert len(secrets) == 1


def test_the_audit_log_goes_on_behind_what_the_cut_left(cut: LabCluster) -> None:
    lines = run_as_root(cut, "tail -n 50 /var/log/kubernetes/audit.log").splitlines()
    assert json.loads(lines[-1])["kind"] == "Event"


def test_another_cut_when_all_is_done_changes_nothing(cut: LabCluster) -> None:
    before = run_as_root(cut, "cat /var/lib/cloud/instance/imagegen-settled; ls /var/lib/cloud/instances")
    assert before.startswith("settled")
    cut.power_cut(NODE)
    cut.start_node(NODE)
    try:
        cut.wait_ready(PATIENCE)
    except LabError:
        pytest.fail(cut.machines[NODE].read_console()[-3000:])
    assert run_as_root(cut, "ls /var/lib/cloud/instances") == before.split("\n", 1)[1]
    assert "happens again" not in run_as_root(
        cut, "journalctl -b --no-pager -u imagegen-settle-check.service"
    )
