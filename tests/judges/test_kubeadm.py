"""The real kubeadm over its configuration and over the certificates that lie ready for it.

It works on a folder that looks like the machine (``--rootfs``), so nothing is started and nothing is changed.
"""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from imagegen.diagnostics import Report
from imagegen.kubernetes import kubeadm
from imagegen.kubernetes.apiserver import limits_anonymous
from imagegen.kubernetes.flags import list_flags
from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.releases import known_minors
from imagegen.kubernetes.static_pods import COMPONENTS
from imagegen.model.version import Version, parse_version
from imagegen.pki.issue import issue_material
from imagegen.pki.resolve import resolve_content
from imagegen.pki.store import SecretStore
from imagegen.plan.components.first_boot import read_program
from imagegen.plan.items import ContainerImage, File
from imagegen.plan.plan import Plan
from imagegen.verify.cis import Facts, judge, list_cis_checks
from imagegen.verify.cisfacts import read_plan, read_pod
from tests.judges.test_flags import MIRROR
from tests.judges.tools import Tool
from tests.plan.layouts import NODES, STACKED, list_items
from tests.plan.plans import make_plan, write_cluster

pytestmark = [pytest.mark.judge, pytest.mark.process]


def find_kubeadm(version: Version) -> Path:
    return MIRROR / f"dl.k8s.io/release/v{version}/bin/linux/amd64/kubeadm"


def list_versions() -> list[Version]:
    """The newest version of each minor whose kubeadm is in the mirror."""
    found: dict[str, Version] = {}
    for path in MIRROR.glob("dl.k8s.io/release/v1.*/bin/linux/amd64/kubeadm"):
        version = parse_version(path.parts[-5])
        if version.minor_text in known_minors():
            found[version.minor_text] = max(version, found.get(version.minor_text, version))
    return sorted(found.values())


VERSIONS = list_versions()
needs_kubeadm = pytest.mark.skipif(not VERSIONS, reason=f"no kubeadm in {MIRROR}; make mirror builds one")


def make_layout(folder: Path, version: Version, nodes: tuple[str, ...] = NODES) -> Plan:
    more = "control_plane: {endpoint: 10.240.0.31}\n"
    return make_plan(write_cluster(folder, nodes, version=f"{version}, layout: kubeadm", more=more))


def place_node(plan: Plan, folder: Path, node: str) -> Path:
    """The files of one node below a folder."""
    store, report = SecretStore(folder / "secrets"), Report()
    issue_material(plan.cluster, store, report, now=datetime.now(UTC))
    assert not report.has_errors, report.render_text()
    root = folder / node
    for item in list_items(plan, node):
        if isinstance(item, File) and item.path.startswith(("/etc/kubernetes", "/etc/etcd", "/etc/imagegen")):
            path = root / item.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(resolve_content(item.content, store))
    for name in ("tmp", "etc/kubernetes/manifests", "var/lib/kubelet", "var/log/kubernetes", "var/lib/etcd"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return root


def run(version: Version, root: Path, *arguments: str) -> str:
    """What kubeadm says of the machine in ``root``."""
    user = ["unshare", "--map-root-user"] if os.geteuid() else []
    command = [*user, str(find_kubeadm(version)), "--rootfs", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_kubeadm
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_init_takes_our_files_and_writes_pods_that_start(tmp_path: Path, version: Version) -> None:
    plan = make_layout(tmp_path, version)
    root = place_node(plan, tmp_path, "master-0")
    config = ("--config", kubeadm.CONFIG)
    certificates = run(version, root, "init", "phase", "certs", "all", *config)
    assert "Generating" not in certificates.replace('Generating "sa"', ""), certificates
    assert "Using existing apiserver certificate" in certificates
    run(version, root, "init", "phase", "kubeconfig", "all", *config)
    assert (root / "etc/kubernetes/kubelet.conf").stat().st_size > 0
    said = run(version, root, "init", "phase", "control-plane", "all", *config)
    assert "unknown field" not in certificates + said
    images = {i.reference for i in list_items(plan, "master-0") if isinstance(i, ContainerImage)}
    for component in COMPONENTS:
        pod = yaml.safe_load((root / f"etc/kubernetes/manifests/{component}.yaml").read_text())
        (container,) = pod["spec"]["containers"]
        assert container["image"] in images
        flags = dict(word[2:].partition("=")[::2] for word in container["command"][1:])
        assert set(flags) <= set(list_flags(component, version))
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        for value in (value for value in flags.values() if value.startswith("/etc/kubernetes")):
            assert (root / value.lstrip("/")).is_file(), value
            assert any(value == mount or value.startswith(f"{mount}/") for mount in mounts), value
    ready = yaml.safe_load((root / "etc/kubernetes/manifests/kube-apiserver.yaml").read_text())
    assert "--etcd-servers=https://10.240.0.10:2379" in ready["spec"]["containers"][0]["command"]
    assert "--advertise-address=10.240.0.11" in ready["spec"]["containers"][0]["command"]


@needs_kubeadm
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_init_takes_etcd_on_its_own_machine_as_external(tmp_path: Path, version: Version) -> None:
    """With etcd as our unit on every master kubeadm writes no pod of etcd, and asks those that we name."""
    root = place_node(make_layout(tmp_path, version, STACKED), tmp_path, "master-0")
    config = ("--config", kubeadm.CONFIG)
    run(version, root, "init", "phase", "certs", "all", *config)
    run(version, root, "init", "phase", "control-plane", "all", *config)
    assert run(version, root, "init", "phase", "etcd", "local", *config).count("static Pod manifest") == 0
    pods = {path.name for path in (root / "etc/kubernetes/manifests").iterdir()}
    assert pods == {f"{component}.yaml" for component in COMPONENTS}
    text = (root / "etc/kubernetes/manifests/kube-apiserver.yaml").read_text()
    assert "--etcd-servers=https://10.240.0.11:2379,https://10.240.0.12:2379,https://10.240.0.13:2379" in text


@needs_kubeadm
@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("node", ["master-0", "master-1", "both-0", "worker-0"])
def test_every_file_is_read_without_a_word(tmp_path: Path, version: Version, node: str) -> None:
    """The API of the version, and no field that it does not know."""
    plan = make_layout(tmp_path, version)
    root = place_node(plan, tmp_path, node)
    if load_gates(version).has(kubeadm.COMPONENT, "config validate"):
        said = run(version, root, "config", "validate", "--config", kubeadm.CONFIG)
        assert said.strip() == "ok", said
    else:
        said = run(version, root, "config", "migrate", "--old-config", kubeadm.CONFIG)
    for word in ("unknown", "strict", "deprecated", "ignoring"):
        assert word not in said.lower(), said


@needs_kubeadm
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_it_knows_what_the_program_on_the_machine_says_to_it(version: Version) -> None:
    text = read_program("kubeadm-node")
    for verb in ("init", "join"):
        help_text = subprocess.run(
            [str(find_kubeadm(version)), verb, "--help"], capture_output=True, text=True, check=True
        ).stdout
        lines = [line for line in text.splitlines() if line.strip().startswith(f"kubeadm {verb} --config")]
        assert lines
        for line in lines:
            flags = {word for word in line.split() if word.startswith("--")}
            assert flags <= set(re.findall(r"--[a-z-]+", help_text)), line
            skipped = line.partition("--skip-phases ")[2]
            assert all(re.search(rf"(?m)^{phase} ", help_text) for phase in skipped.split(",") if phase)


@needs_kubeadm
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_what_kubeadm_writes_passes_the_benchmark(tmp_path: Path, version: Version) -> None:
    """The CIS checks of flags, settings and files, over kubeadm's pods and the kubelet's settings."""
    plan = make_layout(tmp_path, version)
    root = place_node(plan, tmp_path, "master-0")
    for phase in ("kubeconfig", "control-plane"):
        run(version, root, "init", "phase", phase, "all", "--config", kubeadm.CONFIG)
    documents = {
        doc["kind"]: doc for doc in yaml.safe_load_all((root / kubeadm.CONFIG.lstrip("/")).read_text())
    }
    node = plan.node_plan("master-0")
    planned = read_plan(node)
    flags = {**planned.flags, "kube-proxy": {}}
    for component in COMPONENTS:
        flags |= read_pod((root / f"etc/kubernetes/manifests/{component}.yaml").read_text())
    facts = Facts(
        flags=flags,
        configurations={
            "kubelet": documents["KubeletConfiguration"],
            "kube-proxy": documents["KubeProxyConfiguration"],
        },
        files=planned.files,
        complete=False,
    )
    verdicts = [judge(check, facts) for check in list_cis_checks(node, version)]
    assert len(verdicts) > 60
    open_at_all = set() if limits_anonymous(load_gates(version)) else {"1.2.1"}
    failed = {verdict.check.id: verdict.problem for verdict in verdicts if not verdict.passed}
    assert set(failed) <= open_at_all, failed


@needs_kubeadm
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_every_image_of_kubeadm_is_in_the_golden_image(tmp_path: Path, version: Version) -> None:
    plan = make_layout(tmp_path, version)
    root = place_node(plan, tmp_path, "master-0")
    wanted = run(version, root, "config", "images", "list", "--config", kubeadm.CONFIG).split()
    images = {i.reference for i in list_items(plan, "master-0") if isinstance(i, ContainerImage)}
    assert {image for image in wanted if image.startswith("registry")} <= images


def test_the_fingerprint_of_the_authority_is_what_openssl_says(tmp_path: Path, openssl: Tool) -> None:
    """The pipeline that the manual of kubeadm names for ``caCertHashes``."""
    plan = make_layout(tmp_path, parse_version("1.36.4"))
    root = place_node(plan, tmp_path, "worker-0")
    (join,) = yaml.safe_load_all((root / "etc/kubernetes/kubeadm.yaml").read_text())
    public = openssl.run("x509", "-in", root / "etc/kubernetes/pki/ca.crt", "-noout", "-pubkey")
    (tmp_path / "public.pem").write_text(public.stdout)
    der = tmp_path / "public.der"
    openssl.run("pkey", "-pubin", "-in", tmp_path / "public.pem", "-outform", "DER", "-out", der)
    digest = openssl.run("dgst", "-sha256", "-r", der).stdout.split()[0]
    assert join["discovery"]["bootstrapToken"]["caCertHashes"] == [f"sha256:{digest}"]
