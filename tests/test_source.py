"""Reading: what is a file, what is text, what is YAML, and where everything is."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from imagegen import source
from imagegen.diagnostics import Report
from imagegen.source import MappingNode, PlainText, ScalarNode, SequenceNode, parse_yaml, read_source, to_data
from imagegen.yamltree import MAX_DEPTH, MAX_NODES


def parse(text: str) -> MappingNode:
    report = Report()
    node = parse_yaml(text, "f.yaml", report)
    assert not report.findings, report.render_text()
    assert isinstance(node, MappingNode)
    return node


def refused(text: str) -> list[str]:
    """``LINE:COLUMN CODE`` of the findings; nothing may come back."""
    report = Report()
    assert parse_yaml(text, "f.yaml", report) is None
    return [f"{f.span.line}:{f.span.column} {f.code}" for f in report.sorted() if f.span]


def read(path: Path) -> tuple[str | None, list[str]]:
    report = Report()
    text = read_source(path, report)
    return text, [f"{f.code} {f.message}" for f in report.sorted()]


def test_places_count_characters_not_bytes() -> None:
    node = parse("é: [ü𝒳, zz]\n  \n'日本': {k: ö}\n")
    items = node.get("é")
    assert isinstance(items, SequenceNode)
    assert [(i.line, i.column, i.end_column) for i in items.items] == [(1, 5, 7), (1, 9, 11)]
    key, value = node.entries["日本"]
    assert (key.line, key.column, key.end_column) == (3, 1, 5)
    assert (value.line, value.column, value.end_column) == (3, 7, 13)


@pytest.mark.parametrize("word", ["no", "0644", "1e3", "12:30", "1.30", "0x1F", "2026-01-01", "true", ".inf"])
def test_a_plain_scalar_stays_the_text_that_was_written(word: str) -> None:
    data = to_data(parse(f"a: {word}\nb: '{word}'\nc: \"{word}\"\nd: !!str {word}\n"))
    assert isinstance(data, dict)
    assert set(data.values()) == {word}
    assert [isinstance(v, PlainText) for v in data.values()] == [True, False, False, False]


@pytest.mark.parametrize("word", ["", "~", "null", "Null", "NULL"])
def test_nothing_is_none_unless_quoted(word: str) -> None:
    assert to_data(parse(f"a: {word}\nb: '{word}'\n")) == {"a": None, "b": word}


def test_block_texts_keep_their_lines() -> None:
    assert to_data(parse("a: |\n  one\n  two\nb: >\n  x\n  y\n")) == {"a": "one\ntwo\n", "b": "x y\n"}


def test_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1\r\nname: x\r\n")
    text, found = read(path)
    assert not found
    node = parse(text or "")
    assert (node.entries["name"][0].line, node.entries["name"][0].column) == (2, 1)
    assert to_data(node) == {"version": "1", "name": "x"}


def test_aliases_share_a_node_and_merge_keys_give_way() -> None:
    node = parse("a: &x {k: 1, l: 2}\nb: *x\nc: {<<: *x, k: 3}\nd: {<<: [{k: 8}, *x]}\n'<<': text\n")
    assert node.get("a") is node.get("b")
    assert to_data(node) == {
        "a": {"k": "1", "l": "2"},
        "b": {"k": "1", "l": "2"},
        "c": {"k": "3", "l": "2"},
        "d": {"k": "8", "l": "2"},
        "<<": "text",
    }


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: 2\na: 3\n", "3:1 IMG006"),
        ("a: {x: 1, 'x': 2}", "1:11 IMG006"),
        ("a: 1\n\tb: 2\n", "2:1 IMG005"),
        ("a:\n\t- x\n", "2:1 IMG005"),
        ("a: b: c\n", "1:5 IMG005"),
        ("a: [1, 2\n", "2:1 IMG005"),
        ("a: 'x\n", "2:1 IMG005"),
        ("a: @x\n", "1:4 IMG005"),
        ("%TAG ! tag:x,1:\n---\na: 1\n", "1:1 IMG005"),
        ("a: !!python/object/apply:os.system [x]\n", "1:4 IMG007"),
        ("a: !!binary eA==\n", "1:4 IMG007"),
        ("a: !local x\n", "1:4 IMG007"),
        ("!!map {a: !!set {b}}\n", "1:11 IMG007"),
        ("a: 1\n---\nb: 2\n", "2:1 IMG008"),
        ("", "1:1 IMG008"),
        ("# nothing but a remark\n", "1:1 IMG008"),
        ("a: *x\n", "1:4 IMG010"),
        ("a: &x [1, *x]\n", "1:11 IMG010"),
        ("a: {<<: 3}\n", "1:5 IMG010"),
        ("a: {<<: [{b: 1}, c]}\n", "1:5 IMG010"),
        ("[a]: 1\n", "1:1 IMG011"),
        ("a: &x [1]\n*x : 2\n", "1:4 IMG011"),
        ('a: "\\udcff"\n', "1:7 IMG005"),
        ('a: "\\q"\n', "1:5 IMG005"),
        ("a: x\x00y\n", "1:5 IMG004"),
        ("a: x\x1by\n", "1:5 IMG004"),
        ("a: x\u202ey\n", "1:5 IMG004"),
        ("a: x\u2028y\n", "1:5 IMG004"),
        ("a: x\x85y\n", "1:5 IMG004"),
        ("a: x\ry\n", "1:5 IMG004"),
        ("a: x\ufeffy\n", "1:5 IMG004"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(text: str, place: str) -> None:
    assert refused(text) == [place]


def test_a_duplicate_key_names_both_places() -> None:
    report = Report()
    parse_yaml("a: 1\nb: 2\na: 3\n", "f.yaml", report)
    (finding,) = report.findings
    assert [str(place) for place in finding.also] == ["f.yaml:1:1"]


def test_several_mistakes_are_reported_together() -> None:
    assert refused("a: 1\na: 2\nb: !x 1\nb: 3\n") == ["2:1 IMG006", "3:4 IMG007", "4:1 IMG006"]


def test_escapes_bring_any_character_into_a_text() -> None:
    assert to_data(parse(r'a: "x\u2028y\x85z"')) == {"a": "x\u2028y\x85z"}


def nest(depth: int) -> str:
    return "a: " + "[" * (depth - 1) + "]" * (depth - 1)


def test_depth_has_a_limit() -> None:
    parse(nest(MAX_DEPTH))
    assert refused(nest(MAX_DEPTH + 1)) == [f"1:{MAX_DEPTH + 3} IMG009"]


@pytest.mark.slow
def test_size_has_a_limit() -> None:
    fitting = "[" + "x," * (MAX_NODES - 4) + "x]"
    assert isinstance(parse(f"a: {fitting}").get("a"), SequenceNode)
    assert refused(f"a: {fitting[:-1]},x]")[0].endswith("IMG009")


def test_aliases_count_as_what_they_stand_for() -> None:
    text = "a: &a [" + "x," * 999 + "x]\nb: [" + "*a," * 247 + "*a]\n"
    parse(text)
    assert refused(text.replace("[*a", "[*a, *a"))[0].endswith("IMG009")


def laughs(ways: int, levels: int) -> str:
    rows = ["a0: &a0 [" + ",".join(["x"] * ways) + "]"]
    rows += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * ways) + "]" for n in range(1, levels)]
    return "\n".join(rows)


def merges(levels: int) -> str:
    rows = ["a0: &a0 {" + ",".join(f"k{n}: x" for n in range(99)) + "}"]
    rows += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], n{n}: x}}" for n in range(1, levels)]
    return "\n".join(rows)


BOMBS = {
    "brackets": "[" * 200_000,
    "braces": "{a: " * 200_000,
    "block lists": "- " * 200_000,
    "question marks": "? " * 200_000,
    "indentation": "\n".join(" " * n + "a:" for n in range(2000)),
    "alias bomb": laughs(9, 9),
    "wide alias bomb": laughs(1000, 4),
    "merge bomb": merges(40),
    "many tags": "%TAG !a! b\n" * 300_000,
    "many anchors": "- &x\n" * 700_000,
    "one scalar": "a: " + "x" * 4_000_000,
    "commas": "[" + "a," * 2_000_000 + "]",
    "quotes": "'" * 3_000_000,
    "colons": ":" * 4_000_000,
    "long keys": "\n".join("k" * 900 + f"{n}: 1" for n in range(4000)),
    "remarks": "#\n" * 2_000_000,
    "documents": "---\n" * 1_000_000,
}


#: large, but nothing that is not allowed
HARMLESS = {"one scalar", "long keys", "quotes"}


@pytest.mark.process
@pytest.mark.parametrize("name", list(BOMBS))
def test_no_text_takes_long_or_much_memory(name: str, tmp_path: Path) -> None:
    """In a process of its own, so that its peak memory can be read."""
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[name])
    script = """
        import sys, time
        from pathlib import Path
        from imagegen.diagnostics import Report
        from imagegen.source import read_source, parse_yaml
        report, path = Report(), Path(sys.argv[1])
        began = time.process_time()
        text = read_source(path, report)
        node = parse_yaml(text, str(path), report) if text is not None else None
        # ru_maxrss would count what the parent had when it forked
        peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        print(time.process_time() - began, peak // 1024)
        print(node is None, len(report.render_text()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, text=True, check=True
    )
    seconds, mib, is_refused, length = done.stdout.split()
    assert float(seconds) < 1
    assert int(mib) < 200
    assert int(length) < 20_000
    assert (is_refused == "True") == (name not in HARMLESS)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as stream:
        stream.truncate(50_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    assert read(path) == (None, ["IMG002 wanted at most 4 MiB, got 47.7 MiB"])
    assert time.process_time() - began < 0.2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_the_size_limit_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"#" * source.MAX_BYTES)
    assert read(path)[1] == []
    path.write_bytes(b"#" * (source.MAX_BYTES + 1))
    assert read(path)[1] == ["IMG002 wanted at most 4 MiB, got 4.0 MiB"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_encodings_are_named(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("version: 1\n".encode(encoding))
    text, found = read(path)
    assert text is None
    assert found == ["IMG003 wanted UTF-8, got UTF-16 or UTF-32"]


def test_a_wrong_byte_has_a_place(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("version: 1\nname: é".encode() + b"\xff\n")
    report = Report()
    assert read_source(path, report) is None
    (finding,) = report.findings
    assert str(finding.span) == f"{path}:2:8"
    assert finding.message == "wanted UTF-8, got the byte 0xff"


def test_what_is_no_file_is_said_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    began = time.monotonic()
    assert read(tmp_path / "pipe")[1] == ["IMG001 wanted a regular file, got a pipe"]
    assert read(tmp_path / "folder")[1] == ["IMG001 wanted a regular file, got a folder"]
    assert read(Path("/dev/zero"))[1] == ["IMG001 wanted a regular file, got a device"]
    assert "symbolic links" in read(tmp_path / "loop")[1][0]
    assert "no such file" in read(tmp_path / "missing.yaml")[1][0]
    assert "null byte" in read(Path("a\0b"))[1][0]
    assert "too long" in read(tmp_path / ("x" * 300))[1][0]
    assert time.monotonic() - began < 5


def test_a_folder_with_a_cluster_file_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("version: 1\n")
    report = Report()
    read_source(tmp_path, report)
    assert report.findings[0].hint == f"did you mean {tmp_path}/cluster.yaml?"


def test_a_forbidden_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is played, because root may read everything."""
    path = tmp_path / "c.yaml"
    path.write_text("version: 1\n")

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(source.os, "open", refuse)
    assert read(path)[1] == ["IMG001 cannot be read: permission denied"]


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("version: 1\n")
    real = os.fstat
    calls: list[int] = []

    def fstat(descriptor: int) -> os.stat_result:
        calls.append(descriptor)
        if len(calls) > 1:
            with path.open("a") as stream:
                stream.write("name: x\n")
        return real(descriptor)

    monkeypatch.setattr(source.os, "fstat", fstat)
    assert read(path)[1] == ["IMG001 changed while it was read"]


def test_a_name_that_is_not_text_can_be_shown(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml"))
    report = Report()
    assert read_source(path, report) is None
    report.render_text().encode("utf-8")


def test_nodes_are_small() -> None:
    node = ScalarNode("f", 1, 1, 2, "x", True)
    assert not hasattr(node, "__dict__")
