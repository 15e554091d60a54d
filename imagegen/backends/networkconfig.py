"""cloud-init network-config version 2 of one node: netplan's format, kept to what every renderer takes."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address

from imagegen.emit import emit_yaml
from imagegen.model.cluster import Network, Node
from imagegen.plan.components.platform import ANY_ETHERNET

#: The name of the definition. netplan takes any; cloud-init's own renderers (networkd, ifupdown) ignore a
#: glob in ``match`` and use it as the name of the interface, so it is the one that machines without
#: predictable names have.
_DEFINITION = "eth0"


def emit_network_config(
    node: Node, network: Network, *, golden: bool = False, nameservers: tuple[IPv4Address, ...] | None = None
) -> str:
    """A static address when the node has one, else DHCP; IPv4 only, without waiting for router
    advertisements. In a ``golden`` image cloud-init writes networkd's own files, where the name of the
    definition is the pattern of interface names that networkd takes. ``nameservers`` take the place of the
    network's own, and of those that DHCP names.
    """
    definition = ANY_ETHERNET if golden else _DEFINITION
    text = _emit_template(network, definition, node.address is not None, node.mac is not None, nameservers)
    return text.replace(_ADDRESS, str(node.address)).replace(_MAC, f"'{node.mac}'")


#: stand for the node's own values in the text that nodes of one network share
_ADDRESS = "NODE_ADDRESS"
_MAC = "NODE_MAC"


@lru_cache(maxsize=16)
def _emit_template(
    network: Network,
    definition: str,
    is_static: bool,
    has_mac: bool,
    nameservers: tuple[IPv4Address, ...] | None,
) -> str:
    device: dict[str, object] = {"match": {"macaddress": _MAC} if has_mac else {"name": ANY_ETHERNET}}
    if is_static:
        device |= {"dhcp4": False}
    else:
        # without this, systemd-networkd identifies itself by machine-id and DHCP reservations by MAC do not
        # match
        device |= {"dhcp4": True, "dhcp-identifier": "mac"}
        if nameservers is not None:
            device["dhcp4-overrides"] = {"use-dns": False}
    device |= {"dhcp6": False, "accept-ra": False, "link-local": []}
    if is_static:
        device["addresses"] = [f"{_ADDRESS}/{network.nodes.prefixlen}"]
        if network.gateway is not None:
            # cloud-init 22.4 does not know ``to: default``
            device["routes"] = [{"to": "0.0.0.0/0", "via": str(network.gateway)}]
    servers = network.nameservers if nameservers is None else nameservers
    if servers:
        device["nameservers"] = {"addresses": [str(server) for server in servers]}
    return emit_yaml({"version": 2, "ethernets": {definition: device}})
