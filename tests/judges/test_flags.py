"""Real programs over what we say to them: flags, configuration files, in every minor.

``flags.csv`` and ``kubejudge/fields.csv`` were read from the programs of each minor by ``kubejudge/main.go``,
so these tests need no binary. Where binaries are at hand (a mirror, a built kubejudge) they judge as well.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from imagegen.fetch.archive import extract_members
from imagegen.kubernetes.config_fields import config_fields
from imagegen.kubernetes.containerd import SOCKET
from imagegen.kubernetes.flags import every_flag, list_flags
from imagegen.kubernetes.releases import load_releases, newest_patch
from imagegen.model.cluster import Role
from imagegen.model.version import parse_version
from tests.judges.rendered import list_paths, read_fields, render_all, write_objects
from tests.judges.tools import CACHE, Tool
from tests.kubernetes.clusters import MINORS, make_cluster

MIRROR = Path(os.environ.get("IMAGEGEN_MIRROR") or CACHE.parent / "mirror")
KUBEJUDGE = CACHE / "kubejudge"
#: deprecated from the day on which they had to be set: they close ports, or let the kubelet run our own pods
CLOSING = {"address", "allow-privileged", "insecure-port", "port"}
#: the kubelet's validation looks at the machine, too, and that of the tests may have cgroups of version 1
HOST_FINDING = "kubelet is configured to not run on a host using cgroup v1"

#: flags of libraries that only some builds link in
UNREAD = {
    "kube-apiserver": {"cloud-provider-gce-l7lb-src-cidrs"},
    "kube-controller-manager": {"concurrent"},  # concurrent_rc_syncs, cut by the pattern
    "kubelet": {"azure-container-registry-config"},
    "kube-proxy": {"boot-id-file", "machine-id-file"},
}
#: hidden flags, and one that came in a later patch of 1.20
UNSHOWN = {
    "kube-apiserver": {"lease-reuse-duration-seconds"},
    "kube-controller-manager": {"concurrent-rc-syncs"},
    "kubelet": {"experimental-dockershim-root-directory"},
}


#: layouts with the machine on which they differ
LAYOUTS = [("systemd", (Role.WORKER,)), ("static-pods", (Role.MASTER,))]


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS, ids=[layout for layout, _ in LAYOUTS])
@pytest.mark.parametrize("minor", MINORS)
def test_every_flag_is_known_and_not_deprecated(
    tmp_path: Path, minor: str, layout: str, roles: tuple[Role, ...]
) -> None:
    cluster, gates = make_cluster(tmp_path, minor, layout=layout)
    for component, arguments in render_all(cluster, gates, roles).arguments.items():
        known = list_flags(component, cluster.kubernetes.version)
        assert set(arguments) <= set(known), component
        late = {n for n in arguments if known[n].is_deprecated(cluster.kubernetes.version)}
        assert late <= CLOSING, component


@pytest.mark.parametrize(("layout", "roles"), LAYOUTS, ids=[layout for layout, _ in LAYOUTS])
@pytest.mark.parametrize("minor", MINORS)
def test_every_configuration_field_is_known(
    tmp_path: Path, minor: str, layout: str, roles: tuple[Role, ...]
) -> None:
    cluster, gates = make_cluster(tmp_path, minor, layout=layout)
    fields = read_fields(minor)
    for body in render_all(cluster, gates, roles).objects.values():
        rendered = {path for path in list_paths(body) if not path.startswith("featureGates.")}
        assert rendered <= fields[body["kind"]], body["kind"]


def test_the_field_judge_sees_a_wrong_field(tmp_path: Path) -> None:
    """1.30 had no failCgroupV1, and no version ever had failCgroupV9."""
    cluster, gates = make_cluster(tmp_path, "1.36")
    body = dict(render_all(cluster, gates).objects["kubelet"])
    assert set(list_paths(body)) - read_fields("1.30")["KubeletConfiguration"] == {"failCgroupV1"}
    assert set(list_paths(body | {"failCgroupV9": True})) - read_fields("1.36")[body["kind"]] == {
        "failCgroupV9"
    }


def _built_judges() -> list[Path]:
    return sorted(KUBEJUDGE.glob("judge-1.*"))


@pytest.mark.judge
@pytest.mark.parametrize(("layout", "roles"), LAYOUTS, ids=[layout for layout, _ in LAYOUTS])
@pytest.mark.parametrize("minor", MINORS)
def test_kubernetes_own_decoders_accept_every_file(
    tmp_path: Path, minor: str, layout: str, roles: tuple[Role, ...]
) -> None:
    """Strict decoding and validation by the packages of Kubernetes, built by kubejudge/build.sh."""
    judges = [path for path in _built_judges() if path.name.startswith(f"judge-{minor}.")]
    if not judges:
        pytest.skip(f"no kubejudge of {minor} in {KUBEJUDGE}; kubejudge/build.sh makes one in some minutes")
    cluster, gates = make_cluster(tmp_path, minor, layout=layout)
    tool = Tool(name="kubejudge", argv=(str(judges[-1]),))
    for file in write_objects(render_all(cluster, gates, roles), gates, tmp_path):
        done = tool.run(file)
        complaints = [line for line in done.stderr.splitlines() if not line.startswith(HOST_FINDING)]
        assert complaints == [], file.name
        assert done.returncode == 0 or HOST_FINDING in done.stderr, file.name


def _mirrored() -> list[Path]:
    """The folders of programs in the mirror whose minor we render."""
    found = sorted(MIRROR.glob("dl.k8s.io/release/v1.*/bin/linux/amd64"))
    return [folder for folder in found if parse_version(folder.parts[-4]).minor_text in MINORS]


@pytest.mark.judge
def test_real_programs_know_every_flag(tmp_path: Path) -> None:
    """``--help`` of the programs in the mirror lists every flag that we render for their version."""
    folders = _mirrored()
    if not folders:
        pytest.skip(f"no Kubernetes programs in {MIRROR}; make mirror builds them")
    for folder in folders:
        version = parse_version(folder.parts[-4])
        cluster, gates = make_cluster(tmp_path, version.minor_text)
        pods, _ = make_cluster(tmp_path, version.minor_text, layout="static-pods")
        rendered = render_all(cluster, gates).arguments
        master = render_all(pods, gates, (Role.MASTER,)).arguments
        for component, arguments in rendered.items():
            program = folder / component
            if not program.exists():
                continue
            done = Tool(name=component, argv=(str(program),)).run("--help")
            known = set(re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", done.stdout, re.MULTILINE))
            assert len(known) > 20, program
            assert {*arguments, *master[component]} <= known, program
            table = list_flags(component, version)
            assert known - {"help", "version"} <= set(table) | UNREAD.get(component, set()), program
            # --help does not show what is deprecated
            silent = {name for name in set(table) - known - {"help", "version"} if not table[name].deprecated}
            assert silent <= UNSHOWN.get(component, set()), program


@pytest.mark.parametrize("minor", MINORS)
def test_containerd_configuration_is_toml_with_the_sandbox_image(tmp_path: Path, minor: str) -> None:
    cluster, gates = make_cluster(tmp_path, minor)
    config = tomllib.loads(render_all(cluster, gates).containerd)
    pause = load_releases(cluster.kubernetes.version).image("pause")
    assert config["version"] in (2, 3, 4)
    assert f"'{pause}'" in repr(config)


def _dump_containerd(containerd: Tool, folder: Path, minor: str) -> dict[str, object]:
    cluster, gates = make_cluster(folder, minor)
    text = render_all(cluster, gates).containerd.replace("/etc/containerd", str(folder))
    (folder / "config.toml").write_text(text)
    done = containerd.run("--config", folder / "config.toml", "config", "dump")
    assert done.returncode == 0, done.stderr
    assert "unknown" not in done.stderr.lower(), done.stderr
    return tomllib.loads(done.stdout)


def _mirrored_containerd(folder: Path, minor: str) -> Tool:
    part = load_releases(newest_patch(minor)).part("containerd")
    archive = MIRROR / part.url.removeprefix("https://")
    if not archive.exists():
        pytest.skip(f"no {part.file_name} in {MIRROR}; make mirror builds it")
    folder.mkdir()
    extract_members(archive, {part.member("containerd"): folder / "containerd"})
    return Tool(name="containerd", argv=(str(folder / "containerd"),))


@pytest.mark.judge
@pytest.mark.parametrize("minor", ["1.31", "1.34", "1.36"])
def test_containerd_takes_over_every_value(tmp_path: Path, containerd: Tool, minor: str) -> None:
    """containerd 2.1 reads version 3, and version 2 by migration; 2.3 reads 4. The dump is what we meant."""
    tool = _mirrored_containerd(tmp_path / "bin", minor) if minor == "1.36" else containerd
    dump = _dump_containerd(tool, tmp_path, minor)
    plugins = dump["plugins"]
    assert isinstance(plugins, dict)
    images, runtime = plugins["io.containerd.cri.v1.images"], plugins["io.containerd.cri.v1.runtime"]
    pause = load_releases(newest_patch(minor)).image("pause")
    assert images["pinned_images"]["sandbox"] == pause
    assert images["registry"]["config_path"] == f"{tmp_path}/certs.d"
    runc = runtime["containerd"]["runtimes"]["runc"]
    assert runc["options"] == runc["options"] | {"SystemdCgroup": True, "BinaryName": "/usr/local/sbin/runc"}
    cni = runtime["cni"]
    assert "/opt/cni/bin" in (cni.get("bin_dirs") or [cni["bin_dir"]])
    assert cni["conf_dir"] == "/etc/cni/net.d"
    grpc = plugins.get("io.containerd.server.v1.grpc") or dump["grpc"]
    assert isinstance(grpc, dict)
    assert grpc["address"] == SOCKET


@pytest.mark.judge
def test_etcd_knows_the_flags_of_its_version_and_no_others(tmp_path: Path) -> None:
    """Each flag is given to each etcd in the mirror; ``--help`` hides some, and names some that are gone."""
    archives = sorted(MIRROR.glob("github.com/etcd-io/etcd/releases/download/v*/*-linux-amd64.tar.gz"))
    if not archives:
        pytest.skip(f"no etcd in {MIRROR}; make mirror builds it")
    for archive in archives:
        program = tmp_path / archive.parent.name
        extract_members(archive, {f"{archive.name.removesuffix('.tar.gz')}/etcd": program})
        etcd = Tool(name="etcd", argv=(str(program),))
        complaints = {name: etcd.run(f"--{name}=1", "--version").stderr for name in every_flag("etcd")}
        assert any("parse error" in text for text in complaints.values()), "etcd did not read its flags"
        known = {name for name, text in complaints.items() if "flag provided but not defined" not in text}
        assert known == set(list_flags("etcd", parse_version(archive.parent.name))), archive


def test_every_etcd_field_is_known(tmp_path: Path) -> None:
    """Against the flags and security sections of the embedded configuration, release by release."""

    known = {field.path for field in config_fields("etcd").values()}
    known |= {("client-transport-security",), ("peer-transport-security",)}
    for minor in MINORS:
        cluster, gates = make_cluster(tmp_path, minor)
        config = render_all(cluster, gates).etcd
        assert {tuple(path.split(".")) for path in list_paths(config)} <= known
