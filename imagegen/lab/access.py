"""How people and tests reach the lab: a throw-away ssh key, an ssh configuration, a kubeconfig."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imagegen.emit import emit_yaml
from imagegen.lab import gate
from imagegen.lab.folder import LabFolder
from imagegen.model.cluster import Cluster
from imagegen.run import Tool

SSH = Tool(
    name="ssh", package="openssh-client", purpose="log in to the lab's nodes", version_arguments=("-V",)
)
TOOLS = (SSH,)


def make_ssh_key(path: Path) -> str:
    """The public half of the lab's key, which is made when it is not there."""
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(handle, "wb") as stream:
            stream.write(private)
    loaded = serialization.load_ssh_private_key(path.read_bytes(), None)
    public = loaded.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return f"{public.decode()} imagegen-lab"


def emit_ssh_config(folder: LabFolder, user: str, addresses: Mapping[str, str]) -> str:
    """An ssh configuration that knows every node by name; ssh reaches them through the lab's door."""
    door = folder.network / gate.SOCKET
    program = [sys.executable, "-m", "imagegen.lab.dial", str(door)]
    proxy = " ".join(shlex.quote(word).replace("%", "%%") for word in program)
    lines = []
    for name, address in addresses.items():
        lines += [f"Host {name}", f"  HostName {address}"]
    lines += [
        "Host *",
        f"  User {user}",
        f"  IdentityFile {_quote(folder.ssh_key)}",
        "  IdentitiesOnly yes",
        f"  UserKnownHostsFile {_quote(folder.known_hosts)}",
        "  StrictHostKeyChecking accept-new",
        "  ConnectTimeout 30",
        "  LogLevel ERROR",
        f"  ProxyCommand {proxy} %h %p",
    ]
    return "".join(f"{line}\n" for line in lines)


def _quote(path: Path) -> str:
    return '"' + str(path).replace("%", "%%") + '"'


def write_kubeconfig(folder: LabFolder, cluster: Cluster, api_port: int) -> None:
    """The admin's kubeconfig, with the API at the lab's port of 127.0.0.1.

    The server must still prove that it is the endpoint's: ``tls-server-name`` says so.
    """
    rendered = folder.seeds / "kubeconfigs" / "admin.kubeconfig"
    data = read_kubeconfig(rendered)
    for one in data["clusters"]:
        one["cluster"]["server"] = f"https://127.0.0.1:{api_port}"
        one["cluster"]["tls-server-name"] = cluster.endpoint.host
    handle = os.open(folder.kubeconfig, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="utf-8") as stream:
        stream.write(emit_yaml(data))


def read_kubeconfig(path: Path) -> dict[str, Any]:
    """A kubeconfig that imagegen wrote."""
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data
