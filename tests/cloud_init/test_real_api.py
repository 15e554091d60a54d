"""First boot and approver against the real API server, etcd and controller manager, all from our
own Plan and PKI.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from imagegen.emit import emit_yaml_documents
from imagegen.kubernetes.gates import load_gates
from imagegen.kubernetes.manifests.calico import calico
from imagegen.kubernetes.manifests.fit import fit_objects
from imagegen.kubernetes.manifests.metrics_server import metrics_server
from imagegen.kubernetes.manifests.sample import sample
from imagegen.model.cluster import Endpoint, OperatingSystem, Role
from imagegen.model.systems import SYSTEMS
from tests.cloud_init import requests
from tests.cloud_init.real_cluster import RealCluster, Unavailable, read_condition, run_control_plane
from tests.conftest import require_judge
from tests.pki.clusters import make_node, quickstart

HAPROXY_CONFIG = SYSTEMS[OperatingSystem.DEBIAN_13].haproxy_config

pytestmark = [pytest.mark.process, pytest.mark.slow]


#: quickstart behind a load balancer; here it shares its machine with the API server, so its port is another
BALANCED = replace(
    quickstart(),
    nodes=(*quickstart().nodes, make_node("lb-0", [Role.LB], "10.240.0.30")),
    endpoint=Endpoint(host="10.240.0.30", port=8443),
)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    try:
        with run_control_plane(BALANCED, tmp_path_factory.mktemp("real")) as cluster:
            yield cluster
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def balanced(real: RealCluster) -> RealCluster:
    """With haproxy in front, as its node's files say, less what needs the package's own user."""
    haproxy, machine = require_judge("haproxy"), real.machines["lb-0"]
    path = machine.path(HAPROXY_CONFIG)
    text = re.sub(r"^ +(chroot|user|group) .*\n", "", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    real.start("haproxy.service", [*haproxy.argv, "-db", "-f", str(path)], **haproxy.environment())
    return real


@pytest.fixture(scope="module")
def booted(balanced: RealCluster) -> RealCluster:
    """After first boot, with two approvers running, as with several masters: both do everything at once."""
    for _ in range(2):
        balanced.start_unit("master-0", "csr-approver.service")
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(balanced.run_first_boot, ("master-0", "master-0")))
    for done in both:
        assert done.returncode == 0, done.stderr + balanced.read_log("kube-apiserver.service")
    return balanced


def submit(
    real: RealCluster, name: str, pem: bytes, signer: str, usages: list[str], kubeconfig: Path
) -> None:
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": usages},
    }
    real.kubectl("create", "-f", "-", kubeconfig=kubeconfig, stdin=json.dumps(body))


def decided(real: RealCluster, name: str) -> tuple[str, str]:
    """Condition and message of a request, once it has one."""

    def look() -> tuple[str, str] | None:
        csr = real.get("csr", name)
        if not read_condition(csr):
            return None
        return read_condition(csr), csr["status"]["conditions"][0]["message"]

    outcome: tuple[str, str] = real.wait_for(f"a decision on {name}", look)
    return outcome


def certificate(real: RealCluster, name: str) -> x509.Certificate:
    pem = real.wait_for(
        f"a certificate for {name}", lambda: real.get("csr", name)["status"].get("certificate")
    )
    return x509.load_pem_x509_certificate(base64.b64decode(pem))


def bootstrap_kubeconfig(real: RealCluster, node: str) -> Path:
    return real.machines[node].path("/etc/kubernetes/bootstrap.kubeconfig")


def kubelet_kubeconfig(real: RealCluster, node: str, issued: x509.Certificate) -> Path:
    """What the kubelet writes once it has its certificate."""
    config = yaml.safe_load(bootstrap_kubeconfig(real, node).read_text())
    key = requests.key("p256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    config["users"][0]["user"] = {
        "client-certificate-data": base64.b64encode(issued.public_bytes(Encoding.PEM)).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    path = real.folder / f"{node}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


CLIENT_USAGES = ["digital signature", "client auth"]
SERVING_USAGES = ["digital signature", "server auth"]


@pytest.fixture(scope="module")
def joined(booted: RealCluster) -> dict[str, Path]:
    """Both workers joined by TLS bootstrap: node → kubeconfig."""
    out = {}
    for node in ("worker-0", "worker-1"):
        pem = requests.client_request(node).pem
        submit(
            booted, f"join-{node}", pem, requests.CLIENT, CLIENT_USAGES, bootstrap_kubeconfig(booted, node)
        )
        assert decided(booted, f"join-{node}")[0] == "Approved"
        out[node] = kubelet_kubeconfig(booted, node, certificate(booted, f"join-{node}"))
    return out


def test_the_bindings_are_there(booted: RealCluster) -> None:
    names = {item["metadata"]["name"] for item in booted.get("clusterrolebindings")["items"]}
    assert {
        "imagegen:node-bootstrapper",
        "imagegen:nodeclient",
        "imagegen:selfnodeclient",
        "imagegen:kube-apiserver-kubelet-client",
        "imagegen:node-proxier",
        "imagegen:csr-approver",
        "kubeadm:cluster-admins",
    } <= names


@pytest.mark.parametrize(
    ("user", "groups", "question", "answer"),
    [
        ("kubernetes-admin", ["kubeadm:cluster-admins"], ["*", "*", "--all-namespaces"], "yes"),
        ("kube-apiserver-kubelet-client", [], ["get", "nodes/proxy"], "yes"),
        ("kube-apiserver-kubelet-client", [], ["get", "secrets"], "no"),
        ("system:node:worker-0", ["system:nodes"], ["list", "endpointslices.discovery.k8s.io"], "yes"),
        ("imagegen:csr-approver", [], ["watch", "certificatesigningrequests"], "yes"),
        ("imagegen:csr-approver", [], ["create", "certificatesigningrequests"], "no"),
        ("imagegen:csr-approver", [], ["delete", "certificatesigningrequests"], "no"),
        ("imagegen:csr-approver", [], ["get", "secrets", "-n", "kube-system"], "no"),
        (
            "imagegen:csr-approver",
            [],
            ["approve", "signers.certificates.k8s.io/kubernetes.io/kube-apiserver-client"],
            "no",
        ),
        (
            "system:bootstrap:abcdef",
            ["system:bootstrappers"],
            ["create", "certificatesigningrequests"],
            "yes",
        ),
        ("system:bootstrap:abcdef", ["system:bootstrappers"], ["list", "secrets"], "no"),
    ],
)
def test_who_may_do_what(
    booted: RealCluster, user: str, groups: list[str], question: list[str], answer: str
) -> None:
    impersonation = [f"--as={user}", *(f"--as-group={group}" for group in [*groups, "system:authenticated"])]
    done = booted.try_kubectl("auth", "can-i", *question, *impersonation)
    assert done.stdout.strip() == answer, done.stderr


_ASK = """
import ssl, sys, urllib.error, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
for path in sys.argv[2:]:
    try:
        print(urllib.request.urlopen("https://10.240.0.30:8443" + path, context=context).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""


def test_without_a_credential_only_health_can_be_asked_for(booted: RealCluster) -> None:
    ca = booted.machines["worker-0"].path("/etc/kubernetes/pki/ca.crt")
    cluster_info = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
    ask = [sys.executable, "-c", _ASK, str(ca)]
    # the load balancer finds its masters a moment after they are there
    booted.wait_for("the load balancer", lambda: booted.run([*ask, "/readyz"]).returncode == 0)
    done = booted.run([*ask, "/readyz", "/version", cluster_info])
    assert done.stdout.split() == ["200", "401", "401"], done.stderr


def test_every_node_with_a_kubelet_has_a_token_that_expires(booted: RealCluster) -> None:
    secrets = booted.get(
        "secrets", "-n", "kube-system", "--field-selector", "type=bootstrap.kubernetes.io/token"
    )
    found = {}
    for secret in secrets["items"]:
        data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
        found[data["auth-extra-groups"].rpartition(":")[2]] = data
    assert set(found) == {"worker-0", "worker-1"}
    for node, data in found.items():
        token = booted.store.read(f"nodes/{node}/bootstrap-token").decode().strip()
        assert f"{data['token-id']}.{data['token-secret']}" == token
        expiration = datetime.fromisoformat(data["expiration"])
        assert timedelta(hours=23) < expiration - datetime.now(UTC) <= timedelta(hours=24)


def test_cluster_info_is_signed_and_names_the_endpoint(booted: RealCluster) -> None:
    def signed() -> Any:
        data = booted.get("configmap", "cluster-info", "-n", "kube-public")["data"]
        return data if sum(name.startswith("jws-kubeconfig-") for name in data) == 2 else None

    config = yaml.safe_load(booted.wait_for("the signatures", signed)["kubeconfig"])
    (entry,) = config["clusters"]
    assert entry["cluster"]["server"] == "https://10.240.0.30:8443"
    ca = booted.store.read("pki/ca.crt")
    assert base64.b64decode(entry["cluster"]["certificate-authority-data"]) == ca
    assert config["users"] in ([], None)


def test_a_token_may_read_cluster_info(booted: RealCluster) -> None:
    config = bootstrap_kubeconfig(booted, "worker-0")
    text = booted.kubectl(
        "get", "configmap", "cluster-info", "-n", "kube-public", "-o", "name", kubeconfig=config
    )
    assert text == "configmap/cluster-info\n"


def test_the_addons_are_there(booted: RealCluster) -> None:
    service = booted.get("service", "kube-dns", "-n", "kube-system")
    assert service["spec"]["clusterIP"] == "10.32.0.10"
    assert booted.get("deployment", "coredns", "-n", "kube-system")["spec"]["replicas"] == 2
    assert booted.get("daemonset", "flannel", "-n", "kube-flannel")["metadata"]["name"] == "flannel"


def test_nodes_join_by_tls_bootstrap(booted: RealCluster, joined: dict[str, Path]) -> None:
    for node, kubeconfig in joined.items():
        issued = certificate(booted, f"join-{node}")
        assert issued.subject.rfc4514_string() == f"CN=system:node:{node},O=system:nodes"
        whoami = json.loads(booted.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig))
        assert whoami["status"]["userInfo"]["username"] == f"system:node:{node}"


def test_nodes_renew_and_get_serving_certificates(booted: RealCluster, joined: dict[str, Path]) -> None:
    pem = requests.client_request("worker-0").pem
    submit(booted, "renew", pem, requests.CLIENT, CLIENT_USAGES, joined["worker-0"])
    assert decided(booted, "renew")[0] == "Approved"
    for node, address in (("worker-0", "10.240.0.21"), ("worker-1", "10.240.0.99")):
        pem = requests.serving_request(node, requests.dns(node), requests.ip(address)).pem
        submit(booted, f"serve-{node}", pem, requests.SERVING, SERVING_USAGES, joined[node])
        assert decided(booted, f"serve-{node}")[0] == "Approved"
        issued = certificate(booted, f"serve-{node}")
        names = issued.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        assert isinstance(names, x509.SubjectAlternativeName)
        assert names.get_values_for_type(x509.DNSName) == [node]
        assert names.get_values_for_type(x509.IPAddress) == [ip_address(address)]
        usages = issued.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
        assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]  # type: ignore[call-overload]


def test_a_token_is_good_for_its_own_node_only(booted: RealCluster) -> None:
    pem = requests.client_request("worker-1").pem
    submit(booted, "steal", pem, requests.CLIENT, CLIENT_USAGES, bootstrap_kubeconfig(booted, "worker-0"))
    assert decided(booted, "steal") == ("Denied", "the bootstrap token belongs to another node")


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("other-name", (requests.dns("kubernetes"),)),
        ("other-address", (requests.dns("worker-1"), requests.ip("10.240.0.11"))),
        ("wildcard", (requests.dns("*.cluster.local"),)),
    ],
)
def test_a_node_cannot_serve_as_somebody_else(
    booted: RealCluster, joined: dict[str, Path], name: str, names: tuple[bytes, ...]
) -> None:
    pem = requests.serving_request("worker-1", *names).pem
    submit(booted, name, pem, requests.SERVING, SERVING_USAGES, joined["worker-1"])
    outcome, reason = decided(booted, name)
    assert outcome == "Denied"
    assert reason


def test_another_boot_changes_nothing_and_revives_no_token(
    booted: RealCluster, joined: dict[str, Path]
) -> None:
    token = booted.store.read("nodes/worker-1/bootstrap-token").decode().strip()
    secret = f"bootstrap-token-{token.partition('.')[0]}"
    booted.kubectl("delete", "secret", secret, "-n", "kube-system")
    booted.kubectl("scale", "deployment", "coredns", "-n", "kube-system", "--replicas=3")
    booted.kubectl("delete", "clusterrolebinding", "imagegen:nodeclient")
    before = booted.get("configmaps", "-n", "kube-system", "-l", "app.kubernetes.io/managed-by=imagegen")
    done = booted.run_first_boot()
    assert done.returncode == 0, done.stderr
    assert booted.try_kubectl("get", "secret", secret, "-n", "kube-system").returncode != 0
    assert booted.get("deployment", "coredns", "-n", "kube-system")["spec"]["replicas"] == 3
    assert booted.get("clusterrolebinding", "imagegen:nodeclient")["kind"] == "ClusterRoleBinding"
    after = booted.get("configmaps", "-n", "kube-system", "-l", "app.kubernetes.io/managed-by=imagegen")
    assert after["items"] == before["items"]
    assert hashlib.sha256(token.encode()).hexdigest() in json.dumps(after)
    assert token not in json.dumps(after)
    assert token not in done.stdout + done.stderr


def test_everybody_came_through_the_load_balancer(booted: RealCluster, joined: dict[str, Path]) -> None:
    ask = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    done = booted.run([sys.executable, "-c", ask, "http://127.0.0.1:8404/;csv"])
    rows = [line.split(",") for line in done.stdout.splitlines() if line]
    (server,) = [dict(zip(rows[0], row, strict=False)) for row in rows if row[1] == "master-0"]
    assert server["status"] == "UP"
    assert int(server["stot"]) > 0


def test_addons_of_every_choice_are_taken_strictly(booted: RealCluster) -> None:
    """Calico, metrics-server and the sample, by the same program; the API server refuses unknown fields."""
    cluster = booted.cluster
    gates, pods = load_gates(cluster.kubernetes.version), cluster.network.pods
    objects = (
        *calico("registry.example/node:1", "registry.example/cni:1", pods, gates, nftables=True),
        *metrics_server("registry.example/metrics-server:1", gates),
        *sample("registry.example/coredns:1"),
    )
    folder = booted.machines["master-0"].path("/etc/kubernetes/addons")
    (folder / "80-choices.yaml").write_text(emit_yaml_documents(fit_objects(objects, gates)))
    done = booted.run_first_boot("master-0")
    assert done.returncode == 0, done.stderr
    for kind, name, namespace in (
        ("daemonset", "calico-node", "kube-system"),
        ("deployment", "metrics-server", "kube-system"),
        ("service", "sample", "sample"),
    ):
        assert booted.get(kind, name, "-n", namespace)["metadata"]["name"] == name
    assert booted.get("crd", "ippools.crd.projectcalico.org")["spec"]["names"]["kind"] == "IPPool"
