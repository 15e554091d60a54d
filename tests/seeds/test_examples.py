"""Each seed's example against its source, line by line; what differs is stated beside the example."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from imagegen.backends.cloudinit import CloudInit
from imagegen.cli.examples import list_examples
from imagegen.diagnostics import Report, Severity
from imagegen.kubernetes.flags import list_flags as list_known_flags
from imagegen.kubernetes.releases import known_minors
from imagegen.model.cluster import Role
from imagegen.model.load import load_cluster
from imagegen.model.systems import SYSTEMS
from imagegen.plan.plan import Plan
from imagegen.resources import find_resource
from tests.backends.nodeplans import FakeStore
from tests.plan.plans import try_plan
from tests.seeds.deviations import Deviation, Deviations, find_faults, read_deviations
from tests.seeds.documents import list_flags, list_lines, read_document
from tests.seeds.rendered import list_commands
from tests.seeds.rendered import list_lines as list_rendered

SEEDS = [name for name in list_examples() if name.startswith("seed-") and not name.endswith("-today")]
#: the examples that render a whole document
DOCUMENTS = {f"seed-{name}": name for name in ("s0", "s1", "s2", "s3", "s4") if f"seed-{name}" in SEEDS}


def example(name: str) -> Path:
    return Path(find_resource("examples", name, "cluster.yaml"))


def make_plan(name: str) -> Plan:
    plan, report = try_plan(example(name))
    assert plan is not None, report.render_text()
    return plan


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_line_of_the_source_is_there_or_stated(name: str) -> None:
    faults = find_faults(list_lines(DOCUMENTS[name]), list_rendered(make_plan(name)), read_deviations(name))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", SEEDS)
def test_warnings_are_explained(name: str) -> None:
    report = Report()
    assert load_cluster(example(name), report) is not None, report.render_text()
    found = {each.code for each in report.findings if each.severity is not Severity.NOTE}
    stated = yaml.safe_load(example(name).with_name("deviations.yaml").read_text())
    assert found == set(stated.get("warnings", {}))


@pytest.mark.parametrize("name", [f"{name}-today" for name in SEEDS])
def test_today_is_current_and_clean(name: str) -> None:
    report = Report()
    cluster = load_cluster(example(name), report)
    assert cluster is not None, report.render_text()
    assert cluster.kubernetes.version.minor_text in known_minors()[-3:]
    found = {each.code for each in report.findings if each.severity is not Severity.NOTE}
    stated = yaml.safe_load(example(name.removesuffix("-today")).with_name("deviations.yaml").read_text())
    assert found == set(stated.get("today", {}))
    assert make_plan(name).role_plans


@pytest.fixture(scope="module")
def store() -> FakeStore:
    """Secrets made up by name, and one real certificate: kubeadm's nodes want its hash."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    start = datetime(2026, 11, 21, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    return FakeStore(**{"pki/ca.crt": certificate.public_bytes(serialization.Encoding.PEM)})


@pytest.mark.parametrize("name", [name for name in list_examples() if name.startswith("seed-")])
def test_every_node_has_its_seed(store: FakeStore, name: str) -> None:
    """Nothing that a plan wants is refused when it becomes bytes; an old cloud-init gets what it knows."""
    plan = make_plan(name)
    lowering = CloudInit(plan.cluster, store)
    for node_plan in plan.node_plans():
        document = yaml.safe_load(lowering.lower_node(node_plan).user_data)
        assert document["hostname"] == node_plan.node.name
        deferred = [entry["path"] for entry in document.get("write_files", []) if entry.get("defer")]
        assert not deferred or SYSTEMS[plan.cluster.image.os].defers_files, deferred


@pytest.mark.parametrize("name", [name for name in list_examples() if name.startswith("seed-")])
def test_every_program_knows_its_flags(name: str) -> None:
    """By the lists of flags of the example's own version."""
    plan = make_plan(name)
    version = plan.cluster.kubernetes.version
    seen = set()
    for line in list_commands(plan):
        component, flag = line.removeprefix("flag ").partition("=")[0].split(" --")
        if component.startswith("kube"):
            seen.add(component)
            assert flag in list_known_flags(component, version), f"{component} {version}: --{flag}"
    assert "kubelet" in seen or not plan.cluster.nodes_with(Role.WORKER)


@pytest.mark.parametrize("name", sorted(read_document("s3")["clusters"]))
def test_practice_clusters(name: str) -> None:
    if f"seed-s3-{name}" not in SEEDS:
        pytest.fail(f"there is no example seed-s3-{name}")
    members = read_document("s3")["clusters"][name]
    lines = [f"practice {key}: {value}" for key, value in members.items()]
    ours = list_rendered(make_plan(f"seed-s3-{name}"))
    assert not find_faults(lines, ours, read_deviations(f"seed-s3-{name}"))
    assert "practice lb: 0" in ours


#: counted in the command lines of the sources' units, where a backslash ends every line but the last
COUNTED = {
    ("s0", "etcd"): 17,
    ("s0", "kube-apiserver"): 39,
    ("s0", "kube-controller-manager"): 16,
    ("s0", "kube-scheduler"): 4,
    ("s0", "kubelet"): 21,
    ("s0", "kube-proxy"): 5,
    ("s1", "flanneld"): 6,
    ("s1", "kubelet"): 14,
    ("s1", "kube-proxy"): 6,
    ("s3", "etcd"): 10,
    ("s4", "kube-apiserver"): 28,
    ("s4", "kube-controller-manager"): 12,
    ("s4", "kube-scheduler"): 4,
}


def test_no_flag_of_a_source_got_lost() -> None:
    for (name, component), count in COUNTED.items():
        assert sum(owner == component for owner, _ in list_flags(name)) == count, (name, component)
    assert len(read_document("s0")["certificates"]) == 13
    assert len(read_document("s3")["clusters"]) == 6


SOURCE = ("flag kubelet --a=1", "flag kubelet --b=2", "file /old/path")
OURS = {"flag kubelet --a=1", "file /new/path"}
NAMES = (("/old/path", "/new/path"),)


def judge(*patterns: str, names: tuple[tuple[str, str], ...] = NAMES) -> list[str]:
    return find_faults(SOURCE, OURS, Deviations(names, (Deviation(patterns, "because"),)))


def test_a_statement_is_right_when_it_explains_what_is_missing() -> None:
    assert judge("flag kubelet --b=*") == []


def test_an_unlisted_line_is_found() -> None:
    faults = find_faults(SOURCE, OURS, Deviations(NAMES, ()))
    assert faults == ["not there, not explained: flag kubelet --b=2"]


def test_a_deviation_that_is_no_longer_one_is_found() -> None:
    assert judge("flag kubelet --b=2", "flag kubelet --a=1") == [
        "explained by 'flag kubelet --a=1', but there: flag kubelet --a=1",
        "explains nothing: flag kubelet --a=1",
    ]
    assert judge("flag kubelet *")[0] == "explained by 'flag kubelet *', but there: flag kubelet --a=1"
    assert judge("flag kubelet --b=2", "flag kubelet --c=*") == ["explains nothing: flag kubelet --c=*"]


def test_a_name_that_renames_nothing_is_found() -> None:
    names = (*NAMES, ("/gone", "/new"))
    assert judge("flag kubelet --b=2", names=names) == ["renames nothing: /gone"]
