"""Configuration of containerd, in the version of the file that its release reads best, and of crictl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen.emit import emit_yaml
from imagegen.kubernetes.gates import Gates
from imagegen.kubernetes.toml import emit_toml

CONFIG = "/etc/containerd/config.toml"
DROP_INS = "/etc/containerd/conf.d"
REGISTRIES = "/etc/containerd/certs.d"
SOCKET = "/run/containerd/containerd.sock"
CRICTL_CONFIG = "/etc/crictl.yaml"
RUNC = "/usr/local/sbin/runc"
CNI_BINARIES = "/opt/cni/bin"
CNI_CONFIGURATION = "/etc/cni/net.d"


def containerd_config(gates: Gates, pause: str) -> str:
    """The text of ``config.toml``; ``pause`` is the sandbox image."""
    name = gates.choose("containerd", "config version 4", "config version 3", "config version 2")
    version = int(name.rpartition(" ")[2])
    head: dict[str, Any] = {
        "version": version,
        "root": "/var/lib/containerd",
        "state": "/run/containerd",
        "imports": [f"{DROP_INS}/*.toml"],
    }
    return emit_toml({**head, **_LAYOUTS[version](pause)})


def _runtimes() -> dict[str, Any]:
    options = {"BinaryName": RUNC, "SystemdCgroup": True}
    return {
        "default_runtime_name": "runc",
        "runtimes": {"runc": {"runtime_type": "io.containerd.runc.v2", "options": options}},
    }


def _layout_2(pause: str) -> dict[str, Any]:
    cri = {
        "sandbox_image": pause,
        "containerd": _runtimes(),
        "cni": {"bin_dir": CNI_BINARIES, "conf_dir": CNI_CONFIGURATION},
        "registry": {"config_path": REGISTRIES},
    }
    return {"grpc": {"address": SOCKET}, "plugins": {"io.containerd.grpc.v1.cri": cri}}


def _cri_plugins(pause: str) -> dict[str, Any]:
    return {
        "io.containerd.cri.v1.images": {
            "pinned_images": {"sandbox": pause},
            "registry": {"config_path": REGISTRIES},
        },
        "io.containerd.cri.v1.runtime": {
            "containerd": _runtimes(),
            "cni": {"bin_dirs": [CNI_BINARIES], "conf_dir": CNI_CONFIGURATION},
        },
    }


def _layout_3(pause: str) -> dict[str, Any]:
    return {"grpc": {"address": SOCKET}, "plugins": _cri_plugins(pause)}


def _layout_4(pause: str) -> dict[str, Any]:
    # version 4 turned the servers into plug-ins
    server = {"io.containerd.server.v1.grpc": {"address": SOCKET}}
    return {"plugins": {**_cri_plugins(pause), **server}}


_LAYOUTS = {2: _layout_2, 3: _layout_3, 4: _layout_4}


def crictl_config() -> str:
    """The text of ``/etc/crictl.yaml``."""
    endpoint = f"unix://{SOCKET}"
    config: Mapping[str, Any] = {
        "runtime-endpoint": endpoint,
        "image-endpoint": endpoint,
        "timeout": 10,
        "debug": False,
    }
    return emit_yaml(config)
