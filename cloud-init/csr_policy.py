"""What a node may have signed: reads the policy file and decides on one CertificateSigningRequest. Talks to
nobody.

The policy is lines of words: ``serving yes|no``, ``range CIDR`` (where nodes live), ``reserve
ADDRESS|CIDR`` (what no node with a leased address may ask for), ``node NAME ADDRESS|dhcp`` (one for every
kubelet); ``#`` starts a comment. Runs with python3-cryptography 2.8 (Oracle Linux 7) and newer.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Union

from cryptography import x509
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
NODE_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"
BOOTSTRAP_PREFIX = "system:bootstrap:"
BOOTSTRAPPERS = "system:bootstrappers"
NODE_BOOTSTRAPPERS_PREFIX = "system:bootstrappers:imagegen:"

#: An RSA-8192 request with its names is below 3 KiB.
MAX_REQUEST_BYTES = 16384
#: The API server's own minimum, and a leap year.
MIN_EXPIRATION_SECONDS = 600
MAX_EXPIRATION_SECONDS = 366 * 86400

# With RSA keys, and before 1.27 with all, kubelets ask for key encipherment too (kubernetes#111660).
_CLIENT_USAGES = (
    frozenset({"digital signature", "client auth"}),
    frozenset({"digital signature", "key encipherment", "client auth"}),
)
_SERVING_USAGES = (
    frozenset({"digital signature", "server auth"}),
    frozenset({"digital signature", "key encipherment", "server auth"}),
)
_PEM = re.compile(
    rb"\s*-----BEGIN CERTIFICATE REQUEST-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE REQUEST-----\s*"
)
_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Policy:
    """What the cluster file says. ``nodes`` maps a kubelet's name to its address, None for DHCP."""

    serving: bool
    node_range: IPv4Network
    reserved: frozenset[IPv4Address]
    reserved_ranges: tuple[IPv4Network, ...]
    nodes: Mapping[str, IPv4Address | None]

    def may_lease(self, address: IPv4Address) -> bool:
        """Whether DHCP may have given this address to a node: a host of the range that belongs to
        nobody else.
        """
        return (
            address in self.node_range
            and address not in (self.node_range.network_address, self.node_range.broadcast_address)
            and address not in self.reserved
            and not any(address in taken for taken in self.reserved_ranges)
        )


@dataclass(frozen=True)
class Approve:
    """Sign it off, if the requester may ``create`` ``access`` (a subresource of the request; None:
    no further question).
    """

    node: str
    access: str | None


@dataclass(frozen=True)
class Deny:
    """It breaks a rule, for good. ``node`` is empty when the request names none of ours."""

    node: str
    reason: str


@dataclass(frozen=True)
class Ignore:
    """It is not ours to decide, or (``unreadable``) not an object that the API server would store."""

    reason: str
    unreadable: bool = False


Decision = Union[Approve, Deny, Ignore]


class _Refused(Exception):
    """A rule is broken; the text says which."""


def parse_policy(text: str) -> Policy:
    """Read the policy file's text; raises ValueError that names the line."""
    serving: bool | None = None
    node_range: IPv4Network | None = None
    reserved: set[IPv4Address] = set()
    ranges: list[IPv4Network] = []
    nodes: dict[str, IPv4Address | None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        try:
            if not words:
                continue
            if words[0] == "serving" and words[1:] in (["yes"], ["no"]) and serving is None:
                serving = words[1] == "yes"
            elif words[0] == "range" and len(words) == 2 and node_range is None:
                node_range = IPv4Network(words[1])
            elif words[0] == "reserve" and len(words) == 2:
                if "/" in words[1]:
                    ranges.append(IPv4Network(words[1]))
                else:
                    reserved.add(IPv4Address(words[1]))
            elif words[0] == "node" and len(words) == 3 and words[1] not in nodes:
                if _NODE_NAME.fullmatch(words[1]) is None:
                    raise ValueError("not the name of a node")
                address = None if words[2] == "dhcp" else IPv4Address(words[2])
                nodes[words[1]] = address
                if address is not None:
                    reserved.add(address)
            else:
                raise ValueError("unknown or repeated")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}: {line[:80]!r}") from error
    if serving is None or node_range is None:
        raise ValueError("wanted one line 'serving' and one line 'range'")
    return Policy(
        serving=serving,
        node_range=node_range,
        reserved=frozenset(reserved),
        reserved_ranges=tuple(ranges),
        nodes=nodes,
    )


def find_signer(spec: Mapping[str, Any]) -> str:
    """Whom a request is for. Before Kubernetes 1.18 requests name nobody: then their usages say it."""
    if "signerName" in spec:
        return str(spec["signerName"])
    usages = spec.get("usages") or ()
    if "server auth" in usages:
        return SERVING_SIGNER
    return CLIENT_SIGNER if "client auth" in usages else ""


def decide(csr: Mapping[str, Any], policy: Policy) -> Decision:
    """What to do with one CertificateSigningRequest (certificates.k8s.io v1 or v1beta1), as the API server
    sent it.

    Never raises: what cannot be understood is not approved.
    """
    try:
        return _decide(csr, policy)
    except (KeyError, TypeError, AttributeError) as error:
        return Ignore(f"cannot be judged: {type(error).__name__}", unreadable=True)


def _decide(csr: Mapping[str, Any], policy: Policy) -> Decision:
    spec, status = csr["spec"], csr.get("status") or {}
    signer = find_signer(spec)
    if signer not in (CLIENT_SIGNER, SERVING_SIGNER):
        return Ignore("another signer")
    if status.get("conditions") or status.get("certificate"):
        return Ignore("decided already")
    if csr["metadata"].get("deletionTimestamp"):
        return Ignore("being deleted")
    if signer == SERVING_SIGNER and not policy.serving:
        return Ignore("serving certificates are not approved in this cluster")
    node = ""
    try:
        request = load_request(spec.get("request"))
        name = read_node_name(request)
        if name not in policy.nodes:
            raise _Refused("the cluster file has no node of this name with a kubelet")
        node = name
        _check_key(request)
        _check_expiration(spec.get("expirationSeconds"))
        if signer == CLIENT_SIGNER:
            return _decide_client(spec, request, node)
        return _decide_serving(spec, request, node, policy)
    except _Refused as refusal:
        return Deny(node, str(refusal))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in cryptography's Rust code is not an Exception
        return Deny(node, f"the request cannot be read: {type(error).__name__}")


def _decide_client(spec: Mapping[str, Any], request: x509.CertificateSigningRequest, node: str) -> Decision:
    _check_usages(spec, _CLIENT_USAGES)
    if list(request.extensions):
        raise _Refused("a client certificate has no names or extensions of its own")
    groups = _strings(spec.get("groups"))
    if spec["username"] == NODE_PREFIX + node:
        if NODES_GROUP not in groups:
            raise _Refused("the requester is not in group system:nodes")
        return Approve(node, "selfnodeclient")
    if not str(spec["username"]).startswith(BOOTSTRAP_PREFIX):
        raise _Refused("the requester is neither a bootstrap token nor this node")
    own = [group for group in groups if group.startswith(NODE_BOOTSTRAPPERS_PREFIX)]
    if BOOTSTRAPPERS not in groups or own != [NODE_BOOTSTRAPPERS_PREFIX + node]:
        raise _Refused("the bootstrap token belongs to another node")
    return Approve(node, "nodeclient")


def _decide_serving(
    spec: Mapping[str, Any], request: x509.CertificateSigningRequest, node: str, policy: Policy
) -> Decision:
    if spec["username"] != NODE_PREFIX + node or NODES_GROUP not in _strings(spec.get("groups")):
        raise _Refused("only the node itself may ask for its serving certificate")
    _check_usages(spec, _SERVING_USAGES)
    names, addresses = _read_alternative_names(request)
    if any(name != node for name in names):
        raise _Refused("a DNS name is not the name of the node")
    own = policy.nodes[node]
    for address in addresses:
        if own is not None and address != own:
            raise _Refused(f"wanted address {own}, got {address}")
        if own is None and not policy.may_lease(address):
            raise _Refused(f"address {address} is not one that DHCP gives to nodes")
    if len(set(addresses)) > 1:
        raise _Refused("wanted at most one address")
    return Approve(node, None)


def load_request(encoded: object) -> x509.CertificateSigningRequest:
    """The PKCS #10 request out of ``spec.request``: base64 of exactly one PEM block of exactly one
    DER value.
    """
    if not isinstance(encoded, str):
        raise _Refused("the request is missing")
    if len(encoded) > MAX_REQUEST_BYTES * 2:
        raise _Refused("the request is too long")
    try:
        match = _PEM.fullmatch(base64.b64decode(encoded, validate=True))
        if match is None:
            raise _Refused("wanted one PEM block CERTIFICATE REQUEST and nothing else")
        der = base64.b64decode(b"".join(match.group(1).split()), validate=True)
        if len(der) > MAX_REQUEST_BYTES:
            raise _Refused("the request is too long")
        request = x509.load_der_x509_csr(der, default_backend())
        if request.public_bytes(Encoding.DER) != der:
            raise _Refused("the request is not plain DER")
    except (ValueError, TypeError) as error:
        raise _Refused(f"the request cannot be read: {type(error).__name__}") from error
    # cryptography 3.4 accepts versions that do not exist
    info = request.tbs_certrequest_bytes
    if info[2 + (info[1] & 0x7F if info[1] & 0x80 else 0) :][:3] != b"\x02\x01\x00":
        raise _Refused("wanted version 1 of PKCS #10")
    if not request.is_signature_valid:
        raise _Refused("the request's signature is wrong")
    return request


def read_node_name(request: x509.CertificateSigningRequest) -> str:
    """NAME out of a subject that is exactly O=system:nodes, CN=system:node:NAME."""
    parts = [(attribute.oid, attribute.value) for rdn in request.subject.rdns for attribute in rdn]
    single = all(len(list(rdn)) == 1 for rdn in request.subject.rdns)
    values = dict(parts)
    common_name = values.get(NameOID.COMMON_NAME)
    if (
        not single
        or len(parts) != 2
        or values.get(NameOID.ORGANIZATION_NAME) != NODES_GROUP
        or not isinstance(common_name, str)
        or not common_name.startswith(NODE_PREFIX)
    ):
        raise _Refused("wanted the subject O=system:nodes, CN=system:node:NAME and nothing else")
    return common_name[len(NODE_PREFIX) :]


def _check_key(request: x509.CertificateSigningRequest) -> None:
    key, algorithm = request.public_key(), request.signature_hash_algorithm
    if not isinstance(algorithm, (hashes.SHA256, hashes.SHA384, hashes.SHA512)):
        raise _Refused("wanted a signature with SHA-256, SHA-384 or SHA-512")
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)):
            raise _Refused(f"wanted P-256, P-384 or P-521, got {key.curve.name}")
    elif isinstance(key, rsa.RSAPublicKey):
        if not 2048 <= key.key_size <= 8192 or key.public_numbers().e != 65537:
            raise _Refused(f"wanted RSA-2048 to RSA-8192 with exponent 65537, got {key.key_size} bits")
    else:
        raise _Refused("wanted an ECDSA or RSA key")


def _check_expiration(seconds: object) -> None:
    if seconds is None:
        return
    if not isinstance(seconds, int) or not MIN_EXPIRATION_SECONDS <= seconds <= MAX_EXPIRATION_SECONDS:
        raise _Refused("expirationSeconds is not between ten minutes and a year")


def _check_usages(spec: Mapping[str, Any], allowed: Iterable[frozenset[str]]) -> None:
    usages = frozenset(_strings(spec.get("usages")))
    if usages not in allowed:
        raise _Refused(f"usages {', '.join(sorted(usages))[:200] or 'none'} are not what a kubelet asks for")


def _read_alternative_names(request: x509.CertificateSigningRequest) -> tuple[list[str], list[IPv4Address]]:
    """DNS names and addresses of a request whose only extension is one subjectAltName of these two kinds."""
    extensions = list(request.extensions)
    if len(extensions) != 1 or not isinstance(extensions[0].value, x509.SubjectAlternativeName):
        raise _Refused("wanted subjectAltName and no other extension")
    names: list[str] = []
    addresses: list[IPv4Address] = []
    for general in extensions[0].value:
        if isinstance(general, x509.DNSName):
            names.append(general.value)
        elif isinstance(general, x509.IPAddress) and isinstance(general.value, IPv4Address):
            addresses.append(general.value)
        else:
            raise _Refused(f"a {type(general).__name__} is not allowed as a name")
    if not names and not addresses:
        raise _Refused("wanted at least one name or address")
    return names, addresses


def _strings(value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("not a list of strings")
    return value
