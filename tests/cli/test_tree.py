"""The tree: sizes add up, numbers sort as numbers, long folders are cut."""

from __future__ import annotations

import re

from imagegen.cli.tree import draw_tree, format_size


def test_tree() -> None:
    files = [("plan.json", 100), ("nodes/a/user-data", 2048), ("nodes/a/seed.iso", 1024)]
    assert draw_tree("out", files).splitlines() == [
        "out                 3.1 KiB",
        "├─ nodes/           3.0 KiB",
        "│  └─ a/            3.0 KiB",
        "│     ├─ seed.iso   1.0 KiB",
        "│     └─ user-data  2.0 KiB",
        "└─ plan.json          100 B",
    ]


def test_long_folders_are_cut_and_counted() -> None:
    text = draw_tree("out", [(f"nodes/n{i}/seed.iso", 1024) for i in range(10_000)])
    assert "… 9,992 more" in text
    assert len(text.splitlines()) < 30
    order = re.findall(r"─ (n\d+)/", text)
    assert order == [f"n{i}" for i in range(8)]


def test_sizes() -> None:
    sizes = [format_size(n) for n in (0, 1023, 1024, 1536, 3 << 20, 5 << 30, 7 << 40)]
    assert sizes == ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "3.0 MiB", "5.0 GiB", "7.0 TiB"]
