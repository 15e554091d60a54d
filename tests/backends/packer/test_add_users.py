"""``install.sh`` makes users also where there is no systemd-sysusers, by the same table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imagegen.resources import find_resource

pytestmark = pytest.mark.process

TABLE = """\
g etcd 980
g kube 981
u etcd 980:etcd "etcd member" /var/lib/etcd /usr/sbin/nologin
u kube 981:kube "" /nonexistent /usr/sbin/nologin
m kube etcd
"""


def test_users_without_systemd_sysusers(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("groupadd", "useradd", "usermod"):
        (tools / name).write_text(
            f'#!/bin/sh\nfor word in {name} "$@"; do printf "%s|" "$word"; done\necho\n'
        )
    (tools / "getent").write_text('#!/bin/sh\n[ "$2" = kube ] && [ "$1" = group ]\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    (tmp_path / "sysusers.conf").write_text(TABLE)
    functions = find_resource("packer", "install.sh").read_text().partition("\nverify_downloads\n")[0]
    done = subprocess.run(
        ["/bin/sh", "-c", functions + "\nadd_users\n"],
        env={"PATH": str(tools), "IMAGEGEN_PAYLOAD": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "groupadd|--system|--gid|980|etcd|",
        "useradd|--system|--uid|980|--gid|etcd|--comment|etcd member|--home-dir|/var/lib/etcd"
        "|--no-create-home|--shell|/usr/sbin/nologin|etcd|",
        "useradd|--system|--uid|981|--gid|kube|--comment||--home-dir|/nonexistent"
        "|--no-create-home|--shell|/usr/sbin/nologin|kube|",
        "usermod|--append|--groups|etcd|kube|",
    ], done.stderr
