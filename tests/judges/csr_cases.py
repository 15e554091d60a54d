"""Certificate requests, hostile and legitimate, as data: who sends what, and what must become of it.

``{me}`` is the node that asks, ``{other}`` another one, ``{address}`` and ``{others}`` their addresses,
``{leased}`` a free address of the range. DER comes from ``tests.cloud_init.requests``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.cloud_init import requests
from tests.cloud_init.requests import CLIENT, SERVING

DENIED, UNDECIDED = "Denied", ""
#: signers of Kubernetes that are none of the approver's business, and one that nobody knows
API_CLIENT, LEGACY, UNKNOWN = (
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/legacy-unknown",
    "example.com/mine",
)

CLIENT_USES = ("digital signature", "client auth")
SERVING_USES = ("digital signature", "server auth")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request. ``by``: token, token-of-other, node, other-node, leaser (a node with DHCP), its token,
    master (the API server's own client certificate) or admin.

    ``outcome`` is what the approver says, or the HTTP status with which the API server refuses to store it.
    """

    by: str
    signer: str = CLIENT
    common_name: str = "system:node:{me}"
    organizations: tuple[str, ...] = ("system:nodes",)
    #: ``KIND:VALUE`` with the kinds dns, ip, uri and email
    names: tuple[str, ...] = ()
    #: further extensions, in hexadecimal: OID → DER
    extensions: Mapping[str, str] = field(default_factory=dict)
    uses: tuple[str, ...] | None = None
    key: str = "p256"
    digest: str = "sha256"
    broken_signature: bool = False
    seconds: int | None = None
    #: sent in the object, where an honest client leaves it to the API server
    claimed: Mapping[str, object] = field(default_factory=dict)
    outcome: str | int = DENIED
    #: part of the approver's words
    says: str = ""

    def request(self, words: Mapping[str, str]) -> bytes:
        """The PEM of the request with ``words`` filled in."""
        kinds = {"dns": requests.dns, "ip": requests.ip, "uri": requests.uri, "email": requests.email}
        names = [name.format_map(words).partition(":") for name in self.names]
        extensions = [requests.extension(oid, bytes.fromhex(der)) for oid, der in self.extensions.items()]
        if names:
            encoded = (kinds[kind](value) for kind, _, value in names)
            extensions.insert(0, requests.alternative_names(*encoded))
        return requests.Request(
            subject=requests.subject(self.common_name.format_map(words), self.organizations),
            attributes=(requests.extension_request(*extensions),) if extensions else (),
            key=self.key,
            digest=self.digest,
            break_signature=self.broken_signature,
        ).pem

    @property
    def usages(self) -> list[str]:
        return list(self.uses or (SERVING_USES if self.signer == SERVING else CLIENT_USES))


def serving(*names: str, by: str = "node", **rest: object) -> Case:
    """A request for a serving certificate."""
    return Case(by=by, signer=SERVING, names=names, **rest)  # type: ignore[arg-type]


OWN = ("dns:{me}", "ip:{address}")
_CA = {requests.BASIC_CONSTRAINTS_OID: "30030101ff"}
_CERT_SIGN = {requests.KEY_USAGE_OID: "03020204"}

HOSTILE: Mapping[str, Case] = {
    # another identity
    "token: another node": Case(
        by="token", common_name="system:node:{other}", says="belongs to another node"
    ),
    "token of another node": Case(by="token-of-other", says="belongs to another node"),
    "token: a node that does not exist": Case(
        by="token", common_name="system:node:worker-99", says="no node of this name"
    ),
    "token: a master without a kubelet": Case(
        by="token", common_name="system:node:master-0", says="no node of this name"
    ),
    "token: the admin": Case(
        by="token", common_name="kubernetes-admin", organizations=("kubeadm:cluster-admins",), says="subject"
    ),
    "token: system:masters": Case(by="token", organizations=("system:masters",), says="subject"),
    "token: a group more": Case(by="token", organizations=("system:nodes", "system:masters"), says="subject"),
    "token: no group": Case(by="token", organizations=(), says="subject"),
    "token: the scheduler": Case(by="token", common_name="system:kube-scheduler", says="subject"),
    "node: another node's client certificate": Case(
        by="node", common_name="system:node:{other}", says="neither"
    ),
    "node: in capitals": Case(by="node", common_name="SYSTEM:NODE:{me}", says="subject"),
    "node: a name with a blank": Case(by="node", common_name="system:node:{me} ", says="no node of this"),
    "node: a name with NUL": Case(by="node", common_name="system:node:{me}\0", says="no node of this name"),
    "node: a name of 60,000 characters": Case(
        by="node", common_name="system:node:" + "a" * 60_000, says="too long"
    ),
    "node: an empty name": Case(by="node", common_name="system:node:", says="no node of this name"),
    "node: a path for a name": Case(
        by="node", common_name="system:node:../../{me}", says="no node of this name"
    ),
    "node: letters that look alike": Case(
        by="node", common_name="system:node:{me}\u200b", says="no node of this name"
    ),
    "the API server's own client": Case(by="master", outcome=403),
    "the admin asks for a node": Case(by="admin", says="neither a bootstrap token nor this node"),
    "forged user name": Case(
        by="token-of-other",
        claimed={"username": "system:node:{me}", "groups": ["system:nodes", "system:masters"]},
        says="belongs to another node",
    ),
    # other signers: never signed off by us, nor by anybody else
    "a client that is no kubelet": Case(by="node", signer=API_CLIENT, outcome=UNDECIDED),
    "system:masters from the client signer": Case(
        by="node", signer=API_CLIENT, organizations=("system:masters",), outcome=403
    ),
    "the legacy signer": Case(by="node", signer=LEGACY, names=("dns:kubernetes",), outcome=422),
    "a signer that nobody knows": Case(by="node", signer=UNKNOWN, outcome=UNDECIDED),
    "a token and the client signer": Case(by="token", signer=API_CLIENT, outcome=UNDECIDED),
    # purposes
    "client: for servers": Case(by="node", uses=SERVING_USES, says="usages"),
    "client: for both": Case(by="token", uses=(*CLIENT_USES, "server auth"), says="usages"),
    "client: to sign certificates": Case(by="node", uses=(*CLIENT_USES, "cert sign"), says="usages"),
    "client: for anything": Case(by="token", uses=("any",), says="usages"),
    "client: a usage that does not exist": Case(by="node", uses=("world domination",), outcome=422),
    "serving: for clients": serving(*OWN, uses=CLIENT_USES, says="usages"),
    "serving: for code": serving(*OWN, uses=(*SERVING_USES, "code signing"), says="usages"),
    "client: a CA": Case(by="token", extensions=_CA, says="no names or extensions"),
    "serving: a CA": serving(*OWN, extensions=_CA, says="no other extension"),
    "serving: that may sign": serving(*OWN, extensions=_CERT_SIGN, says="no other extension"),
    "client: with names": Case(by="node", names=("dns:kubernetes",), says="no names or extensions"),
    # names of servers
    "serving: no name": serving(says="subjectAltName"),
    "serving: another node's name": serving("dns:{other}", "ip:{address}", says="DNS name"),
    "serving: one name too many": serving(*OWN, "dns:{other}", says="DNS name"),
    "serving: the API server": serving("dns:kubernetes.default.svc.cluster.local", says="DNS name"),
    "serving: the API server, short": serving("dns:kubernetes", says="DNS name"),
    "serving: the master's name": serving("dns:master-0", says="DNS name"),
    "serving: localhost": serving("dns:localhost", says="DNS name"),
    "serving: everything": serving("dns:*", says="DNS name"),
    "serving: a wildcard of its own": serving("dns:*.{me}", says="DNS name"),
    "serving: a suffix": serving("dns:{me}.example.com", says="DNS name"),
    "serving: a dot at the end": serving("dns:{me}.", says="DNS name"),
    "serving: a DNS name of 300 letters": serving("dns:" + "a" * 300, says="DNS name"),
    # addresses
    "serving: another node's address": serving("dns:{me}", "ip:{others}", says="wanted address"),
    "serving: the master's address": serving("dns:{me}", "ip:10.240.0.11", says="wanted address"),
    "serving: the API service": serving("ip:10.32.0.1", says="wanted address"),
    "serving: the DNS service": serving(*OWN, "ip:10.32.0.10", says="wanted address"),
    "serving: loopback": serving("ip:127.0.0.1", says="wanted address"),
    "serving: IPv6": serving("ip:::1", says="not allowed as a name"),
    "leased: the master": serving("ip:10.240.0.11", by="leaser", says="not one that DHCP"),
    "leased: a static worker": serving("ip:{others}", by="leaser", says="not one that DHCP"),
    "leased: the gateway": serving("ip:10.240.0.1", by="leaser", says="not one that DHCP"),
    "leased: the API service": serving("ip:10.32.0.1", by="leaser", says="not one that DHCP"),
    "leased: out of range": serving("ip:8.8.8.8", by="leaser", says="not one that DHCP"),
    "leased: the broadcast address": serving("ip:10.240.255.255", by="leaser", says="not one that DHCP"),
    "leased: two": serving("ip:{leased}", "ip:10.240.0.98", by="leaser", says="at most one address"),
    # other kinds of names
    "serving: a URI": serving(*OWN, "uri:spiffe://cluster.local/{me}", says="not allowed as a name"),
    "serving: an e-mail address": serving(*OWN, "email:root@{me}", says="not allowed as a name"),
    # who may ask for a serving certificate
    "token: a serving certificate": serving(*OWN, by="token", says="only the node itself"),
    "another node's serving certificate": serving(*OWN, by="other-node", says="only the node itself"),
    # keys and signatures
    "RSA with 1,024 bits": Case(by="token", key="rsa1024", says="RSA"),
    "RSA with exponent 3": Case(by="token", key="rsa2048e3", says="RSA"),
    "P-224": Case(by="node", key="p224", says="P-256"),
    "Ed25519": Case(by="node", key="ed25519", digest="sha512", says="SHA-256"),
    "SHA-1": Case(by="node", digest="sha1", says="signature"),
    "a signature that is wrong": Case(by="token", broken_signature=True, outcome=422),
    # lifetimes
    "ten years": Case(by="node", seconds=10 * 365 * 86400, says="expirationSeconds"),
    "a minute": Case(by="node", seconds=60, outcome=422),
    "a lifetime below zero": Case(by="token", seconds=-1, outcome=422),
}

#: what kubelets of all versions send
LEGITIMATE: Mapping[str, Case] = {
    "renewal": Case(by="node"),
    "renewal, RSA": Case(
        by="node", key="rsa2048", uses=("digital signature", "key encipherment", "client auth")
    ),
    "renewal, P-384": Case(by="node", key="p384", digest="sha384"),
    "renewal with a lifetime": Case(by="node", seconds=86400),
    "the token once more, by a new machine": Case(by="token"),
    "serving": serving(*OWN),
    "serving, before 1.27": serving(*OWN, uses=("digital signature", "key encipherment", "server auth")),
    "serving, address only": serving("ip:{address}"),
    "serving, a leased address": serving("dns:{me}", "ip:{leased}", by="leaser"),
    "renewal of a node with a lease": Case(by="leaser"),
}
