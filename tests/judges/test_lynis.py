"""lynis audits the root file system of a master's golden image, as it is before its first boot.

It runs inside the root, with the image's own sysctl.d(5) files and kernel in place of this machine's: what
systemd-sysctl(8) would have set, had the image booted. Nothing runs in there, so points for running daemons
(syslog, time) are lost.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagegen.run import Runner
from imagegen.verify.roots import unpack_root
from tests.judges.tools import Unavailable, unpack_package
from tests.vm.labs import find_mirror, list_versions, run_imagegen

#: a minimal Debian without any of it has 53
WANTED = 75

#: "klogd is not running": journald reads the kernel's messages, in an image that has booted
NOTHING_RUNS = {"LOGG-2138"}

CLUSTER = """\
version: 1
name: lynis
kubernetes: {{version: {version}}}
network: {{nodes: 10.240.0.0/24}}
image: {{formats: [raw]}}
access: {{ssh_authorized_keys: [ssh-ed25519 {key} ops@example]}}
nodes:
  - {{name: master-0, roles: [etcd, master], address: 10.240.0.11}}
"""
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"

_SYSCTL = """\
#!/bin/sh
# what sysctl.d sets, else what this kernel has
if [ "$1" = -n ]; then
    value=$(cat /usr/lib/sysctl.d/*.conf /etc/sysctl.d/*.conf | sed -n "s/^-\\{0,1\\}$2 *= *//p" | tail -n 1)
    if [ -n "$value" ]; then echo "$value"; exit; fi
fi
exec /usr/sbin/sysctl "$@"
"""
_UNAME = (
    '#!/bin/sh\ncase "$*" in -r) ls /usr/lib/modules | head -n 1 ;; *) exec /usr/bin/uname "$@" ;; esac\n'
)
#: mounts as systemd makes them; everything is undone with the mount namespace
_AUDIT = """\
set -eu
cd "$1"
mount --bind . . && cd "$1"
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o nosuid,noexec,mode=0755 tmpfs dev
for node in null zero random urandom tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
mkdir dev/shm && mount -t tmpfs -o nosuid,nodev,noexec tmpfs dev/shm
mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs run
exec chroot . /usr/bin/env -i LC_ALL=C.UTF-8 PATH=/opt/judge:/usr/sbin:/usr/bin:/sbin:/bin \
    lynis audit system --quick --no-colors --logfile /var/tmp/lynis.log --report-file /var/tmp/lynis.report
"""

pytestmark = [pytest.mark.judge, pytest.mark.process, pytest.mark.long]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The master's root file system, with lynis in it."""
    if os.geteuid() != 0:
        pytest.skip("only root can unpack owners and enter the root")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    try:
        lynis = unpack_package("bookworm", "lynis")
    except Unavailable as error:
        pytest.skip(str(error))
    folder, mirror = tmp_path_factory.mktemp("lynis"), find_mirror()
    cluster = folder / "cluster.yaml"
    cluster.write_text(CLUSTER.format(version=list_versions(mirror)[0], key=KEY))
    run_imagegen(
        "build", str(cluster), "-o", str(folder / "out"), "--mirror", str(mirror), "--offline", "--quiet"
    )
    (folder / "work").mkdir()
    tree = unpack_root(Runner(), folder / "out/images/lynis-etcd+master.raw", folder / "work", set_ids=True)
    for path in ("etc/lynis", "usr/share/lynis", "usr/sbin/lynis"):
        if (lynis / path).is_dir():
            shutil.copytree(lynis / path, tree / path)
        else:
            shutil.copy2(lynis / path, tree / path)
    (tree / "opt/judge").mkdir(parents=True)
    for name, text in (("sysctl", _SYSCTL), ("uname", _UNAME)):
        (tree / "opt/judge" / name).write_text(text)
        (tree / "opt/judge" / name).chmod(0o755)
    yield tree
    shutil.rmtree(folder)


def test_the_hardening_index_of_the_master_image(root: Path) -> None:
    argv = ["unshare", "--mount", "--pid", "--net", "--fork", "--propagation", "private", "sh", "-c", _AUDIT]
    done = subprocess.run([*argv, "sh", str(root)], capture_output=True, text=True, timeout=2400)
    report = root / "var/tmp/lynis.report"
    assert report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    text = report.read_text(errors="replace")
    index = int(re.findall(r"(?m)^hardening_index=(\d+)$", text)[0])
    lost = re.findall(r"(?m)^(?:warning|suggestion)\[\]=([^|]+\|[^|]+)\|", text)
    warnings = re.findall(r"(?m)^warning\[\]=([^|]+\|[^|]+)\|", text)
    assert index >= WANTED, "\n".join(lost)
    assert [warning for warning in warnings if warning.partition("|")[0] not in NOTHING_RUNS] == []
