"""What first boot, the approver and the add-ons put on which machine."""

from __future__ import annotations

from pathlib import Path

import yaml

from imagegen.content import Ref
from imagegen.model.cluster import Role
from imagegen.plan.components import csr_approver, first_boot
from imagegen.plan.items import ContainerImage, File, Item, Package, Phase, Unit, UnitState
from imagegen.plan.plan import Plan
from tests.plan.plans import QUICKSTART, make_plan, read_cluster, write_cluster

ALL_IN_ONE = ("{name: solo, roles: [etcd, master, worker], address: 10.240.0.10}",)


def items_of(plan: Plan, *roles: Role) -> dict[str, Item]:
    return {key: item for item in plan.role_plan(roles).items for _, key in [item.identity]}


def file_of(items: dict[str, Item], path: str) -> File:
    item = items[path]
    assert isinstance(item, File)
    return item


def text_of(item: File) -> str:
    return "".join(part if isinstance(part, str) else "QUJD" for part in item.content)


def test_only_masters_get_it(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    for role_plan in plan.role_plans:
        paths = {item.path for item in role_plan.items if isinstance(item, File)}
        ours = {
            path for path in paths if "first-boot" in path or "csr-" in path or "bootstrap-tokens" in path
        }
        assert bool(ours) == (Role.MASTER in role_plan.roles)


def test_tokens_of_every_kubelet_are_references_in_a_private_file(tmp_path: Path) -> None:
    items = items_of(make_plan(write_cluster(tmp_path)), Role.MASTER)
    tokens = file_of(items, first_boot.BOOTSTRAP_TOKENS)
    assert (tokens.phase, tokens.mode, tokens.owner) == (Phase.BOOT, "0600", "root")
    refs = [part for part in tokens.content if isinstance(part, Ref)]
    assert [ref.name for ref in refs] == ["nodes/worker-0/bootstrap-token", "nodes/worker-1/bootstrap-token"]
    assert not any(ref.public for ref in refs)
    text = "".join(part if isinstance(part, str) else "<token>" for part in tokens.content)
    assert text.splitlines()[1:] == ["worker-0 <token>", "worker-1 <token>"]


def test_baked_files_do_not_depend_on_the_nodes(tmp_path: Path) -> None:
    def baked(nodes: tuple[str, ...]) -> list[Item]:
        plan = make_plan(write_cluster(tmp_path, nodes))
        role_plan = plan.role_plan((Role.MASTER,))
        return [
            item
            for item in role_plan.items
            if item.phase is Phase.BAKE and "kube-proxy" not in item.identity[1]
        ]

    more = (*QUICKSTART, "{name: worker-2, roles: [worker], address: 10.240.0.22}")
    assert baked(QUICKSTART) == baked(more)


def test_cluster_info_holds_the_ca_and_no_credential(tmp_path: Path) -> None:
    items = items_of(make_plan(write_cluster(tmp_path)), Role.MASTER)
    item = file_of(items, f"{first_boot.MANIFESTS}/50-cluster-info.yaml")
    assert [part for part in item.content if isinstance(part, Ref)] == [
        Ref("pki/ca.crt", public=True, encoding="base64")
    ]
    config = yaml.safe_load(yaml.safe_load(text_of(item))["data"]["kubeconfig"])
    assert config["clusters"][0]["cluster"] == {
        "certificate-authority-data": "QUJD",
        "server": "https://10.240.0.11:6443",
    }
    assert config["users"] == []


def test_first_boot_does_not_hold_up_the_boot(tmp_path: Path) -> None:
    unit = items_of(make_plan(write_cluster(tmp_path)), Role.MASTER)[first_boot.UNIT]
    assert isinstance(unit, Unit)
    assert unit.state is UnitState.ENABLED
    assert unit.content is not None
    assert "WantedBy=kube-apiserver.service\n" in unit.content
    assert "multi-user.target" not in unit.content
    assert "Restart=on-failure\n" in unit.content
    assert "StartLimitIntervalSec=0\n" in unit.content
    assert "--token-lifetime 86400\n" in unit.content


def test_a_lifetime_of_its_own_reaches_the_service(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path, more="bootstrap: {token_lifetime: 90m}\n"))
    unit = items_of(plan, Role.MASTER)[first_boot.UNIT]
    assert isinstance(unit, Unit)
    assert "--token-lifetime 5400\n" in str(unit.content)


def test_the_policy_names_kubelets_and_reserves_what_is_not_theirs(tmp_path: Path) -> None:
    nodes = (
        *QUICKSTART,
        "{name: lb-0, roles: [lb], address: 10.240.0.30}",
        "{name: spare, roles: [base], address: 10.240.0.31}",
    )
    cluster = read_cluster(write_cluster(tmp_path, nodes, network="nameservers: [10.240.0.2, 9.9.9.9]"))
    assert csr_approver.render_policy(cluster).splitlines() == [
        "serving yes",
        "range 10.240.0.0/16",
        "reserve 10.32.0.0/16",
        "reserve 10.240.0.1",
        "reserve 10.240.0.2",
        "reserve 10.240.0.10",
        "reserve 10.240.0.11",
        "reserve 10.240.0.30",
        "reserve 10.240.0.31",
        "node worker-0 10.240.0.21",
        "node worker-1 dhcp",
    ]


def test_a_master_that_is_a_worker_may_ask_for_its_own_address(tmp_path: Path) -> None:
    cluster = read_cluster(write_cluster(tmp_path, ALL_IN_ONE, more="bootstrap: {approve_serving: false}\n"))
    lines = csr_approver.render_policy(cluster).splitlines()
    assert lines[0] == "serving no"
    assert "node solo 10.240.0.10" in lines


def test_the_approver_runs_without_privileges(tmp_path: Path) -> None:
    items = items_of(make_plan(write_cluster(tmp_path)), Role.MASTER)
    unit = items[csr_approver.UNIT]
    assert isinstance(unit, Unit)
    assert "User=csr-approver\n" in str(unit.content)
    policy = file_of(items, csr_approver.POLICY)
    assert (policy.phase, policy.mode, policy.group) == (Phase.BOOT, "0640", "csr-approver")
    assert {item.name for item in items.values() if isinstance(item, Package)} >= {
        "python3-cryptography",
        "python3-yaml",
    }


def test_add_ons_go_to_masters_and_their_images_to_workers(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path))
    master, worker = items_of(plan, Role.MASTER), items_of(plan, Role.WORKER)
    manifests = {path for path in master if path.startswith(first_boot.ADDONS + "/")}
    assert manifests == {f"{first_boot.ADDONS}/10-flannel.yaml", f"{first_boot.ADDONS}/20-coredns.yaml"}
    assert not any(path.startswith(first_boot.ADDONS) for path in worker)
    images = {item.reference for item in worker.values() if isinstance(item, ContainerImage)}
    wanted = set()
    for path in manifests:
        for body in yaml.safe_load_all(text_of(file_of(master, path))):
            if body["kind"] in {"Deployment", "DaemonSet"}:
                wanted |= {c["image"] for c in body["spec"]["template"]["spec"]["containers"]}
    assert wanted
    assert wanted <= images
    assert not any(isinstance(item, ContainerImage) for item in master.values())


def test_dns_serves_the_address_and_domain_of_the_cluster_file(tmp_path: Path) -> None:
    path = write_cluster(tmp_path, network="dns: 10.32.0.53, domain: corp.example")
    item = file_of(items_of(make_plan(path), Role.MASTER), f"{first_boot.ADDONS}/20-coredns.yaml")
    bodies = {body["kind"]: body for body in yaml.safe_load_all(text_of(item))}
    assert bodies["Service"]["spec"]["clusterIP"] == "10.32.0.53"
    assert "kubernetes corp.example in-addr.arpa" in bodies["ConfigMap"]["data"]["Corefile"]


def test_without_pod_addresses_there_is_no_dns(tmp_path: Path) -> None:
    items = items_of(make_plan(write_cluster(tmp_path, network="cni: loopback")), Role.MASTER)
    assert not any(path.startswith(first_boot.ADDONS + "/") for path in items)
