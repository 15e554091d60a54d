"""The flannel image that the mirror made: its nft beside the tables of the nft that runs these tests."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from imagegen.kubernetes.releases import known_minors, load_releases, newest_patch

pytestmark = [pytest.mark.judge, pytest.mark.process]

MIRROR = Path(os.environ.get("IMAGEGEN_MIRROR") or Path.home() / ".cache/imagegen/mirror")
IMAGE = MIRROR / "ghcr.io/v2/flannel-io/flannel"
#: a map as kube-proxy's newest releases make it: nft 1.0.6 crashes when it reads it back
SERVICES = """\
table ip kube-proxy {
  map service-ips {
    typeof ip daddr . meta l4proto . th dport : verdict
    comment "ClusterIP traffic"
  }
}
"""
#: what flannel's masquerading says to nft (pkg/trafficmngr/nftables)
FLANNEL = """\
add table ip flannel-ipv4 { comment "rules for flannel-ipv4" ; }
add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority 100 ; }
add rule ip flannel-ipv4 postrtg ip saddr 10.200.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
"""
SCRIPT = "chroot ROOT nft -f /services.nft && chroot ROOT nft -f /flannel.nft && chroot ROOT nft list ruleset"


def _unpack(folder: Path) -> None:
    version = load_releases(newest_patch(known_minors()[-1])).version("flannel")
    manifest = json.loads((IMAGE / f"manifests/v{version}").read_text())
    for layer in manifest["layers"]:
        with tarfile.open(IMAGE / "blobs" / layer["digest"]) as archive:
            for entry in archive:
                archive.extract(entry, folder)


@pytest.mark.skipif(not IMAGE.is_dir(), reason=f"no flannel image in {MIRROR}; make mirror builds one")
@pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own and chroot want root here")
def test_nft_lives_with_the_tables_of_kube_proxy(tmp_path: Path) -> None:
    _unpack(tmp_path)
    (tmp_path / "services.nft").write_text(SERVICES)
    (tmp_path / "flannel.nft").write_text(FLANNEL)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", SCRIPT.replace("ROOT", str(tmp_path))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "masquerade" in done.stdout
    assert "service-ips" in done.stdout
    tables = subprocess.run(
        ["chroot", str(tmp_path), "iptables", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "nf_tables" in tables.stdout, tables.stderr
