"""The images of the cluster's own pods (pause, CoreDNS, flannel, metrics-server, the control plane), made of
programs that are built here.
"""

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
from mirror.recipe import coredns_program, find_recipe, metrics_server_program

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
#: daemons that are images as well as programs
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
#: what kube-proxy starts beside them, in one version or another
_PROXY_PACKAGES = (*_FIREWALL_PACKAGES, "conntrack", "ipset", "libipset13t64")
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
        if name in CONTROL_PLANE:
            return self._daemon(name, releases)
        make = {
            "pause": self._pause,
            "coredns": self._coredns,
            "flannel": self._flannel,
            "metrics-server": self._metrics_server,
        }[name]
        return make(releases.image(name), version, releases)

    def origin(self, name: str, releases: Releases) -> str:
        """What ``make`` makes the image from: an image that was made from something else is outdated."""
        version = releases.version(name)
        if name == "flannel":
            return f"flannel {version}; nftables and iptables of Debian {self.firewall.suite}"
        if name == "kube-proxy":
            return f"{name} {version}; nftables, iptables, conntrack of Debian {self.firewall.suite}"
        return f"{name} {version}"

    def _daemon(self, name: str, releases: Releases) -> Image:
        """A daemon of Kubernetes out of the mirror, where the official image has it."""
        part = releases.part(name)
        if not self.mirror.has(part):
            raise Unavailable(f"the mirror has no {name} {part.version}, of which the image is made")
        # the official image lets its API server bind low ports without root, which a pod has to allow
        capability = BIND_SERVICE if name == "kube-apiserver" else ""
        body = self.mirror.path(part.url).read_bytes()
        program = LayerFile(path=f"usr/local/bin/{name}", body=body, capability=capability)
        tools = self._list_firewall(_PROXY_PACKAGES) if name == "kube-proxy" else []
        settings = {"Entrypoint": [f"/usr/local/bin/{name}"], "WorkingDir": "/", "Env": [_PATH]}
        return Image(reference=releases.image(name), files=(program, *tools, *_ACCOUNTS), settings=settings)

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

    def _metrics_server(self, reference: str, version: str, releases: Releases) -> Image:
        target = self._stage("metrics-server", version) / "metrics-server"
        self.go.build(metrics_server_program(version), target)
        files = (LayerFile(path="metrics-server", body=target.read_bytes()), *_ACCOUNTS)
        settings = {"User": "65532", "Entrypoint": ["/metrics-server"], "WorkingDir": "/", "Env": [_PATH]}
        return Image(reference=reference, files=files, settings=settings)

    def _flannel(self, reference: str, version: str, releases: Releases) -> Image:
        daemon = self._find_flanneld(version, releases)
        program = LayerFile(path="opt/bin/flanneld", body=daemon.read_bytes())
        tools = self._list_firewall(_FIREWALL_PACKAGES)
        settings = {"Entrypoint": ["/opt/bin/flanneld"], "Env": [_PATH]}
        return Image(reference=reference, files=(program, *tools, *_ACCOUNTS), settings=settings)

    def _list_firewall(self, packages: tuple[str, ...]) -> list[LayerFile]:
        """What the packages install, with the links that Debian makes when it installs them."""
        files = {
            file.path: file
            for package in packages
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
        return [*files.values(), *(LayerFile(path=path, link=to) for path, to in links.items())]

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
