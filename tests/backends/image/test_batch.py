"""The summary of a build: sizes and times, and which images are secrets."""

from __future__ import annotations

import json

from imagegen.backends.image.batch import Batch, BuiltImage, render_summary, render_summary_json

BATCH = Batch(
    images=[
        BuiltImage(path="images/x-base.qcow2", sha256="0" * 64, size_bytes=3 << 19, seconds=2.5),
        BuiltImage(path="images/x-a.iso", sha256="1" * 64, size_bytes=1 << 20, seconds=None, is_secret=True),
    ]
)


def test_a_line_for_each_image() -> None:
    assert render_summary(BATCH) == (
        "      1.5 MiB      2.5 s  images/x-base.qcow2\n"
        "      1.0 MiB  unchanged  images/x-a.iso  secret: its node's keys are inside\n"
    )


def test_the_same_for_machines() -> None:
    shared, own = json.loads(render_summary_json(BATCH))["images"]
    assert (shared["size"], shared["seconds"], "secret" in shared) == (3 << 19, 2.5, False)
    assert (own["secret"], own["seconds"], own["sha256"]) == (True, None, "1" * 64)
