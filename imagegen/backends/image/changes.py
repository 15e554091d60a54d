"""Why a layer is made anew: its inputs, one by one, against those of the last build of the same image."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from imagegen.backends.image.imageplan import ImagePlan

#: how many changed inputs are named
_SHOWN = 3
#: an input by its name in the hash, as people call it; "" where its parts speak for themselves
_WORDS = {
    "recipe": "the recipe of imagegen",
    "epoch": "SOURCE_DATE_EPOCH",
    "suite": "the release of the base system",
    "hygiene": "the hygiene table",
    "snapshot": "image.snapshot",
    "prepare": "prepare.sh of imagegen",
    "customize": "customize.sh of imagegen",
    "base": "the base system",
    "system": "the packages below",
    "sysusers": "users and groups",
    "size_mib": "image.size",
    "squashfs": "whether it starts from read-only media",
    "arguments": "the kernel's arguments",
    "sums": "how packages' sums are kept",
    "packages": "package ",
    "units": "",
    "entries": "",
}


def keep_inputs(root: Path, images: Iterable[ImagePlan]) -> None:
    """Write down, in the cache at ``root``, what these images were made from: digests, no content. Without
    room for it, the next dry run knows less.
    """
    for image in images:
        rows = {kind: {"key": key, "inputs": _flatten(image.inputs[kind])} for kind, key in image.layers}
        with contextlib.suppress(OSError):
            _write(_place(root, image), json.dumps(rows, indent=1, sort_keys=True))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as handle:
        handle.write(text)
    try:
        os.replace(handle.name, path)
    except OSError:
        os.unlink(handle.name)
        raise


def _place(root: Path, image: ImagePlan) -> Path:
    return root / f"{image.cluster.name}-{image.role_plan.name}.inputs.json"


def explain_layers(root: Path, image: ImagePlan) -> dict[str, str]:
    """Why each layer of ``image`` that is not in the cache would be made, by kind of layer."""
    try:
        former = json.loads(_place(root, image).read_text())
    except (OSError, ValueError):
        former = {}
    return {kind: _explain(former.get(kind), key, image.inputs[kind]) for kind, key in image.layers}


def _explain(former: Mapping[str, object] | None, key: str, inputs: Mapping[str, object]) -> str:
    if not isinstance(former, dict) or not isinstance(former.get("inputs"), dict):
        return "not built here before"
    if former["key"] == key:
        return "no longer in the cache"
    old, new = former["inputs"], _flatten(inputs)
    told = [
        f"{'new' if name not in old else 'gone' if name not in new else 'changed'}: {name}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    rest = [f"{len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
    return ", ".join(told[:_SHOWN] + rest) or "the order of its files"


def _flatten(inputs: Mapping[str, object]) -> dict[str, str]:
    """Every single input by what people call it, with a digest of its value."""
    flat: dict[str, str] = {}
    for name, value in inputs.items():
        word = _WORDS.get(name, name)
        if isinstance(value, Mapping):
            flat |= {f"{word}{key}": _digest(part) for key, part in value.items()}
        elif isinstance(value, tuple):
            flat |= {f"{word}{part}": "" for part in value}
        elif name == "units":
            # ACTION UNIT, one a line
            flat |= dict.fromkeys(str(value).splitlines(), "")
        else:
            flat[word] = _digest(value)
    return flat


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
