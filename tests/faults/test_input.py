"""Bad input: every kind of it ends in a located error that helps, never in a traceback."""

from __future__ import annotations

import difflib
import os
import time
from pathlib import Path

import pytest

from imagegen.diagnostics import Report
from imagegen.model.load import load_cluster
from tests.model.texts import BASE, add, edit, findings, load


def load_file(path: Path) -> Report:
    """The report of a file that must not give a cluster."""
    report = Report()
    assert load_cluster(path, report) is None
    assert report.has_errors
    report.render_text()
    report.render_json()
    return report


def test_i1_everything_wrong_with_the_nodes_at_once() -> None:
    text = """\
version: 1
name: demo
kubernetes: {version: 1.36.4}
network:
  nodes: 10.240.0.0/24
  services: 10.32.0.0/16
  pods: 10.32.0.0/17
nodes:
  - {name: etcd-0, roles: [etcd], address: 10.240.0.10}
  - {name: etcd-1, roles: [etcd], address: 10.240.0.10}
  - {name: etcd-0, roles: [lb], address: 10.99.0.10}
  - {name: w, roles: [worker], address: 10.240.0.20, mac: "52:54:00:00:00:01"}
  - {name: v, roles: [worker], address: 10.240.0.21, mac: "52:54:00:00:00:01"}
"""
    found = [(f"{f.span.line}:{f.span.column}", f.code) for f in findings(text) if f.span]
    assert found == [
        ("1:1", "IMG143"),
        ("7:9", "IMG104"),
        ("8:1", "IMG116"),
        ("8:1", "IMG117"),
        ("8:1", "IMG117"),
        ("8:1", "IMG117"),
        ("10:44", "IMG111"),
        ("11:12", "IMG110"),
        ("11:42", "IMG113"),
        ("13:59", "IMG112"),
    ]


NAMES = [
    "-a",
    "a-",
    "a_b",
    "a" * 64,
    "a" * 5000,
    "node.",
    ".node",
    "a.b",
    "../x",
    "..",
    "a/b",
    "/a",
    "CON",
    "Node",
    "",
    " ",
    " a",
    "a ",
    "naïve",
    "💥",
    "日本",
    "a\u202eb",
    "a\u200bb",
    "a\x00b",
    "a\nb",
    "a\r\nb",
    "a\tb",
    "$(x)",
    "`x`",
    "${x}",
    "%{x}",
    "{{7*7}}",
    "{% x %}",
    ";rm",
    "a b",
    "a'b",
    'a"b',
    "a\\b",
    "*",
    "~",
    "%s",
    "٣",
]


def quote(text: str) -> str:
    """``text`` as a double-quoted YAML scalar."""
    out = "".join(c if " " <= c < "\x7f" and c not in '"\\' else f"\\U{ord(c):08X}" for c in text)
    out = out if not set('"\\') & set(text) else "".join(f"\\U{ord(c):08X}" for c in text)
    return f'"{out}"'


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["name: demo", "name: worker-0"])
def test_i2_a_name_is_a_dns_label(name: str, place: str) -> None:
    cluster, report = load(edit((place, f"name: {quote(name)}")))
    assert cluster is None
    (finding,) = report.sorted()
    assert finding.code == "IMG107"
    assert finding.span is not None
    assert (finding.span.line, finding.span.column) == ((2, 7) if "demo" in place else (13, 12))
    text = report.render_text()
    assert all(c == "\n" or c.isprintable() for c in text)
    assert len(text) < 1000


@pytest.mark.parametrize("name", ["a", "0a", "a-0", "a" * 63, "no", "null-0", "xn--bcher-kva"])
def test_i2_a_good_name_is_taken(name: str) -> None:
    cluster, _ = load(edit(("name: demo", f"name: {name}"), ("name: worker-0", f"name: {name}")))
    assert cluster is not None
    assert cluster.name == cluster.nodes[2].name == name


@pytest.mark.parametrize(
    ("raw", "place", "words"),
    [
        (b"", "1:1", "empty"),
        (b"\n\n# x\n", "1:1", "empty"),
        (b"[" * 200_000, "1:65", "nested deeper"),
        (BASE.encode() + b"name: twice\n", "14:1", "given twice"),
        (BASE.replace("  nodes: 10", "\tnodes: 10").encode(), "6:1", "tab"),
        (BASE.encode("utf-16"), "1:1", "UTF-16"),
        (BASE.encode().replace(b"demo", b"d\xe9mo"), "2:8", "0xe9"),
        (BASE.encode().replace(b"demo", b"de\x00mo"), "2:9", "U+0000"),
        (BASE.replace("demo", "!!python/object/apply:os.system [true]").encode(), "2:7", "tag"),
        (BASE.encode() + b"---\n" + BASE.encode(), "14:1", "second document"),
        (BASE.encode() + b"pods: *x\n", "14:7", "no anchor"),
    ],
)
def test_i3_what_is_not_a_cluster_file(raw: bytes, place: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(raw)
    began = time.process_time()
    (finding,) = load_file(path).sorted()
    assert time.process_time() - began < 1
    assert str(finding.span) == f"{path}:{place}"
    assert words in finding.message


def test_i3_merge_keys_and_aliases_are_followed() -> None:
    text = edit(
        ("version: 1\n", "version: 1\n"),
        ("{name: etcd-0, roles: [etcd], ", "&etcd {name: etcd-0, roles: [etcd], "),
    )
    text += "  - {<<: *etcd, name: etcd-1, address: 10.240.0.13}\n"
    text += "  - {<<: *etcd, name: etcd-2, address: 10.240.0.14}\n"
    cluster, report = load(text)
    assert cluster is not None, report.render_text()
    assert [n.name for n in cluster.nodes if n.role_set == "etcd"] == ["etcd-0", "etcd-1", "etcd-2"]


@pytest.mark.parametrize(
    ("pair", "wanted"),
    [
        (("version: 1\n", "version: '1'\n"), "wanted a whole number, got the text '1'"),
        (("version: 1\n", "version: 1.0\n"), "wanted a whole number, got 1.0"),
        (("version: 1\n", "version: 0x1\n"), "wanted a whole number, got 0x1"),
        (("version: 1\n", "version: 01\n"), "wanted a whole number, got 01"),
        (("version: 1\n", "version: 2\n"), "wanted at most 1, got 2"),
        (("version: 1\n", f"version: {'9' * 5000}\n"), "wanted a whole number, got 999"),
        (("name: demo", "name:"), "wanted a name, got nothing"),
        (("name: demo", "name: [demo]"), "wanted a name, got a list"),
        (("name: demo", "name: {a: b}"), "wanted a name, got a mapping"),
        (("roles: [etcd]", "roles: etcd"), "wanted a list, got etcd"),
        (("roles: [etcd]", "roles: []"), "wanted at least one entry, got an empty list"),
        (("roles: [etcd]", "roles: ~"), "wanted a list, got nothing"),
        (("roles: [etcd]", "roles: {etcd: x}"), "wanted a list, got a mapping"),
        (("kubernetes:\n  version: 1.36.4", "kubernetes: 1.36.4"), "wanted a mapping, got 1.36.4"),
        (("version: 1.36.4", "version: 1.30"), "wanted an exact version such as 1.36.4, got 1.30"),
        (add("network", "node_cidr_mask_size: '24'"), "wanted a whole number, got the text '24'"),
        (add("network", "node_cidr_mask_size: 7"), "wanted at least 16, got 7"),
        (("access:\n", "bootstrap: {approve_serving: yes}\naccess:\n"), "wanted true or false, got yes"),
        (("access:\n", "bootstrap: {approve_serving: 1}\naccess:\n"), "wanted true or false, got 1"),
        (("access:\n", "pki:\naccess:\n"), "wanted a mapping, got nothing"),
    ],
)
def test_i3_types_are_those_of_the_schema(pair: tuple[str, str], wanted: str) -> None:
    cluster, report = load(edit(pair))
    assert cluster is None
    (finding,) = report.sorted()
    assert finding.message.startswith(wanted)
    assert len(finding.message) < 200


@pytest.mark.parametrize(
    "entry",
    [
        "..",
        "../..",
        "../../etc",
        "/etc",
        "/",
        "mine/../../outside",
        "escape",
        "escape/inside",
        "loop",
        "pipe",
        "file",
        "missing",
        "",
        "~",
        "x" * 300,
        "x/" * 3000,
        "a\x00b",
        "a\nb",
        "$(pwd)",
    ],
)
def test_i5_a_profile_folder_lies_below_the_file(entry: str, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    (folder / "mine").mkdir(parents=True)
    (tmp_path / "outside" / "inside").mkdir(parents=True)
    (folder / "escape").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to("loop")
    (folder / "file").write_text("")
    os.mkfifo(folder / "pipe")
    began = time.monotonic()
    cluster, report = load(BASE + f"profiles: [{quote(entry)}]\n", folder)
    assert time.monotonic() - began < 2
    assert cluster is None
    (finding,) = report.sorted()
    assert finding.code == "IMG150"
    assert (finding.span.line, finding.span.column) == (14, 12) if finding.span else False


def test_i5_what_traverses_outside_is_called_that(tmp_path: Path) -> None:
    _, report = load(BASE + "profiles: [../other]\n", tmp_path)
    assert report.findings[0].message == "../other traverses outside the folder of the cluster file"


def test_i5_good_profile_folders(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "a" / "b c").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    cluster, report = load(BASE + 'profiles: [mine, "a/b c", ./link]\n', tmp_path)
    assert cluster is not None, report.render_text()
    assert cluster.profile_dirs == tuple(str(tmp_path / p) for p in ("mine", "a/b c", "a"))
    _, report = load(BASE + "profiles: [mine, ./mine]\n", tmp_path)
    assert report.findings[0].message == "the folder ./mine is given twice"
    _, report = load(BASE + "profiles: [mein]\n", tmp_path)
    assert report.findings[0].hint == "did you mean mine?"


@pytest.mark.parametrize(
    ("pair", "hint"),
    [
        (("kubernetes:", "kubernets:"), "did you mean kubernetes?"),
        (("network:", "netwrok:"), "did you mean network?"),
        (("access:", "acces:"), "did you mean access?"),
        (("ssh_authorized_keys", "ssh-authorized-keys"), "did you mean ssh_authorized_keys?"),
        (("ssh_authorized_keys", "ssh_authorised_keys"), "did you mean ssh_authorized_keys?"),
        (add("network", "nameserver: [9.9.9.9]"), "did you mean nameservers?"),
        (add("network", "proxy: iptable"), "did you mean iptables?"),
        (add("network", "cni: flanel"), "did you mean flannel?"),
        (("roles: [etcd]", "rolles: [etcd]"), "did you mean roles?"),
        (("roles: [etcd]", "roles: [etdc]"), "did you mean etcd?"),
        (("roles: [worker]", "roles: [Worker]"), "did you mean worker?"),
        (("access:\n", "targets: [quemu]\naccess:\n"), "did you mean qemu?"),
        (("access:\n", "targets: [vmware, virtual-box]\naccess:\n"), "did you mean virtualbox?"),
        (("access:\n", "image: {os: debain-13}\naccess:\n"), "did you mean debian-13?"),
        (("access:\n", "image: {formats: [qcow]}\naccess:\n"), "did you mean qcow2?"),
        (("access:\n", "pki: {key: ecdsa-256}\naccess:\n"), "did you mean ecdsa-p256?"),
        (("access:\n", "profile: [x]\naccess:\n"), "did you mean profiles?"),
        (("1.36.4", "1.136.4"), "did you mean 1.37.4?"),
        (("1.36.4", "1.38.0"), "did you mean 1.37.0?"),
        (
            ("  version: 1.36.4", "  version: 1.36.4\n  extra_args: {apiserver: {v: 4}}"),
            "did you mean kube-apiserver?",
        ),
    ],
)
def test_i7_a_misspelt_word_gets_a_suggestion(pair: tuple[str, str], hint: str) -> None:
    found = [f.hint for f in findings(edit(pair)) if f.severity.value == "error"]
    assert hint in found


def test_i7_a_strange_word_gets_the_list() -> None:
    (finding,) = findings(edit(add("network", "zzz: 1")))
    assert finding.hint is not None
    assert finding.hint.startswith("known keys are cluster_dns, cni, dns, domain, gateway")
    assert not difflib.get_close_matches("zzz", ["cni", "dns"])


def test_i7_skew_cannot_be_written() -> None:
    """There is one Kubernetes version for all components, so a second one is an unknown key."""
    (finding,) = findings(edit(("address: 10.240.0.21", "address: 10.240.0.21, version: 1.30.0")))
    assert finding.code == "IMG101"
