"""What platforms give a machine beside its disk: an OVF environment on a CD, Compute Engine's metadata."""

from __future__ import annotations

import base64
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

from imagegen.lab.networkplan import METADATA_ADDRESS, Lease, Metadata, NetworkPlan

GCE_MAC = "42:01:0a:00:02:0f"
ENVIRONMENT = "http://schemas.dmtf.org/ovf/environment/1"


def render_ovf_environment(properties: dict[str, str]) -> bytes:
    """The document of DSP0243 section 11; its attributes have the namespace, too, as ESXi writes them."""
    ET.register_namespace("oe", ENVIRONMENT)
    root = ET.Element(f"{{{ENVIRONMENT}}}Environment", {f"{{{ENVIRONMENT}}}id": ""})
    platform = ET.SubElement(root, f"{{{ENVIRONMENT}}}PlatformSection")
    for tag, text in (
        ("Kind", "VMware ESXi"),
        ("Version", "8.0.3"),
        ("Vendor", "VMware, Inc."),
        ("Locale", "en"),
    ):
        ET.SubElement(platform, f"{{{ENVIRONMENT}}}{tag}").text = text
    section = ET.SubElement(root, f"{{{ENVIRONMENT}}}PropertySection")
    for key, value in properties.items():
        names = {f"{{{ENVIRONMENT}}}key": key, f"{{{ENVIRONMENT}}}value": value}
        ET.SubElement(section, f"{{{ENVIRONMENT}}}Property", names)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def write_ovf_transport(folder: Path, user_data: bytes) -> Path:
    """The CD by which a platform with transport ``iso`` hands over the properties of an OVA."""
    tree = folder / "ovf"
    tree.mkdir()
    properties = {
        "instance-id": "iid-ovf-1",
        "hostname": "bare",
        "public-keys": "",
        "user-data": base64.b64encode(user_data).decode(),
    }
    (tree / "ovf-env.xml").write_bytes(render_ovf_environment(properties))
    target = folder / "ovf-transport.iso"
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "OVF ENV", "-J", "-r", "-o", str(target), str(tree)]
    subprocess.run(argv, check=True, timeout=60, capture_output=True)
    return target


def plan_compute_engine(user_data: Path) -> NetworkPlan:
    """A network like Compute Engine's, with one machine whose ``user-data`` the metadata server has."""
    address = "10.0.2.15"
    return NetworkPlan(
        addresses=("10.0.2.1/24", f"{METADATA_ADDRESS}/32"),
        taps=("tap0",),
        leases=(Lease(mac=GCE_MAC, address=address, name="bare"),),
        names=(("metadata.google.internal", METADATA_ADDRESS),),
        metadata=(
            Metadata(
                address=address,
                hostname="bare.c.lab.internal",
                instance_id="4520031799277581759",
                attributes=(("user-data", str(user_data)),),
            ),
        ),
    )
