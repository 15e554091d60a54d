"""Profile files: what they may say, how they add up, and every way in which they can be wrong."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from imagegen.diagnostics import Report
from imagegen.emit import emit_yaml
from imagegen.model.cluster import OperatingSystem, Role
from imagegen.plan.items import File, Item, Package, Sysctl, Unit
from imagegen.plan.profile_format import profile_schema
from imagegen.plan.profiles import Profiles, load_profiles
from imagegen.resources import find_resource
from tests.plan.plans import make_plan, read_cluster, try_plan, write_cluster


def load(folder: Path, text: str, name: str = "worker.yaml") -> tuple[Profiles, Report]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    report = Report()
    return load_profiles([str(folder)], report), report


def findings(folder: Path, text: str, name: str = "worker.yaml") -> list[tuple[str, int, int]]:
    _, report = load(folder, text, name)
    return [(f.code, f.span.line, f.span.column) if f.span else (f.code, 0, 0) for f in report.sorted()]


def items_of(profiles: Profiles, tmp_path: Path, role: Role = Role.WORKER) -> dict[tuple[str, str], Item]:
    cluster = read_cluster(write_cluster(tmp_path))
    return {o.item.identity: o.item for o in profiles.opinions(cluster, [role])}


def test_shipped_profiles_are_sound_and_each_role_stands_on_base() -> None:
    report = Report()
    profiles = load_profiles([], report)
    assert not report.findings, report.render_text()
    assert {name: profiles.order[name] for name in ("base", *Role)} == {
        "base": ("base",),
        **{role.value: ("base", role.value) for role in Role if role is not Role.BASE},
    }


@pytest.mark.parametrize("name", ["base", "etcd", "master", "worker", "lb"])
def test_shipped_profiles_match_their_json_schema(name: str) -> None:
    data = yaml.safe_load(find_resource("profiles", f"{name}.yaml").read_text())
    assert not list(Draft202012Validator(profile_schema()).iter_errors(data))


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    validator = Draft202012Validator(profile_schema())
    wrong: tuple[object, ...] = (
        {"pakages": []},
        {"files": [{"path": "etc/a", "content": ""}]},
        {"files": [{"path": "/a", "mode": 420, "content": ""}]},
        {"modules": ["a b"]},
    )
    for data in wrong:
        assert list(validator.iter_errors(data)), data


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("net.bridge.bridge-nf-call-iptables", "1"),
        ("net.bridge.bridge-nf-call-ip6tables", "1"),
        ("net.ipv4.ip_forward", "1"),
        ("vm.overcommit_memory", "1"),
        ("vm.panic_on_oom", "0"),
        ("kernel.panic", "10"),
        ("kernel.panic_on_oops", "1"),
    ],
)
def test_workers_have_the_sysctls_of_kubernetes(tmp_path: Path, key: str, value: str) -> None:
    items = items_of(load_profiles([], Report()), tmp_path)
    item = items["sysctl", key]
    assert isinstance(item, Sysctl)
    assert item.value == value


def test_a_user_profile_adds_to_the_role_of_its_name(tmp_path: Path) -> None:
    text = "packages: [htop]\nsysctls: {vm.swappiness: 1}\nmodules: [dm-crypt]\nusers: [prometheus]\n"
    profiles, report = load(tmp_path / "mine", text)
    assert not report.findings
    items = items_of(profiles, tmp_path)
    assert ("package", "htop") in items
    assert ("module", "dm_crypt") in items
    assert {("user", "prometheus"), ("group", "prometheus")} <= set(items)
    assert ("package", "htop") not in items_of(profiles, tmp_path, Role.MASTER)
    origin = items["package", "htop"].origin
    assert str(origin) == "mine/worker.yaml:1"


def test_a_user_profile_of_base_reaches_every_role(tmp_path: Path) -> None:
    profiles, _ = load(tmp_path / "mine", "packages: [htop]\n", "base.yaml")
    for role in Role:
        assert ("package", "htop") in items_of(profiles, tmp_path, role)


def test_extends_reaches_profiles_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "monitoring.yaml").write_text("packages: [prometheus-node-exporter]\n")
    profiles, report = load(folder, "extends: [monitoring]\n")
    assert not report.findings
    assert profiles.order["worker"] == ("base", "monitoring", "worker")
    assert ("package", "prometheus-node-exporter") in items_of(profiles, tmp_path)


def test_package_names_differ_by_system(tmp_path: Path) -> None:
    text = "packages: [{debian: vim-tiny, rpm: vim-minimal}, {rpm: only-rpm}]\n"
    profiles, _ = load(tmp_path / "mine", text)
    debian = items_of(profiles, tmp_path)
    cluster = read_cluster(write_cluster(tmp_path))
    cluster = replace(cluster, image=replace(cluster.image, os=OperatingSystem.ORACLELINUX_9))
    rpm = {o.item.identity for o in profiles.opinions(cluster, [Role.WORKER])}
    assert ("package", "vim-tiny") in debian
    assert ("package", "only-rpm") not in debian
    assert {("package", "vim-minimal"), ("package", "only-rpm")} <= rpm


HOSTILE = [
    "{{7*7}} {% raw %}",
    "${x} %{ if } $(x) `id`",
    "EOF\nEOT\nIMAGEGEN\n",
    "%n %i $HOME $$ %%",
    "tab\tand\u2028separator\u2029 \ufeff and é 🦀",
    "\x01\x1b[31m\x7f",
    " leading and trailing \n\n\n",
    "no",
    "x" * 1_000_000,
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_bodies_arrive_byte_identical(tmp_path: Path, body: str) -> None:
    """As double-quoted text and as a literal file beside the profile."""
    import json

    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "body.bin").write_bytes(body.encode())
    quoted = (
        json.dumps(body, ensure_ascii=True).replace("\\ud83e\\udd80", "\\U0001F980").replace("\x7f", "\\x7f")
    )
    text = f"files:\n  - {{path: /etc/a, content: {quoted}}}\n  - {{path: /etc/b, source: body.bin}}\n"
    (folder / "worker.yaml").write_text(text)
    plan = make_plan(write_cluster(tmp_path), [folder])
    items = {item.identity: item for item in plan.node_plan("worker-0").role_plan.items}
    for path in ("/etc/a", "/etc/b"):
        item = items["path", path]
        assert isinstance(item, File)
        assert "".join(str(part) for part in item.content) == body


def test_bytes_that_are_no_text_stay_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, raw in (("a", b"\xff\xfe\x00"), ("b", b"a\x00b")):
        (folder / name).write_bytes(raw)
        profiles, report = load(folder, f"files: [{{path: /etc/a, source: {name}}}]\n")
        assert not report.findings
        item = items_of(profiles, tmp_path)["path", "/etc/a"]
        assert isinstance(item, File)
        assert item.content == (raw,)


def make_fault(folder: Path, kind: str) -> str:
    """A file with that fault below ``folder``; returns what ``source:`` says."""
    outside = folder.parent / "secret.txt"
    outside.write_text("secret")
    target = folder / "bad"
    if kind == "loop":
        target.symlink_to("bad2")
        (folder / "bad2").symlink_to("bad")
    elif kind == "link out":
        target.symlink_to(outside)
    elif kind == "folder link out":
        target.symlink_to(folder.parent)
        return "bad/secret.txt"
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    elif kind == "setuid":
        target.write_text("x")
        target.chmod(0o4755)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(target))
    elif kind == "device":
        target.symlink_to("/dev/zero")
    elif kind == "too large":
        with target.open("wb") as stream:
            stream.truncate(5 * 1024 * 1024)
    return {"absolute": str(outside), "dots": "../secret.txt", "missing": "nothing", "empty": '""'}.get(
        kind, "bad"
    )


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("absolute", "relative to the folder"),
        ("dots", "traverses outside"),
        ("link out", "traverses outside"),
        ("folder link out", "traverses outside"),
        ("device", "traverses outside"),
        ("loop", "circle"),
        ("fifo", "is a pipe"),
        ("folder", "is a folder"),
        ("socket", "a device or a socket"),
        ("setuid", "setuid"),
        ("missing", "cannot be found"),
        ("empty", "wanted the name of a file"),
        ("too large", "larger than 4 MiB"),
    ],
)
def test_literal_files_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, says: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    source = make_fault(folder, kind)
    _, report = load(folder, f"files:\n  - path: /etc/a\n    source: {source}\n")
    (finding,) = report.findings
    assert (finding.code, finding.span and finding.span.line) == ("IMG215", 3)
    assert says in finding.message


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "bad").write_text("x")
    real = os.open

    def refuse(path: object, *args: object, **kwargs: object) -> int:
        if str(path).endswith("/bad"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    _, report = load(folder, "files: [{path: /etc/a, source: bad}]\n")
    (finding,) = report.findings
    assert finding.code == "IMG215"
    assert "permission denied" in finding.message


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "bad").write_text("before")
    real, seen = os.fstat, []

    def grow(descriptor: int) -> os.stat_result:
        if os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")) == "bad":
            seen.append(descriptor)
            if len(seen) == 2:
                (folder / "bad").write_text("afterwards")
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", grow)
    _, report = load(folder, "files: [{path: /etc/a, source: bad}]\n")
    assert [f.code for f in report.findings] == ["IMG215"]
    assert "changed while it was read" in report.findings[0].message


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "real").write_text("x")
    (folder / "link").symlink_to("files/real")
    _, report = load(folder, "files: [{path: /etc/a, source: link}, {path: /etc/b, source: files/real}]\n")
    assert not report.findings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pakages: [a]\n", [("IMG213", 1, 1)]),
        ("files:\n  - {path: /etc/a, contnet: x}\n", [("IMG213", 2, 20)]),
        ("files: {a: b}\n", [("IMG214", 1, 8)]),
        ("files: [a]\n", [("IMG214", 1, 9)]),
        ("files: [{content: x}]\n", [("IMG214", 1, 9)]),
        ("files: [{path: /etc/a}]\n", [("IMG214", 1, 9)]),
        ("files: [{path: /etc/a, content: x, source: y}]\n", [("IMG214", 1, 9)]),
        ("files: [{path: /etc/a, content: }]\n", [("IMG214", 1, 33)]),
        ("files: [{path: ../a, content: x}]\n", [("IMG214", 1, 16)]),
        ("files: [{path: /etc/a, content: x, mode: 0644}]\n", [("IMG214", 1, 42)]),
        ("files: [{path: /etc/a, content: x, mode: '0666'}]\n", [("IMG214", 1, 42)]),
        ("files: [{path: /etc/a, content: x, owner: 'a b'}]\n", [("IMG214", 1, 43)]),
        ("packages: ['a b']\n", [("IMG214", 1, 12)]),
        ("packages: [{name: a, rpm: b}]\n", [("IMG214", 1, 12)]),
        ("packages: [{reason: b}]\n", [("IMG214", 1, 12)]),
        ("packages: [[a]]\n", [("IMG214", 1, 12)]),
        ("sysctls: {net/ipv4/ip_forward: 1}\n", [("IMG214", 1, 11)]),
        ("sysctls: {vm.swappiness: }\n", [("IMG214", 1, 26)]),
        ("sysctls: {vm.swappiness: \"1\\n2\"}\n", [("IMG214", 1, 26)]),
        ("sysctls: [vm.swappiness]\n", [("IMG214", 1, 10)]),
        ("modules: [../a]\n", [("IMG214", 1, 11)]),
        ("units: [{name: a/b.service}]\n", [("IMG214", 1, 16)]),
        ("units: [{name: a.servce}]\n", [("IMG214", 1, 16)]),
        ("units: [{name: a.service, state: enbled}]\n", [("IMG214", 1, 34)]),
        ("units: [{name: a.service, content: no sections}]\n", [("IMG214", 1, 9)]),
        ("units: [{name: a.service, state: masked, content: \"[Service]\\n\"}]\n", [("IMG214", 1, 9)]),
        ("users: [{name: a, uid: '5'}]\n", [("IMG214", 1, 24)]),
        ("users: [{name: a, system: yes}]\n", [("IMG214", 1, 27)]),
        ("users: [{name: a, groups: b}]\n", [("IMG214", 1, 27)]),
        ("users: [{name: a, shell: bash}]\n", [("IMG214", 1, 26)]),
        ("ports: [{port: 0, purpose: x}]\n", [("IMG214", 1, 16)]),
        ("ports: [{port: 5-4, purpose: x}]\n", [("IMG214", 1, 16)]),
        ("ports: [{port: 5, purpose: 'a\"b'}]\n", [("IMG214", 1, 28)]),
        ("ports: [{port: 5, purpose: x, sources: [10.0.0.1/8]}]\n", [("IMG214", 1, 41)]),
        ("container_images: [busybox]\n", [("IMG214", 1, 20)]),
        ("extends: bse\n", [("IMG211", 1, 10)]),
        ("extends: worker\n", [("IMG211", 1, 10)]),
        ("- a\n", [("IMG210", 1, 1)]),
        ("extends: [a, b]\npackages: a\nmasks: [x]\n",
         [("IMG211", 1, 11), ("IMG211", 1, 14), ("IMG214", 2, 11), ("IMG214", 3, 9)]),
    ],
)  # fmt: skip
def test_faults_are_found_at_their_place(
    tmp_path: Path, text: str, expected: list[tuple[str, int, int]]
) -> None:
    assert findings(tmp_path / "mine", text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("pakages: [a]\n", "did you mean packages?"),
        ("extends: bse\n", "did you mean base?"),
        ("units: [{name: a.service, state: enbled}]\n", "did you mean enabled?"),
        ("sysctls: {net/ipv4/ip_forward: 1}\n", "write dots, not slashes"),
        ("files: [{path: /etc/a, content: x, mode: 0644}]\n", "write '0644'"),
    ],
)
def test_hints(tmp_path: Path, text: str, hint: str) -> None:
    _, report = load(tmp_path / "mine", text)
    assert [f.hint for f in report.findings] == [hint]


def test_a_circle_of_profiles_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.yaml").write_text("extends: b\n")
    (folder / "b.yaml").write_text("extends: a\n")
    _, report = load(folder, "extends: a\n")
    (finding,) = report.findings
    assert finding.code == "IMG211"
    assert "a → b → a" in finding.message


def test_a_profile_that_nothing_uses_is_a_warning_with_a_suggestion(tmp_path: Path) -> None:
    _, report = load(tmp_path / "mine", "packages: [htop]\n", "workers.yaml")
    assert [(f.code, f.severity.value, f.hint) for f in report.findings] == [
        ("IMG212", "warning", "did you mean worker?")
    ]


@pytest.mark.parametrize("name", ["Worker.yaml", "a b.yaml", "worker.yml", "-a.yaml"])
def test_names_of_profiles(tmp_path: Path, name: str) -> None:
    assert findings(tmp_path / "mine", "packages: []\n", name)[0] == ("IMG210", 1, 1)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for folder, severity in (("missing", "error"), ("file", "error"), ("empty", "warning")):
        report = Report()
        load_profiles([str(tmp_path / folder)], report)
        assert [(f.code, f.severity.value) for f in report.findings] == [("IMG210", severity)], folder


def test_a_conflict_with_what_is_shipped_names_both_and_replace_settles_it(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    cluster = write_cluster(tmp_path)
    folder.mkdir()
    mine = folder / "worker.yaml"
    mine.write_text("description: mine\nsysctls:\n  kernel.panic: 20\n")
    plan, report = try_plan(cluster, [folder])
    assert plan is None
    (finding,) = report.findings
    assert (finding.code, str(finding.span)) == ("IMG201", f"{mine}:3:3")
    assert "mine/worker.yaml:3 and imagegen's profiles/worker.yaml:" in finding.message
    mine.write_text("sysctls:\n  kernel.panic: {value: 20, replace: true}\n")
    plan = make_plan(cluster, [folder])
    item = next(
        i for i in plan.node_plan("worker-0").role_plan.items if i.identity == ("sysctl", "kernel.panic")
    )
    assert isinstance(item, Sysctl)
    assert (item.value, str(item.origin)) == ("20", "mine/worker.yaml:2")


def test_a_conflict_with_a_component_is_found_too(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "base.yaml").write_text("units:\n  - {name: swap.target, state: enabled}\n")
    _, report = try_plan(write_cluster(tmp_path), [folder])
    assert {f.code for f in report.findings} == {"IMG201"}
    assert all("component host" in f.message for f in report.findings)


def test_what_is_said_per_node_cannot_be_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "base.yaml").write_text("files:\n  - {path: /etc/hosts, content: x, replace: true}\n")
    plan, report = try_plan(write_cluster(tmp_path), [folder])
    assert plan is None
    (finding,) = report.sorted()
    assert (finding.code, finding.span and finding.span.line) == ("IMG203", 2)
    assert "/etc/hosts differs from node to node" in finding.message


def test_units_and_ports_of_a_profile_reach_the_plan(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "worker.yaml").write_text(
        "users: [exporter]\n"
        "ports:\n  - {port: 9100, purpose: node exporter, sources: [10.240.0.0/16]}\n"
        "units:\n  - name: exporter.service\n    content: |\n"
        "      [Unit]\n      After=network-online.target\n"
        "      [Service]\n      ExecStart=/usr/bin/true %i $x\n"
    )
    plan = make_plan(write_cluster(tmp_path), [folder])
    items = {item.identity: item for item in plan.node_plan("worker-0").role_plan.items}
    unit = items["unit", "exporter.service"]
    assert isinstance(unit, Unit)
    assert unit.content == "[Unit]\nAfter=network-online.target\n[Service]\nExecStart=/usr/bin/true %i $x\n"
    ruleset = items["path", "/etc/imagegen/firewall.nft"]
    assert isinstance(ruleset, File)
    assert 'tcp dport 9100 accept comment "node exporter"' in str(ruleset.content[0])


def test_packages_of_the_cluster_file(tmp_path: Path) -> None:
    plan = make_plan(write_cluster(tmp_path, more="image: {packages: [htop]}\n"))
    for role_plan in plan.role_plans:
        (item,) = [i for i in role_plan.items if i.identity == ("package", "htop")]
        assert isinstance(item, Package)
        assert item.origin.where == "cluster.yaml"


_WORDS = st.one_of(
    st.sampled_from(
        ["packages", "files", "units", "sysctls", "users", "ports", "extends", "path", "content", "name"]
    ),
    st.sampled_from(
        ["source", "mode", "'0644'", "/etc/a", "../a", "vm.swappiness", "true", "~", "a.service", "masks"]
    ),
    st.text(max_size=8),
)
_VALUES = st.recursive(
    _WORDS | st.none() | st.booleans() | st.integers(-9, 99999),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_WORDS, _VALUES, max_size=5))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_profile_is_read_or_refused_with_a_place(tmp_path: Path, data: dict[str, object]) -> None:
    text = emit_yaml(data)
    file = str(tmp_path / "fuzz" / "worker.yaml")
    _, report = load(tmp_path / "fuzz", text)
    for finding in report.findings:
        assert finding.span is not None
        assert finding.span.file == file
        assert finding.span.line <= text.count("\n") + 1
    report.render_text()


def test_what_a_package_of_the_user_brings_cannot_be_judged(tmp_path: Path) -> None:
    """Without the package the unit and the owner are findings with a place; with it they are trusted."""
    folder = tmp_path / "mine"
    folder.mkdir()
    text = "units: [{name: prometheus.service}]\nfiles: [{path: /etc/p, content: x, owner: prometheus}]\n"
    (folder / "worker.yaml").write_text(text)
    _, report = try_plan(write_cluster(tmp_path), [folder])
    assert [(f.code, f.span and f.span.line) for f in report.sorted()] == [("IMG226", 1), ("IMG222", 2)]
    (folder / "worker.yaml").write_text(f"{text}packages: [prometheus]\n")
    make_plan(write_cluster(tmp_path), [folder])


def test_a_misspelt_unit_gets_a_suggestion(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "worker.yaml").write_text("units: [{name: systemd-resolvd.service}]\n")
    _, report = try_plan(write_cluster(tmp_path), [folder])
    assert [(f.code, f.hint) for f in report.findings] == [
        ("IMG226", "did you mean systemd-resolved.service?")
    ]


def test_a_replaced_port_is_the_only_one_in_the_packet_filter(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "base.yaml").write_text(
        "ports: [{port: 22, purpose: ssh, sources: [10.240.0.0/24], replace: true}]\n"
    )
    plan = make_plan(write_cluster(tmp_path), [folder])
    for role_plan in plan.role_plans:
        ruleset = next(i for i in role_plan.items if i.identity == ("path", "/etc/imagegen/firewall.nft"))
        assert isinstance(ruleset, File)
        lines = [line.strip() for line in str(ruleset.content[0]).splitlines() if "dport 22 " in line]
        assert lines == ['ip saddr { 10.240.0.0/24 } tcp dport 22 accept comment "ssh"']
