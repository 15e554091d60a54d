"""What the quick tier writes into a node before its first start, because a container is not a machine.

Each entry of ``DIFFERENCES`` is a difference to the golden image; the rest of the root tree is the image's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SEED = "/var/lib/cloud/seed/nocloud"
_SEED_FILES = ("user-data", "meta-data", "network-config", "vendor-data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A file of a node that differs from the image's, and why."""

    path: str
    why: str


KUBELET = "/etc/kubernetes/kubelet.yaml"
CONTAINERD = "/etc/containerd/config.toml"

DIFFERENCES = (
    Difference(path="/etc/fstab", why="there is no disk to mount"),
    Difference(
        path=KUBELET,
        why="cgroups are those of this machine, perhaps of version 1; the disk is this machine's, and how "
        "full it is says nothing about the node",
    ),
    Difference(path=CONTAINERD, why="a container may not lower its OOM score"),
    Difference(path="/etc/default/chrony", why="a container may not set this machine's clock"),
    Difference(
        path="/etc/systemd/system/chrony.service.d/50-imagegen-lab.conf",
        why="chrony runs without the right to set the clock",
    ),
    Difference(
        path="/etc/systemd/journald.conf.d/90-imagegen-lab.conf",
        why="the kernel's messages are this machine's",
    ),
)


def write_seed(tree: Path, upper: Path, seed: Path) -> None:
    """Write a node's seed, in place of the one that may be there, into ``upper``, the top of the overlay
    above the image ``tree``.

    ``seed`` is a folder with user-data, meta-data and network-config.
    """
    layer = _Layer(tree, upper)
    for name in _SEED_FILES:
        if (seed / name).exists():
            text = (seed / name).read_text(encoding="utf-8")
            layer.write(f"{SEED}/{name}", name_card(text) if name == "network-config" else text, mode=0o600)


def write_differences(tree: Path, upper: Path) -> None:
    """Write what makes a container of the image ``tree`` into ``upper``, before the node's first start."""
    layer = _Layer(tree, upper)
    layer.write("/etc/fstab", "")
    layer.write("/etc/default/chrony", 'DAEMON_OPTS="-F 1 -x"\n')
    layer.write("/etc/systemd/system/chrony.service.d/50-imagegen-lab.conf", "[Unit]\nConditionCapability=\n")
    layer.write("/etc/systemd/journald.conf.d/90-imagegen-lab.conf", "[Journal]\nReadKMsg=no\n")
    for path, change in ((KUBELET, change_kubelet), (CONTAINERD, change_containerd)):
        text = layer.read(path)
        if text:
            layer.write(path, change(text))


def name_card(network_config: str) -> str:
    """Match by name instead of by hardware address: a virtual Ethernet pair has no permanent one, which is
    what networkd looks at.
    """
    return re.sub(r"^( *)macaddress: .*$", r"\1name: e*", network_config, flags=re.MULTILINE)


def change_kubelet(text: str) -> str:
    """Take cgroups of version 1, and never evict pods or collect images because of this machine's disk."""
    text = text.replace("failCgroupV1: true", "failCgroupV1: false")
    text = re.sub(r"^imageGC(High|Low)ThresholdPercent: .*\n", "", text, flags=re.MULTILINE)
    return (
        f"{text}imageGCHighThresholdPercent: 100\nimageGCLowThresholdPercent: 99\n"
        "evictionHard:\n  memory.available: 50Mi\n"
    )


def change_containerd(text: str) -> str:
    """Set ``restrict_oom_score_adj`` in the table of the CRI plug-in that this version of the file has."""
    version = re.search(r"^version = (\d+)", text, flags=re.MULTILINE)
    plugin = "grpc.v1.cri" if version is not None and int(version[1]) < 3 else "cri.v1.runtime"
    header, setting = f'[plugins."io.containerd.{plugin}"]\n', "restrict_oom_score_adj = true\n"
    return text.replace(header, header + setting) if header in text else f"{text}\n{header}{setting}"


class _Layer:
    """The top layer of an overlay; new folders in it look like those below."""

    def __init__(self, tree: Path, upper: Path) -> None:
        self._tree, self._upper = tree, upper

    def read(self, path: str) -> str:
        """The image's file; empty when there is none."""
        place = self._tree / path.lstrip("/")
        return place.read_text(encoding="utf-8") if place.is_file() else ""

    def write(self, path: str, text: str, *, mode: int | None = None) -> None:
        below, above = self._tree / path.lstrip("/"), self._upper / path.lstrip("/")
        self._make_folder(Path(path.lstrip("/")).parent)
        above.write_text(text, encoding="utf-8")
        if below.is_file():
            _copy_status(below, above)
        above.chmod(mode if mode is not None else (above.stat().st_mode & 0o7777))

    def _make_folder(self, relative: Path) -> None:
        for parent in (*reversed(relative.parents), relative):
            above, below = self._upper / parent, self._tree / parent
            if not above.is_dir():
                above.mkdir(mode=0o755)
                if below.is_dir():
                    _copy_status(below, above)


def _copy_status(source: Path, target: Path) -> None:
    status = source.stat()
    os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)


def list_differences() -> Mapping[str, str]:
    """Why a node of the quick tier differs from its image, by path."""
    return {one.path: one.why for one in DIFFERENCES}
