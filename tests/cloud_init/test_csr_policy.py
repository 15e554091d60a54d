"""The approver's rules: every legitimate request of a kubelet is approved, no hostile one is."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cloud_init import programs, requests
from tests.cloud_init.requests import (
    CLIENT,
    SERVING,
    alternative_names,
    bootstrapper,
    client_request,
    csr,
    dns,
    extension,
    extension_request,
    ip,
    kubelet,
    rdn,
    sequence,
    serving_request,
    subject,
)

import csr_policy  # type: ignore[import-not-found]  # isort: skip

assert programs.FOLDER

POLICY = csr_policy.parse_policy(
    """
    serving yes
    range 10.240.0.0/24
    reserve 10.32.0.0/16       # services
    reserve 10.240.0.1         # gateway
    reserve 10.240.0.11        # the master
    node worker-0 10.240.0.21
    node worker-1 dhcp
    node worker-2 10.240.0.22
    """
)


def decide(request: dict[str, Any], policy: Any = POLICY) -> Any:
    return csr_policy.decide(request, policy)


W0_NAMES = (dns("worker-0"), ip("10.240.0.21"))

LEGITIMATE: dict[str, tuple[dict[str, Any], str | None]] = {
    "bootstrap, new kubelet": (
        csr(client_request("worker-0").pem, CLIENT, bootstrapper("worker-0")),
        "nodeclient",
    ),
    "bootstrap, kubelet before 1.27 or with an RSA key": (
        csr(
            client_request("worker-0", key="rsa2048").pem,
            CLIENT,
            bootstrapper("worker-0"),
            usages=["digital signature", "key encipherment", "client auth"],
        ),
        "nodeclient",
    ),
    "bootstrap of a DHCP node": (
        csr(client_request("worker-1", key="p384", digest="sha384").pem, CLIENT, bootstrapper("worker-1")),
        "nodeclient",
    ),
    "renewal by the node itself": (
        csr(client_request("worker-0").pem, CLIENT, kubelet("worker-0")),
        "selfnodeclient",
    ),
    "with a lifetime": (
        csr(client_request("worker-0").pem, CLIENT, kubelet("worker-0"), expirationSeconds=86400),
        "selfnodeclient",
    ),
    "CN before O": (
        csr(
            requests.Request(
                subject=sequence(rdn(("550403", "system:node:worker-0")), rdn(("55040a", "system:nodes")))
            ).pem,
            CLIENT,
            kubelet("worker-0"),
        ),
        "selfnodeclient",
    ),
    "serving, static address": (
        csr(serving_request("worker-0", *W0_NAMES).pem, SERVING, kubelet("worker-0")),
        None,
    ),
    "serving, name only": (
        csr(serving_request("worker-0", dns("worker-0")).pem, SERVING, kubelet("worker-0")),
        None,
    ),
    "serving, address only": (
        csr(serving_request("worker-0", ip("10.240.0.21")).pem, SERVING, kubelet("worker-0")),
        None,
    ),
    "serving, leased address": (
        csr(
            serving_request("worker-1", dns("worker-1"), ip("10.240.0.77")).pem, SERVING, kubelet("worker-1")
        ),
        None,
    ),
    "serving, P-521": (
        csr(
            serving_request("worker-0", *W0_NAMES, key="p521", digest="sha512").pem,
            SERVING,
            kubelet("worker-0"),
        ),
        None,
    ),
    "serving, key encipherment": (
        csr(
            serving_request("worker-0", *W0_NAMES).pem,
            SERVING,
            kubelet("worker-0"),
            usages=["key encipherment", "digital signature", "server auth"],
        ),
        None,
    ),
    "line ends of another system": (
        csr(client_request("worker-0").pem.replace(b"\n", b"\r\n"), CLIENT, kubelet("worker-0")),
        "selfnodeclient",
    ),
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_legitimate_requests_are_approved(name: str) -> None:
    request, access = LEGITIMATE[name]
    node = request["spec"]["groups"][1].rpartition(":")[2] if access == "nodeclient" else None
    decision = decide(request)
    assert isinstance(decision, csr_policy.Approve), decision
    assert decision.access == access
    assert node in (None, decision.node)


def _client(pem: bytes | str, **spec: Any) -> dict[str, Any]:
    return csr(pem, CLIENT, bootstrapper("worker-0"), **spec)


def _serving(*names: bytes, node: str = "worker-0", **spec: Any) -> dict[str, Any]:
    return csr(serving_request(node, *names).pem, SERVING, kubelet(node), **spec)


def _pem(**changes: Any) -> bytes:
    return client_request("worker-0", **changes).pem


def _with_subject(encoded: bytes) -> dict[str, Any]:
    return _client(requests.Request(subject=encoded).pem)


_GOOD = _pem()
_GOOD_DER = client_request("worker-0").der

HOSTILE: dict[str, dict[str, Any]] = {
    # who asks
    "token of another node": csr(_GOOD, CLIENT, bootstrapper("worker-2")),
    "token with the groups of two nodes": csr(
        _GOOD, CLIENT, bootstrapper("worker-0", "system:bootstrappers:imagegen:worker-2")
    ),
    "token without a node's group": csr(
        _GOOD, CLIENT, {"username": "system:bootstrap:abc123", "groups": ["system:bootstrappers"]}
    ),
    "token that is no bootstrapper": csr(
        _GOOD,
        CLIENT,
        {"username": "system:bootstrap:abc123", "groups": ["system:bootstrappers:imagegen:worker-0"]},
    ),
    "another node renews": csr(_GOOD, CLIENT, kubelet("worker-2")),
    "a user with a node's name but not its group": csr(
        _GOOD, CLIENT, {"username": "system:node:worker-0", "groups": ["system:authenticated"]}
    ),
    "a service account": csr(
        _GOOD,
        CLIENT,
        {
            "username": "system:serviceaccount:default:default",
            "groups": ["system:bootstrappers", "system:bootstrappers:imagegen:worker-0"],
        },
    ),
    "the admin": csr(_GOOD, CLIENT, {"username": "kubernetes-admin", "groups": ["system:masters"]}),
    "no groups at all": csr(_GOOD, CLIENT, {"username": "system:node:worker-0"}),
    # for whom
    "unknown node": csr(client_request("worker-9").pem, CLIENT, bootstrapper("worker-9")),
    "a node without a kubelet": csr(client_request("master-0").pem, CLIENT, bootstrapper("master-0")),
    "the admin's name": _with_subject(subject("kubernetes-admin")),
    "the admin's group": _with_subject(subject("system:node:worker-0", ["system:masters"])),
    "a second group": _with_subject(subject("system:node:worker-0", ["system:nodes", "system:masters"])),
    "the same group twice": _with_subject(subject("system:node:worker-0", ["system:nodes", "system:nodes"])),
    "no group": _with_subject(subject("system:node:worker-0", [])),
    "two common names": _with_subject(
        sequence(
            rdn(("55040a", "system:nodes")),
            rdn(("550403", "system:node:worker-2")),
            rdn(("550403", "system:node:worker-0")),
        )
    ),
    "two attributes in one RDN": _with_subject(
        sequence(rdn(("55040a", "system:nodes"), ("550403", "system:node:worker-0")))
    ),
    "an organizational unit": _with_subject(
        sequence(
            rdn(("55040a", "system:nodes")), rdn(("55040b", "x")), rdn(("550403", "system:node:worker-0"))
        )
    ),
    "an empty subject": _with_subject(sequence()),
    "an empty node name": csr(client_request("").pem, CLIENT, bootstrapper("")),
    "upper case": csr(client_request("WORKER-0").pem, CLIENT, kubelet("WORKER-0")),
    "a NUL in the name": _with_subject(subject("system:node:worker-0\0.evil")),
    "a new line in the name": _with_subject(subject("system:node:worker-0\n")),
    "a common name that is not UTF-8": _with_subject(
        sequence(rdn(("55040a", "system:nodes")), rdn(("550403", b"system:node:worker-0\xff\xfe")))
    ),
    "a common name of half a megabyte": _with_subject(subject("system:node:" + "a" * 500_000)),
    # what for
    "server use under the client signer": _client(_GOOD, usages=["digital signature", "server auth"]),
    "both uses": _client(_GOOD, usages=["digital signature", "client auth", "server auth"]),
    "signing certificates": _client(_GOOD, usages=["digital signature", "client auth", "cert sign"]),
    "no uses": _client(_GOOD, usages=[]),
    "uses missing": _client(_GOOD, usages=None),
    "only client auth": _client(_GOOD, usages=["client auth"]),
    "a client with alternative names": _client(serving_request("worker-0", *W0_NAMES).pem),
    "a client that wants to be a CA": _client(
        _pem(
            attributes=(
                extension_request(
                    extension(requests.BASIC_CONSTRAINTS_OID, sequence(requests.tlv(0x01, b"\xff")))
                ),
            )
        )
    ),
    "an unknown extension": _client(
        _pem(attributes=(extension_request(extension("2a030405", b"\x05\x00")),))
    ),
    "a lifetime of ten years": _client(_GOOD, expirationSeconds=10 * 365 * 86400),
    "a lifetime below ten minutes": _client(_GOOD, expirationSeconds=1),
    "a negative lifetime": _client(_GOOD, expirationSeconds=-86400),
    "a lifetime that is true": _client(_GOOD, expirationSeconds=True),
    "a lifetime that is a text": _client(_GOOD, expirationSeconds="86400"),
    # keys and signatures
    "a broken signature": _client(_pem(break_signature=True)),
    "SHA-1": _client(_pem(digest="sha1")),
    "RSA 1024": _client(_pem(key="rsa1024")),
    "RSA with exponent 3": _client(_pem(key="rsa2048e3")),
    "P-192": _client(_pem(key="p192")),
    "P-224": _client(_pem(key="p224")),
    "secp256k1": _client(_pem(key="k256")),
    "DSA": _client(_pem(key="dsa")),
    "Ed25519": _client(_pem(key="ed25519")),
    # names of serving certificates
    "no names": _serving(),
    "an empty list of names": csr(
        client_request("worker-0", attributes=(extension_request(alternative_names()),)).pem,
        SERVING,
        kubelet("worker-0"),
    ),
    "the name of another node": _serving(dns("worker-2"), ip("10.240.0.21")),
    "own name and another's": _serving(dns("worker-0"), dns("worker-2")),
    "the API server's name": _serving(dns("kubernetes.default.svc")),
    "a wildcard": _serving(dns("*")),
    "an empty DNS name": _serving(dns("")),
    "a DNS name that is not ASCII": _serving(dns("wörker-0".encode())),
    "a DNS name with NUL": _serving(dns(b"worker-0\0.evil")),
    "own name in capitals": _serving(dns("WORKER-0")),
    "own name with a dot": _serving(dns("worker-0.")),
    "the address of another static node": _serving(dns("worker-0"), ip("10.240.0.22")),
    "own address and another": _serving(ip("10.240.0.21"), ip("10.240.0.30")),
    "the loopback address": _serving(ip("127.0.0.1")),
    "an IPv6 address": _serving(ip("::ffff:10.240.0.21")),
    "an address of three bytes": _serving(requests.tlv(0x87, b"\x0a\xf0\x00")),
    "an address with a mask": _serving(requests.tlv(0x87, b"\x0a\xf0\x00\x15\xff\xff\xff\xff")),
    "DHCP node: the master's address": _serving(ip("10.240.0.11"), node="worker-1"),
    "DHCP node: the gateway": _serving(ip("10.240.0.1"), node="worker-1"),
    "DHCP node: a static node's address": _serving(ip("10.240.0.21"), node="worker-1"),
    "DHCP node: the API service": _serving(ip("10.32.0.1"), node="worker-1"),
    "DHCP node: outside the range": _serving(ip("10.241.0.5"), node="worker-1"),
    "DHCP node: the network itself": _serving(ip("10.240.0.0"), node="worker-1"),
    "DHCP node: the broadcast address": _serving(ip("10.240.0.255"), node="worker-1"),
    "DHCP node: two addresses": _serving(ip("10.240.0.77"), ip("10.240.0.78"), node="worker-1"),
    "an e-mail address": _serving(dns("worker-0"), requests.email("root@worker-0")),
    "a URI": _serving(dns("worker-0"), requests.uri("spiffe://cluster/worker-0")),
    "a directory name": _serving(dns("worker-0"), requests.directory_name("system:node:worker-0")),
    "a registered id": _serving(dns("worker-0"), requests.tlv(0x88, b"\x2a\x03\x04")),
    "an other name": _serving(
        dns("worker-0"),
        requests.tlv(0xA0, requests.oid("2a0304"), requests.tlv(0xA0, requests.tlv(0x0C, b"x"))),
    ),
    "two alternative-name extensions": csr(
        client_request(
            "worker-0",
            attributes=(
                extension_request(alternative_names(dns("worker-0")), alternative_names(dns("kubernetes"))),
            ),
        ).pem,
        SERVING,
        kubelet("worker-0"),
    ),
    "alternative names and key usage": csr(
        client_request(
            "worker-0",
            attributes=(
                extension_request(
                    alternative_names(*W0_NAMES),
                    extension(requests.KEY_USAGE_OID, requests.tlv(0x03, b"\x02\x04")),
                ),
            ),
        ).pem,
        SERVING,
        kubelet("worker-0"),
    ),
    "alternative names that are not DER": csr(
        client_request(
            "worker-0", attributes=(extension_request(extension(requests.SAN_OID, b"\x30\x84\xff\xff")),)
        ).pem,
        SERVING,
        kubelet("worker-0"),
    ),
    "serving asked for with a bootstrap token": csr(
        serving_request("worker-0", *W0_NAMES).pem, SERVING, bootstrapper("worker-0")
    ),
    "serving asked for by another node": csr(
        serving_request("worker-0", *W0_NAMES).pem, SERVING, kubelet("worker-2")
    ),
    "serving with client use": _serving(
        *W0_NAMES, usages=["digital signature", "server auth", "client auth"]
    ),
    "serving with only client use": _serving(*W0_NAMES, usages=["digital signature", "client auth"]),
    # the request's bytes
    "empty": _client(""),
    "missing": _client(_GOOD, request=None),
    "not base64": _client("%%%%"),
    "base64 of nothing": _client(b""),
    "base64 of garbage": _client(bytes(range(256)) * 4),
    "PEM of garbage": _client(requests.to_pem(b"garbage")),
    "PEM of a truncated request": _client(requests.to_pem(_GOOD_DER[:-9])),
    "PEM with bytes behind the request": _client(requests.to_pem(_GOOD_DER + b"\0" * 8)),
    "DER without PEM": _client(_GOOD_DER),
    "two PEM blocks": _client(_GOOD + client_request("worker-2").pem),
    "the same PEM block twice": _client(_GOOD * 2),
    "text before the PEM block": _client(b"hello\n" + _GOOD),
    "a PEM header": _client(_GOOD.replace(b"-----\n", b"-----\nProc-Type: 4,ENCRYPTED\n\n", 1)),
    "the old PEM label": _client(requests.to_pem(_GOOD_DER, "NEW CERTIFICATE REQUEST")),
    "a certificate's label": _client(requests.to_pem(_GOOD_DER, "CERTIFICATE")),
    "ten megabytes": _client(_GOOD + b"\n" * 10_000_000),
    "a deep nest": _client(requests.to_pem(b"\x30\x80" * 4000)),
    "a version from the future": _client(_pem(version=7)),
    "not UTF-8": _client(b"\xff\xfe" + _GOOD),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_are_denied(name: str) -> None:
    decision = decide(HOSTILE[name])
    assert isinstance(decision, csr_policy.Deny), decision
    assert decision.reason
    assert "\n" not in decision.reason
    assert len(decision.reason) < 400


def test_there_are_enough_hostile_requests() -> None:
    assert len(HOSTILE) >= 90


@pytest.mark.parametrize(
    "signer", ["kubernetes.io/kube-apiserver-client", "example.com/mine", "", None, 7, ["x"]]
)
def test_other_signers_are_left_alone(signer: object) -> None:
    request = csr(_GOOD, CLIENT, bootstrapper("worker-0"))
    request["spec"]["signerName"] = signer
    assert isinstance(decide(request), csr_policy.Ignore)


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [{"type": "Approved", "status": "True"}]},
        {"conditions": [{"type": "Denied", "status": "True"}]},
        {"conditions": [{"type": "Failed", "status": "True"}]},
        {"certificate": "eA=="},
    ],
)
def test_decided_requests_are_left_alone(status: dict[str, Any]) -> None:
    request = copy.deepcopy(HOSTILE["unknown node"])
    request["status"] = status
    assert isinstance(decide(request), csr_policy.Ignore)


def test_deleted_requests_are_left_alone() -> None:
    request = copy.deepcopy(HOSTILE["unknown node"])
    request["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert isinstance(decide(request), csr_policy.Ignore)


def test_serving_requests_wait_for_a_person_when_the_cluster_file_says_so() -> None:
    policy = csr_policy.parse_policy("serving no\nrange 10.240.0.0/24\nnode worker-0 10.240.0.21\n")
    serving, _ = LEGITIMATE["serving, static address"]
    client, _ = LEGITIMATE["bootstrap, new kubelet"]
    assert isinstance(decide(serving, policy), csr_policy.Ignore)
    assert isinstance(decide(client, policy), csr_policy.Approve)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    where=st.sampled_from(["metadata", "spec", "status", "request", "usages", "groups", "username"]),
    what=_JSON,
)
def test_objects_of_any_shape_are_never_approved_nor_crash(where: str, what: Any) -> None:
    request = copy.deepcopy(HOSTILE["another node renews"])
    (request if where in request else request["spec"])[where] = what
    assert not isinstance(decide(request), csr_policy.Approve)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_never_approved(data: st.DataObject) -> None:
    der = bytearray(_GOOD_DER)
    der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    assert not isinstance(decide(_client(requests.to_pem(bytes(der)))), csr_policy.Approve)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "range"),
        ("serving yes\n", "range"),
        ("range 10.0.0.0/8\n", "serving"),
        ("serving perhaps\nrange 10.0.0.0/8", "line 1"),
        ("serving yes\nserving no\nrange 10.0.0.0/8", "line 2"),
        ("serving yes\nrange 10.0.0.1/8", "line 2"),
        ("serving yes\nrange 10.0.0.0/8\nnode a b c", "line 3"),
        ("serving yes\nrange 10.0.0.0/8\nnode a dhcp\nnode a dhcp", "line 4"),
        ("serving yes\nrange 10.0.0.0/8\nnode -a dhcp", "line 3"),
        ("serving yes\nrange 10.0.0.0/8\nnode a 10.0.0.999", "line 3"),
        ("serving yes\nrange 10.0.0.0/8\nallow everything", "line 3"),
    ],
)
def test_a_wrong_policy_names_its_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        csr_policy.parse_policy(text)


def test_a_policy_of_ten_thousand_nodes_is_read_quickly() -> None:
    lines = ["serving yes", "range 10.0.0.0/8"]
    lines += [f"node n{i} 10.1.{i // 250}.{1 + i % 250}" for i in range(10_000)]
    policy = csr_policy.parse_policy("\n".join(lines))
    assert len(policy.nodes) == 10_000
    name = "n9999"
    request = csr(serving_request(name, dns(name), ip("10.1.39.250")).pem, SERVING, kubelet(name))
    assert isinstance(decide(request, policy), csr_policy.Approve)


def test_the_request_is_read_from_base64_of_pem() -> None:
    request = csr_policy.load_request(base64.b64encode(_GOOD).decode())
    assert csr_policy.read_node_name(request) == "worker-0"


@pytest.mark.parametrize(
    ("usages", "signer"),
    [
        (["digital signature", "key encipherment", "client auth"], CLIENT),
        (["digital signature", "key encipherment", "server auth"], SERVING),
        (["client auth", "server auth"], SERVING),
        (["cert sign"], ""),
        (None, ""),
    ],
)
def test_requests_of_old_kubelets_are_known_by_their_usages(usages: list[str] | None, signer: str) -> None:
    assert csr_policy.find_signer({"usages": usages}) == signer


def test_an_old_request_for_both_usages_is_denied() -> None:
    body = csr(client_request("worker-0").pem, CLIENT, bootstrapper("worker-0"))
    del body["spec"]["signerName"]
    assert isinstance(csr_policy.decide(body, POLICY), csr_policy.Approve)
    body["spec"]["usages"] = ["digital signature", "client auth", "server auth"]
    assert isinstance(csr_policy.decide(body, POLICY), csr_policy.Deny)
