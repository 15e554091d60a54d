"""What makes a new machine let Packer in: cloud-init's files on a CD, the answers of the three installers.

``new-key.sh`` puts the build's public key into the place that ``KEY`` holds open.
"""

from __future__ import annotations

from imagegen.backends.packer.prose import render_prose
from imagegen.backends.packer.systems import Installer, System
from imagegen.emit import emit_yaml
from imagegen.model.cluster import OperatingSystem
from imagegen.plan.components.platform import ANY_ETHERNET

KEY = "@SSH_PUBLIC_KEY@"

#: what the build itself needs; the plan's packages come later, by install.sh
_PACKAGES = ("openssh-server", "sudo", "cloud-init")


def lower_seeds(system: System, os: OperatingSystem, user: str) -> dict[str, bytes]:
    """The files below ``seeds/``: ``cidata`` for cloud images, ``installer`` for installers."""
    files = {f"cidata/{name}": text for name, text in _cidata(user).items()}
    match system.installer:
        case Installer.PRESEED:
            view = {"user": user, "packages": _PACKAGES}
            files["installer/preseed.cfg"] = render_prose("seeds", "preseed.cfg.j2", view)
        case Installer.KICKSTART:
            view = {"user": user, "packages": _PACKAGES, "environment": system.environment}
            files["installer/ks.cfg"] = render_prose("seeds", "ks.cfg.j2", view)
        case Installer.AUTOINSTALL:
            files["installer/user-data"] = "#cloud-config\n" + emit_yaml(_autoinstall(user))
            files["installer/meta-data"] = "instance-id: build\n"
    return {f"seeds/{path}": text.encode() for path, text in files.items()}


def _account(user: str) -> dict[str, object]:
    return {
        "name": user,
        "lock_passwd": True,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": [KEY],
    }


def _cidata(user: str) -> dict[str, str]:
    """Lets Packer in and touches nothing else; the clean-up removes what cloud-init makes of it."""
    user_data = {
        "users": [_account(user)],
        "ssh_pwauth": False,
        "disable_root": True,
        "package_update": False,
        "package_upgrade": False,
    }
    network = {
        "version": 2,
        "ethernets": {
            # networkd takes the name of the definition as the pattern of interface names
            ANY_ETHERNET: {
                "match": {"name": ANY_ETHERNET},
                "dhcp4": True,
                "dhcp6": False,
                "accept-ra": False,
                "link-local": [],
            }
        },
    }
    return {
        "user-data": "#cloud-config\n" + emit_yaml(user_data),
        "meta-data": "instance-id: build\nlocal-hostname: build\n",
        "network-config": emit_yaml(network),
    }


def _autoinstall(user: str) -> dict[str, object]:
    """Subiquity's document; ``user-data`` inside it replaces ``identity``, which would want a password."""
    return {
        "autoinstall": {
            "version": 1,
            "locale": "en_US.UTF-8",
            "keyboard": {"layout": "us"},
            "timezone": "Etc/UTC",
            "storage": {"layout": {"name": "direct"}, "swap": {"size": 0}},
            "ssh": {"install-server": True, "allow-pw": False},
            "packages": [name for name in _PACKAGES if name != "openssh-server"],
            "updates": "security",
            "user-data": {
                "users": [_account(user)],
                "ssh_pwauth": False,
                "disable_root": True,
            },
            "shutdown": "reboot",
        }
    }
