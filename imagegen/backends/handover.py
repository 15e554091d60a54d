"""What people need on each platform after the build: command lines to read, guestinfo of every node,
Terraform variables. Nothing here is run by imagegen.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping

import yaml

from imagegen.backends.cloudinit import Seed
from imagegen.backends.packer.prose import render_prose
from imagegen.backends.packer.systems import SYSTEMS
from imagegen.emit import emit_json, emit_yaml
from imagegen.model.cluster import Cluster, ImagePki, Node


def lower_handover(cluster: Cluster) -> dict[str, bytes]:
    """The files below ``handover/`` that are about the whole cluster; they hold no secret."""
    nodes = tuple(_view_node(cluster, node) for node in cluster.nodes)
    view = {
        "cluster": cluster.name,
        "nodes": nodes,
        "baked": cluster.image.pki is ImagePki.BAKED,
        "images": tuple(
            {"name": name_cloud_image(cluster, name), "stem": f"images/{cluster.name}-{name}"}
            for name in sorted({_name_image(cluster, node) for node in cluster.nodes})
        ),
        "disk_mib": cluster.image.size_mib,
        "network": str(cluster.network.nodes),
        "ostype": SYSTEMS[cluster.image.os].virtualbox_type,
    }
    texts = {
        f"{target.value}.sh": render_prose("handover", f"{target.value}.sh.j2", view)
        for target in cluster.targets
    }
    texts["terraform.tfvars.json"] = emit_json(_list_terraform(cluster))
    return {f"handover/{name}": text.encode() for name, text in texts.items()}


def name_cloud_image(cluster: Cluster, name: str) -> str:
    """An image family of Compute Engine: lower-case letters, digits and dashes. ``name`` is a set of roles,
    or the node that an image of its own is for.
    """
    return f"{cluster.name}-{name.replace('+', '-')}"


def _name_image(cluster: Cluster, node: Node) -> str:
    """What the image of a node is named after: its roles, or itself when its seed is inside."""
    return node.name if cluster.image.pki is ImagePki.BAKED else node.role_set


def _view_node(cluster: Cluster, node: Node) -> dict[str, str]:
    return {
        "name": node.name,
        "stem": f"images/{cluster.name}-{_name_image(cluster, node)}",
        "image": name_cloud_image(cluster, _name_image(cluster, node)),
        "address": "" if node.address is None else str(node.address),
        "mac": node.mac or "",
        "mac_digits": (node.mac or "").replace(":", "").upper(),
    }


def _list_terraform(cluster: Cluster) -> dict[str, object]:
    """One map of nodes; which resources are made of it is the user's own module."""
    return {
        "cluster_name": cluster.name,
        "node_network": str(cluster.network.nodes),
        "nodes": {
            node.name: {
                "roles": [role.value for role in node.roles],
                "address": None if node.address is None else str(node.address),
                "mac": node.mac,
                "image": f"images/{cluster.name}-{_name_image(cluster, node)}",
                "image_family": name_cloud_image(cluster, _name_image(cluster, node)),
                "user_data_file": f"nodes/{node.name}/user-data",
                "meta_data_file": f"nodes/{node.name}/meta-data",
                "network_config_file": f"nodes/{node.name}/network-config",
                "seed_file": f"nodes/{node.name}/seed.iso",
            }
            for node in cluster.nodes
        },
    }


def lower_guestinfo(seed: Seed) -> dict[str, bytes]:
    """One node's seed for VMware: the two encoded values, a snippet for its ``.vmx``, and the properties of
    an OVA; as secret as it.

    Keys and encodings: https://docs.cloud-init.io/en/latest/reference/datasources/vmware.html
    """
    metadata = yaml.safe_load(seed.meta_data)
    # a string would have to be encoded again; the data source takes the mapping as it is
    metadata["network"] = yaml.safe_load(seed.network_config)
    values = {
        "metadata": ("base64", base64.b64encode(emit_yaml(metadata).encode())),
        "userdata": (
            "gzip+base64",
            base64.b64encode(gzip.compress(seed.user_data, compresslevel=9, mtime=0)),
        ),
    }
    lines = []
    for name, (encoding, value) in values.items():
        lines.append(f'guestinfo.{name} = "{value.decode()}"\n')
        lines.append(f'guestinfo.{name}.encoding = "{encoding}"\n')
    stem = f"handover/vmware/{seed.node.name}"
    files = {f"{stem}.{name}": value for name, (_, value) in values.items()}
    properties = _list_properties(metadata, values["userdata"][1])
    return files | {
        f"{stem}.vmx": "".join(lines).encode(),
        f"{stem}.options.json": emit_json(properties).encode(),
    }


def _list_properties(metadata: Mapping[str, object], user_data: bytes) -> dict[str, object]:
    """What ``govc import.ova -options`` takes: the properties that our OVAs declare, for cloud-init's OVF
    data source, which unpacks base64 itself and gzip like all of them.
    """
    network = emit_yaml({"network": metadata["network"]}).encode()
    values = {
        "instance-id": str(metadata["instance-id"]),
        "hostname": str(metadata["local-hostname"]),
        "network-config": base64.b64encode(network).decode(),
        "user-data": user_data.decode(),
    }
    return {
        "DiskProvisioning": "thin",
        "IPAllocationPolicy": "dhcpPolicy",
        "IPProtocol": "IPv4",
        "PropertyMapping": [{"Key": key, "Value": value} for key, value in values.items()],
    }
