"""Lowers the plan of one node to a NoCloud seed: user-data, meta-data and network-config.

Everything that the nodes of one set of roles share is serialised and hashed once; a node costs its own few
files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from imagegen.backends.install import UNIT, list_packages, lower_install
from imagegen.backends.material import check_ref, is_secret
from imagegen.backends.networkconfig import emit_network_config
from imagegen.backends.settings import lower_settings
from imagegen.backends.writefiles import emit_entry
from imagegen.content import Ref
from imagegen.emit import emit_yaml
from imagegen.kubernetes.releases import Releases, load_releases
from imagegen.model.cluster import Cluster, ImageMode, Node
from imagegen.model.systems import SYSTEMS, Repository
from imagegen.pki.resolve import resolve_content
from imagegen.pki.store import SecretReader
from imagegen.plan.basesystem import known_groups, known_users
from imagegen.plan.items import (
    File,
    Group,
    Item,
    Login,
    Origin,
    Package,
    Phase,
    User,
)
from imagegen.plan.plan import NodePlan, RolePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """The three files of one node. ``is_secret`` says whether user-data holds private material."""

    node: Node
    user_data: bytes
    meta_data: bytes
    network_config: bytes
    #: SHA-256 over user-data and network-config, hexadecimal
    digest: str
    is_secret: bool

    def files(self) -> dict[str, bytes]:
        """The files under the names that NoCloud wants."""
        return {
            "user-data": self.user_data,
            "meta-data": self.meta_data,
            "network-config": self.network_config,
        }


@dataclass(frozen=True, slots=True)
class EntrySize:
    """One file of user-data: the bytes that it takes there, and who asked for it."""

    path: str
    size: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Owners:
    """The users and groups that exist when ``write_files`` runs."""

    users: frozenset[str]
    groups: frozenset[str]

    def has(self, file: File) -> bool:
        return file.owner in self.users and file.group in self.groups


@dataclass(slots=True)
class _Shared:
    """What the nodes of one set of roles have in common: the head of user-data, and its hash so far."""

    head: bytes
    digest: Any
    is_secret: bool
    early_owners: _Owners
    has_files: bool


class CloudInit:
    """Lowers nodes of one cluster. ``store`` resolves references.

    ``checksums`` maps URLs of downloads to SHA-256 sums for ``image.mode: stock``. The modes differ in what
    they leave to the image: golden seeds hold items of phase ``boot`` alone, stock seeds hold everything.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: SecretReader,
        *,
        checksums: Mapping[str, str] | None = None,
        releases: Releases | None = None,
    ) -> None:
        self.cluster = cluster
        self._store = store
        self._checksums = checksums or {}
        self._releases = releases or load_releases(cluster.kubernetes.version)
        self._stock = cluster.image.mode is ImageMode.STOCK
        self._facts = SYSTEMS[cluster.image.os]
        self._shared: dict[str, _Shared] = {}

    def _own_nameservers(self, node: Node) -> tuple[IPv4Address, ...] | None:
        """Instead of those of the network, where the load balancers answer."""
        found = self.cluster.nameservers_of(node)
        return None if found == self.cluster.network.nameservers else found

    def lower_node(self, plan: NodePlan) -> Seed:
        """The seed of one node; raises StoreError when the store lacks something."""
        node = plan.node
        shared = self._share(plan.role_plan, node)
        own = self._lower_files(plan.items)
        parts = [] if shared.has_files or not own else ["write_files:\n"]
        parts += [self._emit_file(node, file, shared.early_owners) for file in own]
        parts.append(f"hostname: {node.name}\nfqdn: {node.name}\n")
        tail = "".join(parts).encode()
        golden = not self._stock and self._facts.has_own_base
        network_config = emit_network_config(
            node, self.cluster.network, golden=golden, nameservers=self._own_nameservers(node)
        ).encode()
        digest = shared.digest.copy()
        digest.update(tail)
        digest.update(network_config)
        content_id = digest.hexdigest()
        instance_id = f"iid-{node.name}-{content_id[:12]}"
        return Seed(
            node=node,
            user_data=shared.head + tail,
            meta_data=f"instance-id: {instance_id}\nlocal-hostname: {node.name}\n".encode(),
            network_config=network_config,
            digest=content_id,
            is_secret=shared.is_secret or any(is_secret(file.content) for file in own),
        )

    def list_entries(self, plan: NodePlan) -> list[EntrySize]:
        """Every file in the node's user-data with its size there, largest first."""
        early = self._share(plan.role_plan, plan.node).early_owners
        files = [*self._lower_shared(plan.role_plan.items), *self._lower_files(plan.items)]
        sizes = [
            EntrySize(file.path, len(self._emit_file(plan.node, file, early).encode()), file.origin)
            for file in files
        ]
        return sorted(sizes, key=lambda entry: (-entry.size, entry.path))

    def _share(self, plan: RolePlan, node: Node) -> _Shared:
        shared = self._shared.get(plan.name)
        if shared is None:
            shared = self._shared[plan.name] = self._lower_role(plan, node)
        return shared

    def _lower_role(self, plan: RolePlan, node: Node) -> _Shared:
        items = self._select(plan.items)
        files = self._lower_shared(plan.items)
        early = self._list_early_owners(plan)
        head = "#cloud-config\n" + emit_yaml(self._lower_modules(items, files))
        if files:
            head += "write_files:\n" + "".join(
                self._emit_file(node, file, early, shared=True) for file in files
            )
        data = head.encode()
        return _Shared(
            head=data,
            digest=hashlib.sha256(data),
            is_secret=any(is_secret(file.content) for file in files),
            early_owners=early,
            has_files=bool(files),
        )

    def _select(self, items: Iterable[Item]) -> list[Item]:
        return [item for item in items if self._stock or item.phase is Phase.BOOT]

    def _lower_files(self, items: Iterable[Item]) -> list[File]:
        selected = self._select(items)
        files = [item for item in selected if isinstance(item, File)]
        return sorted([*files, *lower_settings(selected)], key=lambda file: file.path)

    def _lower_shared(self, items: Iterable[Item]) -> list[File]:
        selected = self._select(items)
        return [*self._lower_files(selected), *lower_install(selected, self._releases, self._checksums)]

    def _list_early_owners(self, plan: RolePlan) -> _Owners:
        baked = () if self._stock else plan.of_phase(Phase.BAKE)
        packages = {item.name for item in baked if isinstance(item, Package)}
        if not self._facts.defers_files:
            # bootcmd has made them
            baked = plan.items
        return _Owners(
            known_users(packages) | {item.name for item in baked if isinstance(item, User)},
            known_groups(packages) | {item.name for item in baked if isinstance(item, Group)},
        )

    def _emit_file(self, node: Node, file: File, early_owners: _Owners, *, shared: bool = False) -> str:
        for part in file.content:
            if isinstance(part, Ref):
                check_ref(node, file.path, part, shared=shared)
        return emit_entry(
            file.path,
            resolve_content(file.content, self._store),
            mode=file.mode,
            owner=file.owner,
            group=file.group,
            defer=not early_owners.has(file),
        )

    def _lower_modules(self, items: Sequence[Item], files: Sequence[File]) -> dict[str, object]:
        """Everything but the files, in the order in which a person would look for it."""
        modules: dict[str, object] = {
            "preserve_hostname": False,
            "manage_etc_hosts": False,
            "ssh_pwauth": False,
            "disable_root": True,
            "ssh_deletekeys": True,
            "ssh_genkeytypes": ["ed25519", "ecdsa"],
            # the module fails on images without the locale that it picks; false as a boolean fails the 22.4
            # schema
            "locale": "false",
            "growpart": {"mode": "auto", "devices": ["/"], "ignore_growroot_disabled": False},
            "resize_rootfs": True,
            # rendering the network again under a running CNI breaks it
            "updates": {"network": {"when": []}},
        }
        modules |= self._lower_packages(items)
        groups = [item.name for item in items if isinstance(item, Group)]
        if groups:
            modules["groups"] = groups
        modules["users"] = [_lower_user(item) for item in items if isinstance(item, Login | User)]
        commands = _list_group_commands(items, always=not self._facts.defers_files)
        if not self._facts.defers_files:
            commands += [_create_user(item) for item in items if isinstance(item, User)]
        if commands:
            modules["bootcmd"] = commands
        if any(file.path.endswith(f"/{UNIT}") for file in files):
            modules["runcmd"] = [
                ["systemctl", "daemon-reload"],
                ["systemctl", "enable", UNIT],
                ["systemctl", "start", "--no-block", UNIT],
            ]
        modules["final_message"] = "imagegen: cloud-init finished after $uptime seconds"
        return modules

    def _lower_packages(self, items: Sequence[Item]) -> dict[str, object]:
        names = list_packages(items)
        modules: dict[str, object] = {
            "package_update": bool(names),
            "package_upgrade": False,
            "package_reboot_if_required": False,
        }
        if names:
            if self.cluster.image.os.family == "debian":
                # any ``apt`` key makes cloud-init write the sources anew unless it is told not to
                modules["apt"] = {
                    "preserve_sources_list": True,
                    "conf": 'APT::Install-Recommends "false";\n',
                }
            repositories = self._facts.list_repositories(self.cluster.runtime)
            if repositories:
                modules["yum_repos"] = {each.name: _lower_repository(each) for each in repositories}
            modules["packages"] = names
        return modules


def _lower_user(item: Login | User) -> dict[str, object]:
    if isinstance(item, Login):
        login: dict[str, object] = {
            "name": item.name,
            "gecos": "imagegen",
            "lock_passwd": True,
            "shell": "/bin/bash",
        }
        if item.sudo:
            login["sudo"] = item.sudo
        if item.ssh_authorized_keys:
            login["ssh_authorized_keys"] = list(item.ssh_authorized_keys)
        return login
    user: dict[str, object] = {"name": item.name}
    if item.gecos:
        user["gecos"] = item.gecos
    if item.uid is not None:
        user["uid"] = item.uid
    user["primary_group"] = item.group
    if item.groups:
        user["groups"] = list(item.groups)
    user |= {"homedir": item.home, "shell": item.shell, "lock_passwd": True}
    if item.system:
        user["system"] = True
    if item.system or item.home == "/nonexistent":
        user["no_create_home"] = True
    return user


def _lower_repository(repository: Repository) -> dict[str, object]:
    return {
        "name": repository.title,
        "baseurl": repository.url,
        "gpgcheck": True,
        "gpgkey": repository.key,
        "enabled": True,
    }


def _list_group_commands(items: Iterable[Item], *, always: bool) -> list[list[str]]:
    """Groups with a fixed number: cloud-init's ``groups`` has no place for it, and bootcmd runs before it.

    ``always``: the others too, because files are theirs before cloud-init makes them.
    """
    commands = []
    for item in items:
        if not isinstance(item, Group) or (item.gid is None and not always):
            continue
        option, arguments = ("", []) if item.gid is None else ('--gid "$2" ', [str(item.gid)])
        command = f'getent group "$1" >/dev/null || groupadd --system {option}"$1"'
        commands.append(["sh", "-c", command, "sh", item.name, *arguments])
    return commands


def _create_user(user: User) -> list[str]:
    """The command that makes a user unless it is there; cloud-init's ``users`` then passes it over."""
    options = ["--gid", user.group, "--home-dir", user.home, "--shell", user.shell, "--no-create-home"]
    options += ["--system"] if user.system else []
    options += ["--uid", str(user.uid)] if user.uid is not None else []
    options += ["--groups", ",".join(user.groups)] if user.groups else []
    command = 'name=$1; shift; getent passwd "$name" >/dev/null || useradd "$@" "$name"'
    return ["sh", "-c", command, "sh", user.name, *options]
