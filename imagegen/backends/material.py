"""Which material may lie on which node: the last check before secrets become bytes."""

from __future__ import annotations

from imagegen.content import Content, Ref
from imagegen.kubernetes.apiserver import TOKEN_FILE
from imagegen.model.cluster import Node, Role
from imagegen.pki import paths
from imagegen.pki.store import is_public
from imagegen.plan.components.first_boot import BOOTSTRAP_TOKENS

#: private entries that lie on masters alone, because only the control plane uses them
_MASTER_KEYS = frozenset({"pki/ca.key", "pki/sa.key", "encryption/secretbox-key", "pki/metrics-server.key"})
#: where masters, and only they, have the tokens of all nodes
_ALL_TOKENS = frozenset({BOOTSTRAP_TOKENS, TOKEN_FILE})

#: where masters, and only they, have the tokens of all nodes
_ALL_TOKENS = frozenset({BOOTSTRAP_TOKENS, TOKEN_FILE})
#: on masters of kubeadm alone, which looks for it there
_KUBEADM_KEY = ("pki/front-proxy-ca.key", paths.FRONT_PROXY_CA_KEY)


class MisplacedSecretError(Exception):
    """A plan puts material on a node that must not have it: a bug in imagegen, never the user's doing."""


def check_ref(node: Node, path: str, ref: Ref, *, shared: bool = False) -> None:
    """Raise MisplacedSecretError unless ``ref`` may be in the file ``path`` of ``node``.

    A node gets its own leaves and what everybody may see; masters also the keys that the control plane signs
    and encrypts with, and, in one file, the bootstrap tokens of all nodes, which they tell the API server.
    """
    name = ref.name
    if name.startswith("nodes/"):
        if name.startswith(f"nodes/{node.name}/") and not shared:
            return
        is_token = name.endswith("/bootstrap-token") and path in _ALL_TOKENS
        if is_token and node.has(Role.MASTER):
            return
    elif is_public(name) or (
        node.has(Role.MASTER) and (name in _MASTER_KEYS or (name, path) == _KUBEADM_KEY)
    ):
        return
    raise MisplacedSecretError(f"{path} of node {node.name} must not hold {name}")


def is_secret(content: Content) -> bool:
    """Whether the body holds anything that not everybody may see."""
    return any(isinstance(part, Ref) and not part.public for part in content)
