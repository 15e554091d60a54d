"""Lowering hand-made plans: what lands in user-data, when, and for whom."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from imagegen.backends.cloudinit import CloudInit, Seed
from imagegen.backends.material import MisplacedSecretError
from imagegen.content import Ref
from imagegen.model.cluster import Cluster, ImageMode, OperatingSystem
from imagegen.pki.store import StoreError
from imagegen.plan.components.first_boot import BOOTSTRAP_TOKENS
from imagegen.plan.items import (
    Binary,
    Directory,
    Group,
    Item,
    KernelModule,
    Login,
    Package,
    Symlink,
    Sysctl,
    Unit,
    UnitState,
    User,
)
from tests.backends.nodeplans import (
    BAKE,
    BOOT,
    ORIGIN,
    FakeStore,
    make_cluster,
    make_file,
    make_node_plan,
)

LOGIN = Login(
    phase=BOOT,
    origin=ORIGIN,
    name="ops",
    ssh_authorized_keys=("ssh-ed25519 AAAA x",),
    sudo="ALL=(ALL) NOPASSWD:ALL",
)
ETCD = (
    Group(phase=BAKE, origin=ORIGIN, name="etcd"),
    User(phase=BAKE, origin=ORIGIN, name="etcd", group="etcd", home="/var/lib/etcd"),
)
UNIT = Unit(phase=BAKE, origin=ORIGIN, name="etcd.service", content="[Unit]\nDescription=x\n")


def lower(
    shared: Sequence[Item] = (),
    own: Sequence[Item] = (),
    *,
    node: str = "worker-0",
    cluster: Cluster | None = None,
    store: FakeStore | None = None,
) -> Seed:
    cluster = cluster or make_cluster()
    return CloudInit(cluster, store or FakeStore()).lower_node(make_node_plan(cluster, node, shared, own))


def read_user_data(seed: Seed) -> dict[str, Any]:
    assert seed.user_data.startswith(b"#cloud-config\n")
    document = yaml.safe_load(seed.user_data)
    assert isinstance(document, dict)
    return document


def entries(seed: Seed) -> dict[str, dict[str, Any]]:
    return {entry["path"]: entry for entry in read_user_data(seed).get("write_files", [])}


STOCK = make_cluster(mode=ImageMode.STOCK)


class TestGolden:
    def test_only_boot_items_are_in_the_seed(self) -> None:
        seed = lower(
            [
                *ETCD,
                UNIT,
                LOGIN,
                Package(phase=BAKE, origin=ORIGIN, name="chrony"),
                Sysctl(phase=BAKE, origin=ORIGIN, key="a.b", value="1"),
                KernelModule(phase=BAKE, origin=ORIGIN, name="overlay"),
                Directory(phase=BAKE, origin=ORIGIN, path="/srv"),
                make_file("/baked", "b", phase=BAKE),
                make_file("/boot-file", "x"),
            ],
            [make_file("/own", "y")],
        )
        document = read_user_data(seed)
        assert set(entries(seed)) == {"/boot-file", "/own"}
        assert [user["name"] for user in document["users"]] == ["ops"]
        assert {"packages", "groups", "runcmd", "bootcmd", "apt"}.isdisjoint(document)
        assert document["package_update"] is document["package_upgrade"] is False

    def test_owners_of_the_image_are_known_early_and_others_late(self) -> None:
        seed = lower(
            [
                *ETCD,
                LOGIN,
                Package(phase=BAKE, origin=ORIGIN, name="haproxy"),
                make_file("/etcd", "x", owner="etcd", group="etcd"),
                make_file("/haproxy", "x", owner="root", group="haproxy"),
                make_file("/home/ops/x", "x", owner="ops", group="ops"),
            ]
        )
        files = entries(seed)
        assert "defer" not in files["/etcd"]
        assert "defer" not in files["/haproxy"]
        assert files["/home/ops/x"]["defer"] is True

    def test_boot_settings_come_after_those_of_the_image(self) -> None:
        seed = lower(
            [
                Sysctl(phase=BOOT, origin=ORIGIN, key="net.ipv4.ip_forward", value="1"),
                KernelModule(phase=BOOT, origin=ORIGIN, name="wireguard"),
            ]
        )
        files = entries(seed)
        assert files["/etc/sysctl.d/91-imagegen-node.conf"]["content"] == "net.ipv4.ip_forward = 1\n"
        assert files["/etc/modules-load.d/91-imagegen-node.conf"]["content"] == "wireguard\n"


class TestLogin:
    def test_has_keys_and_no_password(self) -> None:
        document = read_user_data(lower([LOGIN]))
        (user,) = document["users"]
        assert user["lock_passwd"] is True
        assert user["ssh_authorized_keys"] == ["ssh-ed25519 AAAA x"]
        assert user["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
        assert "passwd" not in user
        assert "plain_text_passwd" not in user
        assert document["ssh_pwauth"] is False
        assert document["disable_root"] is True

    def test_no_default_user_without_a_login(self) -> None:
        assert read_user_data(lower())["users"] == []


class TestStock:
    def test_everything_is_in_the_seed(self) -> None:
        seed = lower(
            [
                *ETCD,
                UNIT,
                LOGIN,
                Package(phase=BAKE, origin=ORIGIN, name="chrony"),
                Sysctl(phase=BAKE, origin=ORIGIN, key="a.b", value="1"),
                KernelModule(phase=BAKE, origin=ORIGIN, name="overlay"),
                make_file("/baked", "b", phase=BAKE),
                make_file("/boot-file", "x"),
            ],
            cluster=STOCK,
        )
        document = read_user_data(seed)
        assert {
            "/baked",
            "/boot-file",
            "/etc/sysctl.d/90-imagegen.conf",
            "/etc/modules-load.d/90-imagegen.conf",
            "/etc/systemd/system/etcd.service",
            "/etc/systemd/system/imagegen-install.service",
            "/etc/imagegen/install/packages",
            "/etc/imagegen/install/units",
            "/usr/local/lib/imagegen/install",
        } == set(entries(seed))
        assert document["packages"] == ["chrony"]
        assert document["package_update"] is True
        assert document["package_upgrade"] is False
        assert document["groups"] == ["etcd"]
        assert document["users"][0] == {
            "name": "etcd",
            "primary_group": "etcd",
            "homedir": "/var/lib/etcd",
            "shell": "/usr/sbin/nologin",
            "lock_passwd": True,
            "system": True,
            "no_create_home": True,
        }

    def test_files_of_users_that_do_not_exist_yet_are_deferred(self) -> None:
        files = entries(
            lower(
                [*ETCD, make_file("/key", "k", owner="etcd", group="etcd", mode="0600"), make_file("/r", "")],
                cluster=STOCK,
            )
        )
        assert files["/key"]["defer"] is True
        assert "defer" not in files["/r"]

    def test_downloads_bring_their_tools_and_tables(self) -> None:
        binary = Binary(
            phase=BAKE, origin=ORIGIN, path="/usr/local/bin/kubelet", part="kubelet", version="1.36.4"
        )
        seed = lower([binary], cluster=STOCK)
        assert read_user_data(seed)["packages"] == ["ca-certificates", "curl"]
        assert entries(seed)["/etc/imagegen/install/packages"]["content"] == "ca-certificates\ncurl\n"
        (row,) = entries(seed)["/etc/imagegen/install/parts"]["content"].splitlines()
        url = "https://dl.k8s.io/release/v1.36.4/bin/linux/amd64/kubelet"
        assert row.split("\t") == [url, f"{url}.sha256", "raw", "-", "/usr/local/bin/kubelet"]

    def test_a_locked_checksum_is_in_the_seed(self) -> None:
        binary = Binary(
            phase=BAKE, origin=ORIGIN, path="/usr/local/bin/kubelet", part="kubelet", version="1.36.4"
        )
        url = "https://dl.k8s.io/release/v1.36.4/bin/linux/amd64/kubelet"
        lowering = CloudInit(STOCK, FakeStore(), checksums={url: "a" * 64})
        seed = lowering.lower_node(make_node_plan(STOCK, "worker-0", [binary]))
        assert entries(seed)["/etc/imagegen/install/parts"]["content"].split("\t")[1] == "a" * 64

    def test_units_are_sorted_by_what_happens_to_them(self) -> None:
        def unit(name: str, state: UnitState, content: str | None = None) -> Unit:
            return Unit(phase=BAKE, origin=ORIGIN, name=name, content=content, state=state)

        seed = lower(
            [
                unit("ours.service", UnitState.ENABLED, "[Unit]\n"),
                unit("theirs.service", UnitState.ENABLED),
                unit("swap.target", UnitState.MASKED),
                unit("apt-daily.timer", UnitState.DISABLED),
                unit("quiet.service", UnitState.STATIC, "[Unit]\n"),
                make_file("/etc/systemd/journald.conf.d/10-x.conf", "[Journal]\n", phase=BAKE),
            ],
            cluster=STOCK,
        )
        assert entries(seed)["/etc/imagegen/install/units"]["content"].splitlines() == [
            "disable\tapt-daily.timer",
            "enable\tours.service",
            "enable\ttheirs.service",
            "mask\tswap.target",
            "restart\tsystemd-journald.service",
            "restart\ttheirs.service",
            "start\tours.service",
        ]

    def test_directories_and_links_are_made_by_the_script(self) -> None:
        seed = lower(
            [
                Directory(
                    phase=BAKE, origin=ORIGIN, path="/var/lib/etcd", mode="0700", owner="etcd", group="etcd"
                ),
                Directory(phase=BAKE, origin=ORIGIN, path="/srv"),
                Symlink(phase=BAKE, origin=ORIGIN, path="/bin/x", target="/srv/y"),
            ],
            cluster=STOCK,
        )
        files = entries(seed)
        assert files["/etc/imagegen/install/directories"]["content"] == (
            "0755\troot\troot\t/srv\n0700\tetcd\tetcd\t/var/lib/etcd\n"
        )
        assert files["/etc/imagegen/install/links"]["content"] == "/srv/y\t/bin/x\n"
        assert ["systemctl", "start", "--no-block", "imagegen-install.service"] in read_user_data(seed)[
            "runcmd"
        ]

    def test_groups_with_a_number_are_made_before_cloud_init_makes_them(self) -> None:
        seed = lower([Group(phase=BAKE, origin=ORIGIN, name="ceph", gid=167)], cluster=STOCK)
        (command,) = read_user_data(seed)["bootcmd"]
        assert command[-2:] == ["ceph", "167"]

    def test_an_old_cloud_init_makes_users_before_it_writes_their_files(self) -> None:
        """19.4 of Oracle Linux 7 knows no ``defer``: it would stop at the first file of an unknown user."""
        cluster = make_cluster(mode=ImageMode.STOCK, os=OperatingSystem.ORACLELINUX_7)
        user = User(phase=BAKE, origin=ORIGIN, name="u", group="g", uid=990, groups=("adm",))
        seed = lower(
            [
                Group(phase=BAKE, origin=ORIGIN, name="g"),
                user,
                Package(phase=BAKE, origin=ORIGIN, name="socat"),
                make_file("/of-u", "x", owner="u", group="g"),
            ],
            cluster=cluster,
        )
        assert "defer" not in entries(seed)["/of-u"]
        document = read_user_data(seed)
        first, second = document["bootcmd"]
        assert first[-1] == "g"
        assert "groupadd --system" in first[2]
        assert second[3:] == [
            *("sh", "u", "--gid", "g", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"),
            *("--no-create-home", "--system", "--uid", "990", "--groups", "adm"),
        ]
        assert set(document["yum_repos"]) == {"imagegen_ol7_addons", "imagegen_ol7_software_collections"}
        assert all(each["gpgcheck"] for each in document["yum_repos"].values())
        network = yaml.safe_load(seed.network_config)
        assert set(network["ethernets"]) == {"eth0"}

    def test_a_field_that_breaks_a_table_is_refused(self) -> None:
        with pytest.raises(ValueError, match="tabs"):
            lower([Directory(phase=BAKE, origin=ORIGIN, path="/a\tb")], cluster=STOCK)

    def test_recommends_are_an_apt_thing(self) -> None:
        package = Package(phase=BAKE, origin=ORIGIN, name="chrony")
        assert "apt" in read_user_data(lower([package], cluster=STOCK))
        rpm = make_cluster(mode=ImageMode.STOCK, os=OperatingSystem.ORACLELINUX_9)
        assert "apt" not in read_user_data(lower([package], cluster=rpm))


class TestWhoGetsWhat:
    """The last guard: a plan that puts material on the wrong node is a bug and must not leave the house."""

    @pytest.mark.parametrize(
        ("node", "name"),
        [
            ("worker-0", "nodes/worker-0/bootstrap-token"),
            ("worker-0", "pki/ca.crt"),
            ("worker-0", "pki/sa.pub"),
            ("master-0", "pki/ca.key"),
            ("master-0", "pki/sa.key"),
            ("master-0", "encryption/secretbox-key"),
            ("etcd-0", "nodes/etcd-0/etcd-server.key"),
            ("etcd-0", "pki/etcd/ca.crt"),
        ],
    )
    def test_own_material_passes(self, node: str, name: str) -> None:
        seed = lower(own=[make_file("/x", Ref(name))], node=node)
        assert f"<{name}>" in entries(seed)["/x"]["content"]

    @pytest.mark.parametrize(
        ("node", "name"),
        [
            ("worker-0", "nodes/worker-1/bootstrap-token"),
            ("worker-0", "nodes/worker-00/bootstrap-token"),
            ("worker-0", "nodes/worker-1/kubelet.crt"),
            ("worker-0", "pki/ca.key"),
            ("worker-0", "pki/sa.key"),
            ("worker-0", "encryption/secretbox-key"),
            ("etcd-0", "pki/etcd/ca.key"),
            ("etcd-0", "pki/ca.key"),
            ("master-0", "pki/etcd/ca.key"),
            ("master-0", "pki/front-proxy-ca.key"),
            ("master-0", "pki/admin.key"),
            ("master-0", "pki/super-admin.key"),
            ("master-0", "nodes/etcd-0/etcd-server.key"),
            ("master-0", "nodes/worker-0/bootstrap-token"),
            ("master-0", "anything"),
        ],
    )
    @pytest.mark.parametrize("shared", [True, False])
    def test_foreign_material_does_not(self, node: str, name: str, shared: bool) -> None:
        items = [make_file("/x", "a", Ref(name), "b")]
        with pytest.raises(MisplacedSecretError, match=name):
            lower(*([items] if shared else [[], items]), node=node)

    def test_masters_alone_get_all_tokens_in_one_file(self) -> None:
        tokens = make_file(BOOTSTRAP_TOKENS, Ref("nodes/worker-0/bootstrap-token"))
        assert lower([tokens], node="master-0").is_secret
        with pytest.raises(MisplacedSecretError):
            lower([tokens], node="worker-1")

    def test_what_nodes_share_holds_nobodys_own(self) -> None:
        """Lowered once for the first node of its kind, it would reach all the others."""
        with pytest.raises(MisplacedSecretError):
            lower([make_file("/x", Ref("nodes/worker-0/bootstrap-token"))], node="worker-0")

    def test_a_label_that_says_public_does_not_help(self) -> None:
        with pytest.raises(MisplacedSecretError):
            lower([make_file("/x", Ref("pki/ca.key", public=True))])

    def test_secrets_are_told(self) -> None:
        assert not lower([make_file("/x", Ref("pki/ca.crt", public=True))]).is_secret
        assert lower(own=[make_file("/x", Ref("nodes/worker-0/bootstrap-token"))]).is_secret

    def test_a_missing_secret_is_the_stores_error(self) -> None:
        class Empty:
            def read(self, name: str) -> bytes:
                raise StoreError(f"{name} is not there")

        with pytest.raises(StoreError, match="ca"):
            CloudInit(make_cluster(), Empty()).lower_node(
                make_node_plan(make_cluster(), "worker-0", [make_file("/x", Ref("pki/ca.crt", public=True))])
            )


class TestIdentity:
    def test_instance_id_follows_the_content(self) -> None:
        seed = lower(own=[make_file("/x", "1")])
        other = lower(own=[make_file("/x", "2")])
        content = seed.user_data + seed.network_config
        digest = hashlib.sha256(content).hexdigest()[:12]
        assert seed.meta_data.decode() == f"instance-id: iid-worker-0-{digest}\nlocal-hostname: worker-0\n"
        assert other.meta_data != seed.meta_data
        assert lower(own=[make_file("/x", "1")]).meta_data == seed.meta_data

    def test_host_name_is_the_nodes_and_stays(self) -> None:
        document = read_user_data(lower())
        assert document["hostname"] == document["fqdn"] == "worker-0"
        assert document["manage_etc_hosts"] is document["preserve_hostname"] is False

    def test_user_values_are_never_templates(self) -> None:
        text = "## template: jinja\n{{7*7}} {% raw %} $uptime\n"
        seed = lower(own=[make_file("/x", text)])
        assert entries(seed)["/x"]["content"] == text
        assert not seed.user_data.startswith(b"## template")

    def test_shared_text_is_serialised_once(self) -> None:
        reads: list[str] = []

        class Counting(FakeStore):
            def read(self, name: str) -> bytes:
                reads.append(name)
                return super().read(name)

        cluster = make_cluster()
        lowering = CloudInit(cluster, Counting())
        shared = [make_file("/ca", Ref("pki/ca.crt", public=True))]
        seeds = [
            lowering.lower_node(make_node_plan(cluster, name, shared)) for name in ("worker-0", "worker-1")
        ]
        assert reads == ["pki/ca.crt"]
        assert all("/ca" in entries(seed) for seed in seeds)

    def test_entries_are_listed_by_size(self) -> None:
        cluster = make_cluster()
        plan = make_node_plan(cluster, "worker-0", [make_file("/a", "x" * 50)], [make_file("/b", "x" * 500)])
        sizes = CloudInit(cluster, FakeStore()).list_entries(plan)
        assert [entry.path for entry in sizes] == ["/b", "/a"]
        assert sizes[0].size > 500
        assert sizes[0].origin is ORIGIN
