"""Cross-checks on merged items: one finding a fault, and none on sound items."""

from __future__ import annotations

from typing import Literal

import pytest

from imagegen.diagnostics import Report
from imagegen.model.cluster import Node, Role
from imagegen.plan.check import (
    check_node_items,
    check_role_items,
    find_mode_fault,
    find_path_fault,
    list_unit_references,
)
from imagegen.plan.items import (
    Directory,
    File,
    Group,
    Item,
    Origin,
    Package,
    Phase,
    Port,
    Ref,
    Symlink,
    Unit,
    User,
)

ORIGIN = Origin("component test")


def file(path: str, **more: object) -> File:
    return File(**{"phase": Phase.BAKE, "origin": ORIGIN, "path": path, "content": ("x",), **more})  # type: ignore[arg-type]


def directory(path: str, **more: object) -> Directory:
    return Directory(**{"phase": Phase.BAKE, "origin": ORIGIN, "path": path, **more})  # type: ignore[arg-type]


def port(first: int, last: int, protocol: Literal["tcp", "udp"] = "tcp") -> Port:
    return Port(
        phase=Phase.BAKE,
        origin=ORIGIN,
        first=first,
        last=last,
        protocol=protocol,
        purpose=f"p{first}",
    )


def unit(name: str, content: str | None) -> Unit:
    return Unit(phase=Phase.BAKE, origin=ORIGIN, name=name, content=content)


def check(*items: Item) -> list[tuple[str, str]]:
    report = Report()
    check_role_items((Role.WORKER,), items, {}, report)
    return [(f.code, f.message) for f in report.sorted()]


def codes(*items: Item) -> list[str]:
    return [code for code, _ in check(*items)]


@pytest.mark.parametrize(
    "path",
    ["etc/a", "", "/",
     "/etc/../a", "/etc/./a", "/etc//a", "/etc/a/", "/etc/a\nb", "/etc/\x85", "/" + "a" * 256,
     "/bin/a", "/lib/systemd/a", "/var/run/a", "/proc/a", "/run/a", "/tmp/a", "/dev/a", "/etc/\ud800"],
)  # fmt: skip
def test_paths_that_cannot_be_used(path: str) -> None:
    assert find_path_fault(path)
    assert codes(file(path)) == ["IMG220"]


@pytest.mark.parametrize("path", ["/etc/a", "/etc/..a", "/usr/lib/a b", "/etc/ü", "/binary", "/etc/proc/x"])
def test_paths_that_can_be_used(path: str) -> None:
    assert find_path_fault(path) is None
    assert codes(file(path)) == []


@pytest.mark.parametrize("mode", ["644", "0o644", "0648", "0666", "0002", "4755", "2755", "", "00644"])
def test_modes_of_files_that_are_refused(mode: str) -> None:
    assert find_mode_fault(mode, is_directory=False)
    assert codes(file("/etc/a", mode=mode)) == ["IMG221"]


def test_a_folder_that_all_may_write_needs_the_sticky_bit() -> None:
    assert codes(directory("/srv/a", mode="0777")) == ["IMG221"]
    assert codes(directory("/srv/a", mode="1777")) == []
    assert codes(directory("/srv/a", mode="2775")) == []


def test_owners_must_exist() -> None:
    owned = file("/etc/a", owner="etcd", group="etcd")
    assert codes(owned) == ["IMG222", "IMG222"]
    group = Group(phase=Phase.BAKE, origin=ORIGIN, name="etcd")
    user = User(phase=Phase.BAKE, origin=ORIGIN, name="etcd", group="etcd")
    assert codes(owned, user, group) == []
    package = Package(phase=Phase.BAKE, origin=ORIGIN, name="haproxy")
    assert codes(file("/etc/a", owner="haproxy")) == ["IMG222"]
    assert codes(file("/etc/a", owner="haproxy"), package) == []


def test_accounts() -> None:
    user = User(phase=Phase.BAKE, origin=ORIGIN, name="a", group="nowhere", uid=900)
    assert codes(user) == ["IMG228"]
    twin = User(phase=Phase.BAKE, origin=ORIGIN, name="b", group="root", uid=900)
    again = User(phase=Phase.BAKE, origin=ORIGIN, name="a", group="root", uid=900)
    assert codes(again, twin) == ["IMG228"]


def test_nothing_lies_below_a_file_or_a_link() -> None:
    assert codes(file("/etc/a"), file("/etc/a/b/c")) == ["IMG223"]
    link = Symlink(phase=Phase.BAKE, origin=ORIGIN, path="/etc/a", target="/srv")
    assert codes(link, directory("/etc/a/b")) == ["IMG223"]
    assert codes(directory("/etc/a"), file("/etc/a/b")) == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/systemd/system/a.service",
        "/etc/sysctl.d/90-imagegen.conf",
        "/etc/modules-load.d/91-imagegen-node.conf",
        "/etc/passwd",
        "/etc/machine-id",
    ],
)
def test_files_where_imagegen_writes_from_other_items(path: str) -> None:
    assert codes(file(path), unit("a.service", "[Service]\nExecStart=/bin/true\n")) == ["IMG224"]


def test_bake_items_hold_no_material() -> None:
    assert codes(file("/etc/a", content=("x", Ref("pki/ca.crt", public=True)))) == ["IMG227"]
    assert codes(file("/etc/a", content=(Ref("pki/ca.crt"),), phase=Phase.BOOT)) == []


def test_items_of_a_node_are_boot() -> None:
    report = Report()
    node = Node(name="a", roles=(Role.WORKER,), address=None, mac=None)
    check_node_items(node, [file("/etc/a"), file("/etc/b", phase=Phase.BOOT)], {}, report)
    assert [(f.code, "/etc/a" in f.message) for f in report.findings] == [("IMG227", True)]


def test_ports_overlap_only_within_a_protocol() -> None:
    assert codes(port(30000, 32767), port(30010, 30010)) == ["IMG225"]
    assert codes(port(30000, 32767), port(30010, 30010, "udp"), port(22, 22)) == []
    assert codes(port(30000, 32767), port(10, 10), port(31000, 31001)) == ["IMG225"]
    assert codes(port(1, 65536)) == ["IMG225"]


def test_a_wide_range_is_compared_with_all_that_follow() -> None:
    assert codes(port(10, 100), port(20, 20), port(30, 30)) == ["IMG225", "IMG225"]


def test_units_refer_to_units_that_exist() -> None:
    body = "[Unit]\nRequires=%s\nAfter=network-online.target\n[Service]\nExecStart=/bin/true\n"
    assert codes(unit("a.service", body % "b.service")) == ["IMG226"]
    assert codes(unit("a.service", body % "b.service"), unit("b.service", "[Service]\n")) == []
    assert codes(unit("a.service", body % "b@x.service"), unit("b@.service", "[Service]\n")) == []
    assert codes(unit("a.service", body % "var-lib.mount")) == []
    assert codes(unit("a.service", "[Unit]\nAfter=kubelet.service\n")) == []
    assert codes(unit("a.service", "[Unit]\nAfter=kubelt.service\n")) == ["IMG226"]


def test_a_unit_without_content_comes_from_a_package() -> None:
    assert codes(unit("haproxy.service", None)) == ["IMG226"]
    assert (
        codes(unit("haproxy.service", None), Package(phase=Phase.BAKE, origin=ORIGIN, name="haproxy")) == []
    )


def test_references_are_read_over_continuation_lines() -> None:
    text = "[Unit]\n# After=no.service\nAfter=a.service \\\n  b.service\nDescription=x\n"
    assert list(list_unit_references(text)) == [("After", "a.service"), ("After", "b.service")]
