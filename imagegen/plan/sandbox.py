"""The sandbox of imagegen's own one-shot units of the host: nothing that the one command does not need."""

from __future__ import annotations

from imagegen.kubernetes.units import CODE, KERNEL, RIGHTS


def list_sandbox(
    *,
    capabilities: str = "",
    families: str = "AF_UNIX",
    calls: str = "@system-service",
    has_network: bool = False,
    has_devices: bool = False,
) -> list[tuple[str, str]]:
    """Directives of systemd.exec(5), systemd 249 and later, for a command that writes nothing.

    ``capabilities`` and ``families`` may be empty: then there are none. ``calls`` are system call groups.
    """
    return [
        ("CapabilityBoundingSet", capabilities),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        *([] if has_devices else [("PrivateDevices", "yes")]),
        *([] if has_network else [("PrivateNetwork", "yes")]),
        *KERNEL,
        ("ProtectKernelTunables", "yes"),
        ("ProtectProc", "invisible"),
        ("RestrictAddressFamilies", families or "none"),
        *RIGHTS,
        *CODE,
        ("SystemCallFilter", calls),
        ("SystemCallErrorNumber", "EPERM"),
        ("UMask", "0077"),
    ]
