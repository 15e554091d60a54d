"""The images of the cluster's own pods: pause, CoreDNS and flannel, made of programs that are built here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from imagegen.fetch.archive import extract_members
from imagegen.kubernetes.releases import Releases
from imagegen.run import Runner
from mirror.debian import DebianArchive
from mirror.debian_kubernetes import VERSION as DEBIAN_VERSION
from mirror.debian_kubernetes import DebianMaker
from mirror.gomodules import GoBuilder, GoModule, Unavailable
from mirror.images import BIND_SERVICE, Image, LayerFile, list_files
from mirror.layout import Mirror
from mirror.recipe import coredns_program, find_recipe

_ACCOUNTS = (
    LayerFile(
        path="etc/passwd",
        body=b"root:x:0:0::/:/sbin/nologin\nnonroot:x:65532:65532::/:/sbin/nologin\n",
        mode=0o644,
    ),
    LayerFile(path="etc/group", body=b"root:x:0:\nnonroot:x:65532:\n", mode=0o644),
)
#: the newest stable Debian: an older nft crashes on tables that a newer one of the same machine has made
FIREWALL_SUITE = "trixie"
#: its nft and iptables with every library that they are linked against
_FIREWALL_PACKAGES = (
    *(
        "nftables",
        "iptables",
        "libnftables1",
        "libnftnl11",
        "libxtables12",
        "libip4tc2",
        "libip6tc2",
        "libmnl0",
    ),
    *("libjansson4", "libgmp10", "libedit2", "libbsd0", "libmd0", "libtinfo6", "libnetfilter-conntrack3"),
    *("libnfnetlink0", "libc6"),
)
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodImages:
    """Makes images by name. Every method raises Unavailable and CommandError.

    ``firewall`` is the archive of nft and iptables, ``mirror`` where finished parts are looked for.
    """

    runner: Runner
    go: GoBuilder
    firewall: DebianArchive
    packages: DebianMaker
    mirror: Mirror

    def make(self, name: str, releases: Releases) -> Image:
        version = releases.version(name)
        make = {"pause": self._pause, "coredns": self._coredns, "flannel": self._flannel}[name]
        return make(releases.image(name), version, releases)

    def origin(self, name: str, releases: Releases) -> str:
        """What ``make`` makes the image from: an image that was made from something else is outdated."""
        version = releases.version(name)
        if name == "flannel":
            return f"flannel {version}; nftables and iptables of Debian {self.firewall.suite}"
        return f"{name} {version}"

    def _pause(self, reference: str, version: str, releases: Releases) -> Image:
        if shutil.which("gcc") is None:
            raise Unavailable("gcc is not installed (apt-get install gcc libc6-dev)")
        if str(releases.kubernetes) == DEBIAN_VERSION:
            source = self.packages.find_pause()
        else:
            module = GoModule(path="k8s.io/kubernetes", version=f"v{releases.kubernetes}")
            source = self.go.download(module) / "build/pause/linux/pause.c"
        target = self._stage("pause", version) / "pause"
        flags = ["-Os", "-Wall", "-static", "-s", f"-DVERSION=v{version}"]
        self.runner.run(["gcc", *flags, "-o", str(target), str(source)])
        files = (LayerFile(path="pause", body=target.read_bytes()),)
        return Image(
            reference=reference, files=files, settings={"User": "65535:65535", "Entrypoint": ["/pause"]}
        )

    def _coredns(self, reference: str, version: str, releases: Releases) -> Image:
        target = self._stage("coredns", version) / "coredns"
        self.go.build(coredns_program(version), target)
        program = LayerFile(path="coredns", body=target.read_bytes(), capability=BIND_SERVICE)
        settings = {"User": "nonroot:nonroot", "Entrypoint": ["/coredns"], "WorkingDir": "/", "Env": [_PATH]}
        return Image(reference=reference, files=(program, *_ACCOUNTS), settings=settings)

    def _flannel(self, reference: str, version: str, releases: Releases) -> Image:
        daemon = self._find_flanneld(version, releases)
        files = {
            file.path: file
            for package in _FIREWALL_PACKAGES
            for file in list_files(
                self.firewall.unpack(package),
                "bin",
                "sbin",
                "lib",
                "lib64",
                "usr/sbin",
                "usr/lib",
                "usr/lib64",
            )
            if "/gconv/" not in file.path and "/locale" not in file.path
        }
        # Debian chooses among these with update-alternatives, which nobody runs here.
        links = {
            f"usr/sbin/{name}": "xtables-nft-multi" for name in ("iptables", "ip6tables", "iptables-restore")
        }
        links |= {f"usr/sbin/{name}": "xtables-nft-multi" for name in ("ip6tables-restore", "iptables-save")}
        links |= {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}
        program = LayerFile(path="opt/bin/flanneld", body=daemon.read_bytes())
        linked = [LayerFile(path=path, link=to) for path, to in links.items()]
        settings = {"Entrypoint": ["/opt/bin/flanneld"], "Env": [_PATH]}
        return Image(
            reference=reference, files=(program, *files.values(), *linked, *_ACCOUNTS), settings=settings
        )

    def _find_flanneld(self, version: str, releases: Releases) -> Path:
        """The program of the part that the mirror has, else a new one."""
        part = releases.part("flannel")
        target = self._stage("flannel-image", version) / "flanneld"
        if self.mirror.has(part):
            extract_members(self.mirror.path(part.url), {part.member("flanneld"): target})
            return target
        recipe = find_recipe(part)
        assert recipe is not None
        self.go.build(recipe.programs[0][1], target)
        return target

    def _stage(self, name: str, version: str) -> Path:
        stage = self.go.work / "stage" / f"{name}-{version}"
        stage.mkdir(parents=True, exist_ok=True)
        return stage
