"""What each part of the catalogue is built from: Go modules and packages, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagegen.kubernetes.releases import KUBERNETES_PARTS, Part
from imagegen.model.version import parse_version
from mirror.gomodules import GoModule, GoProgram

#: Kubernetes to build, newest first: of the two newest minors, the newest patch that is published as a module
KUBERNETES_VERSIONS = ("1.37.1", "1.36.4")

_KUBERNETES = "k8s.io/kubernetes"
_CONTAINERD = "github.com/containerd/containerd/v2"
_PLUGINS = "github.com/containernetworking/plugins"
_FLANNEL = "github.com/flannel-io/flannel"
_CRI_TOOLS = "sigs.k8s.io/cri-tools"
_METRICS_SERVER = "sigs.k8s.io/metrics-server"
_COREDNS = "github.com/coredns/coredns"

_PLUGIN_KINDS: Mapping[str, tuple[str, ...]] = {
    "main": ("bridge", "dummy", "host-device", "ipvlan", "loopback", "macvlan", "ptp", "tap", "vlan"),
    "ipam": ("dhcp", "host-local", "static"),
    "meta": ("bandwidth", "firewall", "portmap", "sbr", "tuning", "vrf"),
}
#: flannel-io/cni-plugin cannot be had as a module; this is the last release of the CNI plug-ins that still
#: holds the same program
#: reflect2 1.0.1 breaks with Go 1.18 and newer; CoreDNS requires 1.0.2 from this version on
_REFLECT2 = GoModule(path="github.com/modern-go/reflect2", version="v1.0.2")
_NEW_REFLECT2 = parse_version("1.9.0")
_LAST_FLANNEL_PLUGIN = GoModule(path=_PLUGINS, version="v0.9.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Programs by the member of the archive they become (one with an empty name for a raw part).

    ``files`` are members that lie in the source already: member → module and path in it. ``note`` tells where
    the result differs from the official one.
    """

    programs: tuple[tuple[str, GoProgram], ...]
    files: tuple[tuple[str, GoModule, str], ...] = ()
    note: str = ""

    @property
    def origin(self) -> str:
        modules = dict.fromkeys(str(program.module) for _, program in self.programs)
        return ", ".join(modules) + (f" ({self.note})" if self.note else "")


def find_recipe(part: Part) -> Recipe | None:
    """How to build a part of the catalogue for amd64, or None when no module holds it."""
    if part.name in KUBERNETES_PARTS:
        return Recipe(programs=(("", _kubernetes_program(part.name, part.version)),))
    make = _RECIPES.get(part.name)
    return make(part) if make else None


def _kubernetes_program(name: str, version: str) -> GoProgram:
    major, minor, _ = version.split(".")
    facts = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "archive",
        # the same bytes from every build; nothing reads the date but `kubectl version`
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return GoProgram(
        module=GoModule(path=_KUBERNETES, version=f"v{version}"),
        package=f"{_KUBERNETES}/cmd/{name}",
        name=name,
        variables=tuple((f"{package}.{key}", value) for package in packages for key, value in facts.items()),
    )


def _etcd(part: Part) -> Recipe:
    folders = {"etcd": "server", "etcdctl": "etcdctl", "etcdutl": "etcdutl"}
    return Recipe(
        programs=tuple(
            (
                part.member(name),
                GoProgram(
                    module=GoModule(path=f"go.etcd.io/etcd/{folder}/v3", version=f"v{part.version}"),
                    package=f"go.etcd.io/etcd/{folder}/v3",
                    name=name,
                    variables=(("go.etcd.io/etcd/api/v3/version.GitSHA", "module"),),
                ),
            )
            for name, folder in folders.items()
        )
    )


def _containerd(part: Part) -> Recipe:
    module = GoModule(path=_CONTAINERD, version=f"v{part.version}")
    return Recipe(
        programs=tuple(
            (
                member,
                GoProgram(
                    module=module,
                    package=f"{_CONTAINERD}/cmd/{member.rpartition('/')[2]}",
                    name=member.rpartition("/")[2],
                    variables=((f"{_CONTAINERD}/version.Version", f"v{part.version}"),),
                    tags=("netgo", "osusergo", "static_build", "urfave_cli_no_docs"),
                ),
            )
            for member in part.members
        )
    )


def _runc(part: Part) -> Recipe:
    path = "github.com/opencontainers/runc"
    program = GoProgram(
        module=GoModule(path=path, version=f"v{part.version}"),
        package=path,
        name="runc",
        tags=("seccomp", "netgo", "osusergo", "urfave_cli_no_docs"),
        cgo=True,
    )
    return Recipe(programs=(("", program),))


def _cni_plugins(part: Part) -> Recipe:
    kinds = {name: kind for kind, names in _PLUGIN_KINDS.items() for name in names}
    module = GoModule(path=_PLUGINS, version=f"v{part.version}")
    names = [(member, member.rpartition("/")[2]) for member in part.members]
    return Recipe(
        programs=tuple(
            (member, _plugin(module, kinds[name], name)) for member, name in names if name in kinds
        )
    )


def _plugin(module: GoModule, kind: str, name: str) -> GoProgram:
    return GoProgram(
        module=module,
        package=f"{_PLUGINS}/plugins/{kind}/{name}",
        name=name,
        variables=((f"{_PLUGINS}/pkg/utils/buildversion.BuildVersion", module.version),),
    )


def _flannel_plugin(part: Part) -> Recipe:
    return Recipe(
        programs=((part.members[0], _plugin(_LAST_FLANNEL_PLUGIN, "meta", "flannel")),),
        note=f"stands in for {part.version}",
    )


def _flannel(part: Part) -> Recipe:
    module = GoModule(path=_FLANNEL, version=f"v{part.version}")
    program = GoProgram(
        module=module,
        package=_FLANNEL,
        name="flanneld",
        variables=((f"{_FLANNEL}/pkg/version.Version", f"v{part.version}"),),
        # one needs a module that cannot be had, the other is an ancient backend in C
        without=(f"{_FLANNEL}/pkg/backend/tencentvpc", f"{_FLANNEL}/pkg/backend/udp"),
    )
    return Recipe(
        programs=((part.member("flanneld"), program),),
        files=((part.member("mk-docker-opts.sh"), module, "dist/mk-docker-opts.sh"),),
        note="without the backends udp and tencentvpc",
    )


def _crictl(part: Part) -> Recipe:
    program = GoProgram(
        module=GoModule(path=_CRI_TOOLS, version=f"v{part.version}"),
        package=f"{_CRI_TOOLS}/cmd/crictl",
        name="crictl",
        variables=((f"{_CRI_TOOLS}/pkg/version.Version", f"v{part.version}"),),
    )
    return Recipe(programs=((part.member("crictl"), program),))


def coredns_program(version: str) -> GoProgram:
    """CoreDNS is shipped as a container image; its program is built the same way."""
    return GoProgram(
        module=GoModule(path=_COREDNS, version=f"v{version}"),
        package=_COREDNS,
        name="coredns",
        instead=(_REFLECT2,) if parse_version(version) < _NEW_REFLECT2 else (),
    )


def _coredns(part: Part) -> Recipe:
    return Recipe(programs=((part.member("coredns"), coredns_program(part.version)),))


def metrics_server_program(version: str) -> GoProgram:
    """metrics-server is shipped as a container image alone."""
    return GoProgram(
        module=GoModule(path=_METRICS_SERVER, version=f"v{version}"),
        package=f"{_METRICS_SERVER}/cmd/metrics-server",
        name="metrics-server",
        variables=(("k8s.io/client-go/pkg/version.gitVersion", f"v{version}"),),
    )


_RECIPES = {
    "coredns": _coredns,
    "etcd": _etcd,
    "containerd": _containerd,
    "runc": _runc,
    "cni-plugins": _cni_plugins,
    "crictl": _crictl,
    "flannel": _flannel,
    "flannel-cni-plugin": _flannel_plugin,
}
